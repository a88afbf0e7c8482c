"""How much a plan's backups take, over time, and how that goes on. Pure: it knows only what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from statistics import fmean, linear_regression

from blocks.records import BackupMetadata, BackupType, Expiry
from blocks.repository import names
from flows.reporting.report_facts import Growth

SHOWN = timedelta(days=90)
"""How far back it is shown."""
LINE = timedelta(days=30)
"""Through so much of it the straight line is laid."""
LEAST = timedelta(days=2)
"""From less than this nothing is foretold."""

_DAY = timedelta(days=1)


def growth(backups: Sequence[BackupMetadata], expiries: Iterable[Expiry], free: int | None, now: datetime) -> Growth:
    """Tell what was stored when, and lay a line through it.

    A backup that retention removed counts from when it was made until it was removed. Its size is not on record any
    more: the mean of those of its type stands for it.

    Args:
        backups: All that there are, as they are shown.
        expiries: The records of what was removed.
        free: Room that is left, in bytes; None where that is not known.
        now: Until when, aware.
    """
    changes = [(made.timestamp, made.size_stored) for made in backups]
    removed = list(_removed(backups, expiries))
    changes += removed
    began = min((moment for moment, _ in changes), default=now)
    history = _at(changes, _days(max(began, now - SHOWN), now))
    line = [(moment, size) for moment, size in history if moment >= now - LINE]
    span = now - line[0][0] if line else timedelta(0)
    per_day = None if span < LEAST else _slope(line)
    return Growth(history, bool(removed), per_day, span / _DAY, free, now)


def whole_since(expiries: Iterable[Expiry]) -> datetime | None:
    """Return from when on no backup was removed, by when those that were had been made; None where none was."""
    made = (_made(link.backup_id) for expiry in expiries for link in expiry.removed)
    return max((moment for moment in made if moment is not None), default=None)


def _removed(backups: Sequence[BackupMetadata], expiries: Iterable[Expiry]) -> Iterator[tuple[datetime, int]]:
    """Yield when what was removed came and went, with its size, and with minus its size."""
    sizes = {kind: [made.size_stored for made in backups if made.backup_type is kind] for kind in BackupType}
    means = {kind.prefix: round(fmean(found)) for kind, found in sizes.items() if found}
    for expiry in expiries:
        for link in expiry.removed:
            size, made = means.get(link.backup_id[:3], 0), _made(link.backup_id)
            if size and made is not None and made < expiry.expired_at:
                yield made, size
                yield expiry.expired_at, -size


def _made(backup_id: str) -> datetime | None:
    try:
        return datetime.strptime(names.id_moment(backup_id), "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _days(since: datetime, until: datetime) -> list[datetime]:
    """Return moments a day apart, the last one `until`, none before `since` but the first."""
    days = [until - n * _DAY for n in range((until - since) // _DAY + 1)]
    return [since, *reversed([day for day in days if day > since])]


def _at(changes: Iterable[tuple[datetime, int]], moments: Sequence[datetime]) -> list[tuple[datetime, int]]:
    """Add up changes until each of some moments, which ascend."""
    ordered = sorted(changes)
    sums = [0, *accumulate(size for _, size in ordered)]
    found, number = [], 0
    for moment in moments:
        while number < len(ordered) and ordered[number][0] <= moment:
            number += 1
        found.append((moment, sums[number]))
    # what a clock that is ahead has made is stored all the same
    return [*found[:-1], (moments[-1], sums[-1])]


def _slope(line: Sequence[tuple[datetime, int]]) -> float:
    days = [(moment - line[0][0]) / _DAY for moment, _ in line]
    return linear_regression(days, [float(size) for _, size in line]).slope
