"""What was stored over time, and how that goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from blocks.records import BackupMetadata, Expiry, Link
from flows.reading.growth import growth
from tests.flows.reporting.report_records import FULL, MIB, NOW, SNAPSHOT, entry, expiries, history

DAY = timedelta(days=1)


def fulls(days: int) -> list[BackupMetadata]:
    """One of 10 MiB a day."""
    return [entry(FULL, NOW - n * DAY, None, days - n + 1, 10 * MIB) for n in range(days, -1, -1)]


def test_what_is_kept_for_ever_grows_by_what_a_day_brings() -> None:
    found = growth(fulls(60), [], 900 * MIB, NOW)
    assert found.per_day == pytest.approx(10 * MIB)
    assert (found.stored, found.after(30), found.after(90)) == (610 * MIB, 910 * MIB, 1510 * MIB)
    assert found.full_in == pytest.approx(90 * DAY, abs=timedelta(seconds=1))
    assert [len(found.history), found.history[0], found.history[-1]] == [
        61, (NOW - 60 * DAY, 10 * MIB), (NOW, 610 * MIB),
    ]  # fmt: skip
    assert not found.estimated


def test_what_retention_removed_counts_as_long_as_it_was_there() -> None:
    made, gone = expiries(history(120), {FULL: 20, SNAPSHOT: 1, **dict.fromkeys(("differential", "incremental"), 20)})
    naive, found = growth(made, [], None, NOW), growth(made, gone, None, NOW)
    assert found.estimated
    assert naive.per_day is not None
    assert found.per_day is not None
    # as much goes as comes: what is left alone would look as if all of it had come in twenty days
    assert naive.per_day > 30 * MIB
    assert abs(found.per_day) < 3 * MIB
    assert found.stored == naive.stored == sum(one.size_stored for one in made)


@pytest.mark.parametrize(("days", "known"), [(0, False), (1, False), (2, True), (3, True)])
def test_nothing_is_foretold_from_less_than_two_days(days: int, known: bool) -> None:
    found = growth(fulls(days), [], 2**34, NOW)
    assert [found.per_day is not None, found.after(30) is not None, found.full_in is not None] == [known] * 3


def test_without_backups_nothing_is_stored() -> None:
    found = growth([], [], 2**40, NOW)
    assert (found.stored, found.per_day, found.full_in) == (0, None, None)


def test_a_backup_of_a_clock_that_was_ahead_is_stored_all_the_same() -> None:
    ahead = entry(FULL, NOW + 400 * DAY, None, 99, MIB)
    assert growth([*fulls(3), ahead], [], None, NOW).stored == 41 * MIB


def test_a_record_of_what_cannot_have_been_is_left_out() -> None:
    links = tuple(Link(backup_id=name, manifest_sha256="0" * 64) for name in ("FUL_20990101_000000_0000", "odd"))
    record = Expiry(plan="trading", expired_at=NOW, removed=links, reasons={}, head=None)
    assert growth(fulls(3), [record], None, NOW) == growth(fulls(3), [], None, NOW)


def test_what_shrinks_is_never_foretold_to_be_less_than_nothing() -> None:
    made = fulls(1)
    gone = [entry(FULL, NOW - 20 * DAY, None, n, 10 * MIB) for n in range(50)]
    record = Expiry(
        plan="trading",
        expired_at=NOW - 5 * DAY,
        removed=tuple(Link(backup_id=one.backup_id, manifest_sha256="0" * 64) for one in gone),
        reasons={},
        head=None,
    )
    found = growth(made, [record], 2**40, NOW)
    assert found.per_day is not None
    assert found.per_day < 0
    assert (found.after(90), found.full_in) == (0, None)
