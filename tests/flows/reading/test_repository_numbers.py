"""What the exporter knows of a repository: what is suspicious, dated ahead, or another repository than before."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.plan.objectives import Objectives
from blocks.sources.sqlite import view
from flows.accept import accept_suspicions
from flows.reading.exporter import exporter_of
from flows.reading.report import read_facts
from flows.reading.repository_numbers import RepositoryReader
from flows.reading.status import Health, plan_status
from flows.verify import make_verification
from tests.flows.flow_support import FULL, Shop, clock
from tests.flows.reading.exported import scraped


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False, allow_empty=True)
    shop.fill()
    return shop


def test_a_suspicious_backup_counts_until_a_person_accepts_it_whatever_comes_after(shop: Shop) -> None:
    reader = RepositoryReader(shop.plan)
    shop.back_up(FULL)
    assert not reader.read().suspicious
    shop.db.execute("DELETE FROM orders")
    assert shop.back_up().suspicions
    assert reader.read().suspicious
    assert not shop.back_up().suspicions
    assert reader.read().suspicious
    # which changes neither backups nor their verifications
    accept_suspicions(shop.plan)
    assert not reader.read().suspicious


@pytest.mark.parametrize("readable", [True, False])
def test_what_a_clock_that_was_ahead_dated_hides_nothing_that_does_not_come(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """A backup and a verification of next year: until then each RPO would be met."""
    jump = clock(monkeypatch)
    before = shop.back_up(FULL)
    make_verification(shop.plan)
    jump(timedelta(days=400))
    shop.back_up(FULL)
    with monkeypatch.context() as ahead:
        for module in ("flows.verify", "flows.reporting.journal"):
            ahead.setattr(sys.modules[module], "datetime", view.datetime)  # type: ignore[attr-defined]
        assert make_verification(shop.plan).verified_at > datetime.now(UTC) + timedelta(days=399)
    jump(timedelta(0))
    exporter = exporter_of([shop.plan])
    exporter.look()
    if not readable:
        shutil.move(str(shop.plan.repository.folder), str(shop.folder / "away"))
        exporter.look()
    found = scraped(exporter.text())
    assert found("lastgood_up", plan="trading") == readable
    for name in ("newest_good_backup", "newest_verified_backup"):
        moment = found(f"lastgood_{name}_timestamp_seconds", plan="trading")
        assert moment == pytest.approx(before.timestamp.timestamp(), abs=0.01)
    made = RepositoryReader(shop.plan).read().made_at if readable else {"full": before.timestamp}
    assert made == {"full": before.timestamp}
    age = found("lastgood_rpo_seconds", plan="trading")
    assert age == pytest.approx((datetime.now(UTC) - before.timestamp).total_seconds(), abs=60)
    verified = found("lastgood_last_verification_timestamp_seconds", plan="trading")
    assert verified == pytest.approx(before.timestamp.timestamp(), abs=60)


def test_a_plan_whose_newest_backup_is_dated_ahead_is_late_all_the_same(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = shop.plan.model_copy(update={"objectives": Objectives(rpo=timedelta(hours=1))})
    jump = clock(monkeypatch)
    before = shop.back_up(FULL)
    jump(timedelta(days=400))
    ahead = shop.back_up(FULL)
    jump(timedelta(0))
    later = datetime.now(UTC) + timedelta(hours=2)
    status = plan_status(plan, "plan.yaml", later)
    assert status.last_good is not None
    assert (status.last_good.backup_id, status.health) == (before.backup_id, Health.STALE)
    assert read_facts(plan, "plan.yaml", later).rpo.met is False
    assert ahead.timestamp > later


def test_another_repository_in_the_same_place_is_seen_and_its_counters_begin_at_zero(shop: Shop) -> None:
    shop.back_up(FULL)
    exporter = exporter_of([shop.plan])
    exporter.look()
    assert (
        scraped(exporter.text())("lastgood_operations_started_total", plan="trading", verb="backup", type="full") == 1
    )
    assert shop.plan.repository.folder is not None
    shutil.rmtree(shop.plan.repository.folder)
    shop.plan.repository.initialize(shop.plan.encryption, lambda kit: None)
    for made in (0, 1):
        if made:
            shop.back_up(FULL)
        exporter.look()
        found = scraped(exporter.text())
        assert found("lastgood_up", plan="trading") == 1
        assert found("lastgood_backups_committed_total", plan="trading") == made
        assert found("lastgood_backups", plan="trading", type="full", status="completed") == made
        assert found("lastgood_backups", plan="trading", type="full", status="corrupted") == 0
        assert found("lastgood_operations_started_total", plan="trading", verb="backup", type="full") == made
