"""A clock that jumped: backups go on and are marked, retention refuses until a person says that the clock is right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import NotConfirmed
from blocks.repository.repository import Repository
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.flows.flow_support import FULL, INCREMENTAL, Shop, clock

TEN_YEARS = timedelta(days=3652)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.fill(10)
    return shop


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], datetime]:
    """Let the clock of this machine, and that of a local folder, which is the same, be ahead of the time."""

    return clock(monkeypatch)


def history(shop: Shop) -> list[str]:
    """Make seven backups, of which a policy keeps three whatever their age."""
    return [shop.back_up(kind).backup_id for kind in (FULL, INCREMENTAL, INCREMENTAL, FULL, INCREMENTAL, FULL, FULL)]


def test_retention_under_a_clock_that_jumped_removes_nothing(shop: Shop, jump: Callable[[timedelta], datetime]) -> None:
    """A clock of ten years later had removed four of seven backups."""
    made = history(shop)
    later = jump(TEN_YEARS)
    with pytest.raises(NotConfirmed) as refused:
        apply_retention(shop.plan, now=later)
    assert refused.value.exit_code == 10
    assert f"this machine's clock says {later:%Y-%m-%d %H:%M} UTC" in refused.value.message
    newest = shop.repository.manifest("trading", made[-1]).timestamp
    assert f"{newest:%Y-%m-%d %H:%M} UTC" in refused.value.message
    assert "--accept-clock" in refused.value.hint
    (note,) = apply_retention(shop.plan, dry_run=True, now=later).notes
    assert "--accept-clock" in note
    assert shop.ids == made
    assert len(apply_retention(shop.plan, now=later, accept_clock=True).removed) > 3


def test_a_backup_under_a_clock_that_jumped_is_marked_and_makes_no_clock_right(
    shop: Shop, jump: Callable[[timedelta], datetime]
) -> None:
    made = history(shop)
    later = jump(TEN_YEARS)
    jumped = shop.back_up(INCREMENTAL)
    assert jumped.timestamp > later - timedelta(minutes=1)
    assert f"this machine's clock says {later:%Y-%m-%d}" in str(jumped.clock_doubt)
    assert shop.repository.manifest("trading", jumped.backup_id).clock_doubt == jumped.clock_doubt
    assert shop.back_up(INCREMENTAL).clock_doubt is not None
    with pytest.raises(NotConfirmed, match="no backup is young enough"):
        apply_retention(shop.plan, now=later + timedelta(minutes=5))
    # and the clock is right again
    right = jump(timedelta(0))
    after = shop.back_up(INCREMENTAL)
    assert after.clock_doubt is None
    assert apply_retention(shop.plan, now=right).removed == []
    assert shop.ids[: len(made)] == made


def test_a_clock_that_differs_from_that_of_the_storage_is_not_believed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.back_up(FULL)
    storage = datetime.now(UTC) + timedelta(minutes=20)
    monkeypatch.setattr(Repository, "storage_time", lambda *_: storage)
    assert f"that of the storage {storage:%Y-%m-%d %H:%M} UTC" in str(shop.back_up(INCREMENTAL).clock_doubt)
    with pytest.raises(NotConfirmed, match="that of the storage"):
        apply_retention(shop.plan)
    assert "that of the storage" in apply_retention(shop.plan, accept_clock=True).notes[0]
    assert shop.repository.expiries("trading") == []  # the next time it may be wrong


def test_the_storage_is_asked_by_what_the_run_has_written(shop: Shop) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    with shop.repository.lease("trading", "retention") as lease:
        told = shop.repository.storage_time(lease)
    assert told is not None
    assert before <= told <= datetime.now(UTC) + timedelta(seconds=1)


def test_a_record_that_is_still_to_come_refuses_until_it_is_accepted(
    shop: Shop, jump: Callable[[timedelta], datetime]
) -> None:
    made = shop.back_up(FULL)
    behind = jump(timedelta(days=-900))
    with pytest.raises(NotConfirmed, match="still to come"):
        apply_retention(shop.plan, now=behind)
    assert "still to come" in str(shop.back_up(FULL).clock_doubt)
    # a verification, too
    proof = make_verification(shop.plan, made.backup_id, deep=False)
    assert shop.repository.newest_event("trading") == proof.verified_at
    assert apply_retention(shop.plan, now=behind, accept_clock=True).removed == []
    (said,) = shop.repository.expiries("trading")
    assert said.accepted is not None
    assert said.accepted.newest == proof.verified_at
    assert apply_retention(shop.plan, now=behind).notes == []
    assert shop.back_up(INCREMENTAL).clock_doubt is None


def test_a_plan_that_rested_is_accepted_once(shop: Shop, jump: Callable[[timedelta], datetime]) -> None:
    shop.back_up(FULL)
    shop.back_up(FULL)
    later = jump(timedelta(days=700))
    with pytest.raises(NotConfirmed):
        apply_retention(shop.plan, now=later)
    assert shop.back_up(FULL).clock_doubt is not None
    assert len(apply_retention(shop.plan, now=later + timedelta(minutes=1), accept_clock=True).removed) == 2
    assert shop.back_up(INCREMENTAL).clock_doubt is None
    assert apply_retention(shop.plan, now=later + timedelta(minutes=2)).notes == []
    assert shop.repository.audit("trading") == []


def test_a_plan_that_has_ended_is_not_refused_where_nothing_goes(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.back_up(INCREMENTAL)
    later = datetime.now(UTC) + timedelta(days=700)
    assert apply_retention(shop.plan, dry_run=True, now=later).notes == []
