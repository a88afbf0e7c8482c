"""What a run tells of a suspicious backup, of tiers that were left alone, and of what the run itself told already."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.events.clients import AssertingEventsClient
from prefect.events.schemas.events import Event
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.plan.notifications import BlockTarget
from blocks.records import BackupMetadata, BackupType
from blocks.sources.sqlite import SQLiteSource
from blocks.telemetry.numbers import BreakerTurns, OperationNumbers
from flows.backup import make_backup
from flows.reporting.events import RunEvents
from flows.reporting.lifecycle import Operation, Verb
from tests.plans import plan_of
from tests.receivers import closed_port

TIER = "s3://kept/books"


@pytest.fixture
def _kept() -> Iterator[None]:
    """Keep events in this process."""
    AssertingEventsClient.reset()
    EventsWorker.set_client_override(AssertingEventsClient)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{closed_port()}/api"}):
        yield
    EventsWorker.set_client_override(None)


def told() -> list[Event]:
    EventsWorker.drain_all()
    (client,) = AssertingEventsClient.all
    return client.pop_events()


@pytest.fixture
def made(tmp_path: Path) -> Operation:
    """A backup that was made."""
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL)")
        database.execute("INSERT INTO orders VALUES (1, 2.5)")
    database.close()
    plan = plan_of(tmp_path, ledger=SQLiteSource(path=str(tmp_path / "ledger.sqlite")))
    result = make_backup(plan, BackupType.FULL)
    return Operation(plan, Verb.BACKUP, "full", backup_id=result.backup_id, result=result, seconds=1.0)


@pytest.mark.usefixtures("_kept")
def test_what_is_suspicious_and_what_tiers_did_are_events_of_their_own(made: Operation) -> None:
    assert isinstance(made.result, BackupMetadata)
    made.result = made.result.model_copy(update={"suspicions": ("ledger/orders has half of its rows",)})
    made.numbers = OperationNumbers(breakers=(BreakerTurns(TIER, 2, 1),))
    RunEvents().ended(made)
    completed, suspicious, opened, closed = told()
    assert [one.event.removeprefix("lastgood.") for one in (completed, suspicious, opened, closed)] == [
        "backup.completed", "backup.suspicious", "tier.opened", "tier.closed",
    ]  # fmt: skip
    assert suspicious.payload["suspicions"] == ["ledger/orders has half of its rows"]
    assert (opened.resource.id, opened.payload["times"]) == (f"lastgood.tier.{TIER}", 2)
    assert {one.role: one.id for one in closed.related}["backup"] == f"lastgood.backup.{made.backup_id}"
    assert {one.event for one in (completed, suspicious, opened, closed) if "lastgood.counts" in one.resource} == {
        "lastgood.backup.completed"
    }


@pytest.mark.usefixtures("_kept")
def test_an_emergency_backup_counts_for_nothing(made: Operation) -> None:
    made.kind = "emergency"
    RunEvents().ended(made)
    (completed,) = told()
    assert "lastgood.counts" not in completed.resource


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize(
    ("blocks", "told_by_run", "label"),
    [([], (), "no"), (["a/b"], (), "no"), (["a/b"], ("block a/b",), "yes"), (["a/b", "a/c"], ("block a/b",), "no")],
)
def test_a_label_says_whether_the_run_told_all_blocks(
    made: Operation, blocks: list[str], told_by_run: tuple[str, ...], label: str
) -> None:
    targets = tuple(BlockTarget(type="block", block=block) for block in blocks)
    made.plan = made.plan.model_copy(update={"notifications": targets})
    made.error, made.result, made.told = KeyboardInterrupt(), None, told_by_run
    RunEvents().ended(made)
    (failed,) = told()
    assert (failed.event, failed.resource["lastgood.told"]) == ("lastgood.backup.failed", label)
    assert failed.payload["message"] == "it was interrupted"
