"""The backend that a plan names counts backups and retention, each at its moment; a broken one stops nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import lastgood
from blocks.errors import LastgoodError, RepositoryLocked
from blocks.plan.metrics import Metrics
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline import read_part as stage
from flows.pipeline.progress import Progress
from flows.reporting import lifecycle
from flows.reporting.sent_metrics import SentMetrics
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.flows.flow_support import Shop
from tests.metric_servers import otlp_collector, packets, silent_server

CREATED, CLEANED = "backup.operations.created", "backup.retention.cleaned"
DURATION, SIZE = "backup.operations.duration_seconds", "backup.operations.size_bytes_total"
REMOVED = "backup.retention.removed_count"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(tmp_path, encrypted=False)
    made.fill(10)
    return made


def sending(shop: Shop, backend: str, address: str, **more: Any) -> BackupPlan:
    return shop.plan.model_copy(update={"metrics": Metrics(backend=backend, address=address, **more)})


def names(lines: Sequence[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


def values(lines: Sequence[str]) -> dict[str, float]:
    return {name: float(rest.partition("|")[0]) for name, _, rest in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("backend", ["statsd", "datadog"])
def test_backups_and_retention_are_counted_each_at_its_moment(shop: Shop, backend: str) -> None:
    with packets() as server:
        plan = sending(shop, backend, server.address, prefix="acme")

        class Heard(Progress):
            """Hears what was sent before the first part was read."""

            lines: Sequence[str] = ()

            def entered(self, part: str) -> None:
                self.lines = self.lines or server.lines(1)

        heard = Heard()
        made = make_backup(plan, BackupType.FULL, progress=heard)
        assert names(heard.lines) == [f"acme.{CREATED}_total"]
        told = server.lines(3)
        assert names(told) == [f"acme.{CREATED}_success", f"acme.{DURATION}", f"acme.{SIZE}"]
        assert values(told)[f"acme.{SIZE}"] == made.size_stored
        assert values(told)[f"acme.{DURATION}"] >= made.backup_duration_seconds

        apply_retention(plan, dry_run=True)
        apply_retention(plan)
        assert names(server.lines(2)) == [f"acme.{CLEANED}_total", f"acme.{CLEANED}_success"]

        for _ in range(2):
            make_backup(plan, BackupType.FULL)
            assert names(server.lines(4))[0] == f"acme.{CREATED}_total"
        result = apply_retention(plan, now=datetime.now(UTC) + timedelta(days=3650), accept_clock=True)
        told = server.lines(3)
        assert names(told) == [f"acme.{CLEANED}_total", f"acme.{CLEANED}_success", f"acme.{REMOVED}"]
        assert values(told)[f"acme.{REMOVED}"] == len(result.removed) > 0

        with plan.repository.unlock(plan.encryption).lease(plan.name, "another run"):
            for refused in (lambda: make_backup(plan, BackupType.FULL), lambda: apply_retention(plan)):
                with pytest.raises(RepositoryLocked):
                    refused()
        assert names(server.lines(5)) == [
            *(f"acme.{CREATED}_total", f"acme.{CREATED}_failed", f"acme.{DURATION}"),
            *(f"acme.{CLEANED}_total", f"acme.{CLEANED}_failed"),
        ]
        assert server.silent()


def test_restores_and_verifications_are_counted_by_how_they_ended(shop: Shop) -> None:
    made = make_backup(shop.plan, BackupType.FULL)
    with packets() as server:
        plan = sending(shop, "statsd", server.address)
        make_verification(plan, deep=True)
        told = server.lines(4)
        assert names(told) == [
            *("lastgood.verification.started", "lastgood.verification.completed"),
            *("lastgood.verification.duration_seconds", "lastgood.verification.restore_seconds"),
        ]
        assert values(told)["lastgood.verification.restore_seconds"] > 0
        for mode in (RestoreMode.PREVIEW, RestoreMode.EXACT):
            make_restore(plan, RestoreRequest(made.backup_id, selection=Selection(), mode=mode))
        assert names(server.lines(3)) == [
            f"lastgood.restore.{what}" for what in ("started", "completed", "duration_seconds")
        ]
        for pack in shop.folder.glob(f"repository/backups/*/{made.backup_id}/*.pack"):
            pack.write_bytes(pack.read_bytes()[::-1])
        make_verification(plan, deep=False)
        with pytest.raises(LastgoodError):
            make_restore(plan, RestoreRequest(made.backup_id, selection=Selection(), mode=RestoreMode.EXACT))
        assert names(server.lines(6))[1::3] == ["lastgood.verification.bad", "lastgood.restore.failed"]
        assert server.silent()


def test_a_retention_that_removes_one_by_one_after_a_failed_batch_is_a_success(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a storage refuses a batch and takes its objects one by one, nobody but the tier need know."""
    import obstore

    plan = shop.plan.model_copy(
        update={"repository": shop.plan.repository.model_copy(update={"url": "memory://bucket/sequential"})}
    )
    plan.repository.initialize(plan.encryption, lambda kit: None)
    delete, batches = obstore.delete, []

    def one_by_one(store: object, names: str | Sequence[str], **options: object) -> None:
        if not isinstance(names, str) and len(names) > 1:
            batches.append(len(names))
            raise obstore.exceptions.PermissionDeniedError("a batch is too much")
        delete(store, names, **options)

    monkeypatch.setattr(obstore, "delete", one_by_one)
    for _ in range(2):
        make_backup(plan, BackupType.FULL)
    with packets() as server:
        plan = plan.model_copy(update={"metrics": Metrics(backend="statsd", address=server.address)})
        result = apply_retention(plan, now=datetime.now(UTC) + timedelta(days=3650), accept_clock=True)
        assert batches
        assert result.removed
        assert names(server.lines(3)) == [f"{CLEANED}_total", f"{CLEANED}_success", REMOVED]


