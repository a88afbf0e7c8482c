"""When a clock is not believed: the storage or what is on record contradicts it, and nobody accepted that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from blocks.plan.clock import TOLERANCE, future_doubt, silence_doubt, storage_doubt
from blocks.records import Acceptance, BackupMetadata, Expiry
from tests.blocks.plan.test_retention import DAY, NOW, POLICY, backup

YEARS = 3650 * DAY
SECOND = timedelta(seconds=1)


def record_doubt(
    now: datetime,
    backups: Sequence[BackupMetadata],
    newest_event: datetime | None = None,
    accepted: Sequence[Expiry] = (),
) -> str | None:
    """Return the first doubt that what is on record gives."""
    return future_doubt(now, backups, newest_event, accepted) or silence_doubt(now, backups, POLICY, accepted)


def numbered(*made: BackupMetadata) -> list[BackupMetadata]:
    return [one.model_copy(update={"sequence": n}) for n, one in enumerate(made, 1)]


def doubted(one: BackupMetadata) -> BackupMetadata:
    return one.model_copy(update={"clock_doubt": "the clock jumped"})


def accepted(age_days: float, sequence: int, newest_age_days: float | None) -> Expiry:
    newest = None if newest_age_days is None else NOW - newest_age_days * DAY
    return Expiry(
        plan="p", expired_at=NOW - age_days * DAY, removed=(), reasons={}, head=None,
        accepted=Acceptance(sequence=sequence, newest=newest),
    )  # fmt: skip


@pytest.mark.parametrize("direction", [1, -1])
def test_the_clock_of_the_storage_is_a_witness(direction: int) -> None:
    assert storage_doubt(NOW, None) is None
    assert storage_doubt(NOW, NOW + direction * TOLERANCE) is None
    said = storage_doubt(NOW, NOW + direction * (TOLERANCE + DAY))
    assert said is not None
    assert "2026-06-01 00:00 UTC" in said
    assert f"{NOW + direction * (TOLERANCE + DAY):%Y-%m-%d %H:%M} UTC" in said


MADE = numbered(backup("ful1", 20), backup("inc1", 3, ("ful1",)), backup("sna1", 2), backup("eme1", 1))


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (timedelta(0), None),
        (-DAY + SECOND, None),
        (-DAY - TOLERANCE, None),
        (-DAY - TOLERANCE - SECOND, "still to come"),
        (-YEARS, "still to come"),
        (69 * DAY, None),
        (70 * DAY, "no backup is young enough"),
        (YEARS, "no backup is young enough"),
    ],
)
def test_what_is_on_record_is_a_witness(ahead: timedelta, told: str | None) -> None:
    said = record_doubt(NOW + ahead, MADE)
    assert (said is None) is (told is None)
    assert told is None or told in str(said)


def test_a_verification_that_is_still_to_come_contradicts_the_clock() -> None:
    assert record_doubt(NOW, MADE, NOW - DAY) is None
    assert "still to come" in str(record_doubt(NOW, MADE, NOW + DAY))
    assert record_doubt(NOW, [], None) is None


def test_what_was_made_under_a_doubted_clock_proves_nothing() -> None:
    """A backup right after the jump would make the next retention run believe the clock."""
    jumped = numbered(*MADE, doubted(backup("ful2", -3650)))
    assert "no backup is young enough" in str(record_doubt(NOW + YEARS, jumped))
    assert record_doubt(NOW, jumped) is None


def test_what_a_person_accepted_is_believed_from_then_on() -> None:
    rested = numbered(backup("ful1", 800), backup("ful2", 795), doubted(backup("ful3", 1)))
    assert record_doubt(NOW, rested) is not None
    assert record_doubt(NOW, rested, accepted=[accepted(0.5, 3, 0.5)]) is None
    # of before it nothing is known
    assert record_doubt(NOW, rested, accepted=[accepted(100, 2, 100)]) is not None
    # before there was a new backup
    assert record_doubt(NOW, rested[:2], accepted=[accepted(0.5, 2, 0.5)]) is None
    # that sources were adopted says nothing of the clock
    assert record_doubt(NOW, rested, accepted=[accepted(0.5, 3, None)]) is not None


def test_a_record_from_the_future_is_accepted_once() -> None:
    made = numbered(backup("ful1", 5), backup("ful2", -300))
    assert "still to come" in str(record_doubt(NOW, made))
    said = [accepted(0, 2, -300)]
    assert record_doubt(NOW, made, accepted=said) is None
    later = numbered(*made, backup("ful3", -301))
    assert "still to come" in str(record_doubt(NOW, later, accepted=said))


def test_a_backup_from_the_future_is_new() -> None:
    (decision,) = POLICY.decide([backup("ful1", -3)], NOW)
    assert not decision.remove
    ages = {d.backup.backup_id: d.reason for d in POLICY.decide([backup("inc1", -3), backup("ful1", 1)], NOW)}
    assert ages["inc1"].startswith("0s old") or "newest" in ages["inc1"]