def test_otlp_gets_all_of_a_backup_in_one_message(shop: Shop) -> None:
    with otlp_collector() as server:
        plan = sending(shop, "otlp", server.address, tags={"team": "books"})
        made = make_backup(plan, BackupType.FULL)
        assert set(server.metrics()) == {f"{CREATED}_total", f"{CREATED}_success", DURATION, SIZE}
        (point,) = server.metrics()[SIZE].histogram.data_points
        assert (point.sum, point.count) == (made.size_stored, 1)
        tags = {one.key: one.value.string_value for one in point.attributes}
        assert tags == {"team": "books", "plan": "trading"}


def test_a_manager_with_a_collector_of_its_own_tells_that_once_and_the_plan_s_backend_once(shop: Shop) -> None:
    with packets() as of_plan, packets() as of_program:
        plan = sending(shop, "statsd", of_plan.address)
        collector = lastgood.MetricsCollector("statsd", "app", of_program.address)
        manager = lastgood.BackupManager(plan, collector)
        manager.create_backup("full")
        manager.cleanup_old_backups()
        assert collector.flush(60)
        expected = [f"{CREATED}_total", f"{CREATED}_success", DURATION, SIZE, f"{CLEANED}_total", f"{CLEANED}_success"]
        assert sorted(names(of_plan.lines(6))) == sorted(expected)
        assert sorted(names(of_program.lines(6))) == sorted(f"app.{name}" for name in expected)
        assert of_plan.silent()
        assert of_program.silent()
        collector.close()


@pytest.mark.parametrize("backend", ["statsd", "datadog", "otlp"])
@pytest.mark.parametrize("place", ["closed", "unresolvable", "silent", "not installed"])
def test_a_broken_backend_neither_stops_nor_holds_up_a_backup(
    shop: Shop, backend: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "not installed":
        monkeypatch.setattr("blocks.telemetry.collector.find_spec", lambda name: None)
    with silent_server() as port:
        where = {"closed": "127.0.0.1:1", "unresolvable": "nowhere.invalid:8125"}.get(place, f"127.0.0.1:{port}")
        plan = sending(shop, backend, f"http://{where}" if backend == "otlp" else where)
        ended: list[float] = []
        tell = lifecycle._tell

        def timed(*told: Any) -> None:
            began = time.monotonic()
            tell(*told)
            ended.append(time.monotonic() - began)

        monkeypatch.setattr(lifecycle, "_tell", timed)
        made = make_backup(plan, BackupType.FULL)
    assert make_verification(shop.plan, made.backup_id, deep=False).rows == made.rows
    assert len(ended) >= 2
    # it waits for three seconds at most; the rest is for a busy machine
    assert max(ended) < 8


def test_a_plan_that_names_no_backend_has_nobody_to_tell(shop: Shop) -> None:
    prometheus = shop.plan.model_copy(update={"metrics": Metrics(backend="prometheus", prefix="x")})
    for plan in (shop.plan, prometheus):
        assert SentMetrics not in map(type, lifecycle.listeners(plan))


def test_a_failed_backup_is_counted_as_failed_whatever_ended_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_read", interrupted)
    with packets() as server:
        with suppress(KeyboardInterrupt, LastgoodError):
            make_backup(sending(shop, "statsd", server.address), BackupType.FULL)
        assert names(server.lines(3)) == [f"{CREATED}_total", f"{CREATED}_failed", DURATION]
