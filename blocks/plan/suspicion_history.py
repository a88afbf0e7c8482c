"""What is known of the backups of a plan so far, as suspicion needs it: pure, no I/O.

That is a few numbers a week and collection (`Week`): extremes, not backups. Manifests carry them, so they outlive the
backups that they were counted from. What they say about a new backup is in `suspicion.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from blocks.plan.census import Census, Tally, counted
from blocks.records import BackupMetadata

WEEKS, MOST_WEEKS, ENOUGH_STEPS = 13, 53, 60
"""Weeks with backups that are remembered: three ends of months; of plans with few backups as many as hold so many of
them, but no more than a year has."""

GONE_WEEKS, MOST_GONE = 5, 100
"""For so many weeks so many collections are remembered that are gone: a table may come and go every month."""

REMEMBERED = 64
"""Backups of a chain after which one more keeps a history: the next one looks at no more than these."""

FEWEST_EMPTIED, FEWEST_LOST = 10, 100
"""Rows that a collection held before, or holds, for a loss, or for changes, to say anything: small tables jump."""

_DIGITS = re.compile(r"[0-9]+")


class Week(NamedTuple):
    """The extremes of one collection in one week.

    Attributes:
        number: Whole weeks from the beginning of 1970 to the backups.
        steps: Backups that were compared with the one before.
        seconds: The longest time between two of them.
        lost, gained, changed: The greatest share of its rows that a step lost, gained, changed, in thousandths.
        fewest: The least rows that it held.
        samples: Backups that stored at least half of its rows.
        narrowest, widest: What a row took in them, in bytes.
        tightest, loosest: What compression left of it, in thousandths.
    """

    number: int
    steps: int = 0
    seconds: int = 0
    lost: int = 0
    gained: int = 0
    changed: int = 0
    fewest: int = 0
    samples: int = 0
    narrowest: int = 0
    widest: int = 0
    tightest: int = 0
    loosest: int = 0

    def without_samples(self) -> Week:
        """Forget what rows took: they have other columns now."""
        return self._replace(samples=0, narrowest=0, widest=0, tightest=0, loosest=0)

    def joined(self, later: Week) -> Week:
        """Return the extremes of both, with the number of the later one."""
        both = later._replace(
            steps=self.steps + later.steps,
            seconds=max(self.seconds, later.seconds),
            lost=max(self.lost, later.lost),
            gained=max(self.gained, later.gained),
            changed=max(self.changed, later.changed),
            fewest=min(self.fewest, later.fewest),
        )
        if not self.samples:
            return both
        if not later.samples:
            return Week(*both[:7], *self[7:])
        return both._replace(
            samples=self.samples + later.samples,
            narrowest=min(self.narrowest, later.narrowest),
            widest=max(self.widest, later.widest),
            tightest=min(self.tightest, later.tightest),
            loosest=max(self.loosest, later.loosest),
        )


class History:
    """What is known of the backups so far.

    Args:
        kept: By the full name of a collection its weeks, as a manifest has them.
        newest: The census of the newest backup; None where there is none.
    """

    def __init__(self, kept: Mapping[str, str] | None = None, newest: Census | None = None):
        self._weeks = {name: _read(text) for name, text in (kept or {}).items()}
        self.newest = newest

    def weeks(self, collection: str) -> Sequence[Week]:
        """Return what is known of a collection, oldest first; nothing of one that was never seen."""
        return self._weeks.get(collection, ())

    @property
    def kept(self) -> dict[str, str]:
        """What a manifest keeps of it: the weeks of collections that the newest backup holds, or that may come back."""
        held = self.newest.counts if self.newest is not None else {}
        names = {*held, *self._gone()}
        return {name: _written(weeks) for name, weeks in self._weeks.items() if name in names}

    def _gone(self) -> list[str]:
        """Return the collections that went not long ago, without partitions, in whose place there are others."""
        if self.newest is None:
            return []
        held, since = self.newest.counts, _week(self.newest.at) - GONE_WEEKS
        families = set(map(family, held))
        gone = [name for name in self._weeks if name not in held and family(name) not in families]
        recent = [name for name in gone if self._weeks[name][-1].number >= since]
        return sorted(recent, key=lambda name: self._weeks[name][-1].number)[-MOST_GONE:]

    def add(self, census: Census) -> None:
        """Learn from one more backup, made after all others."""
        before = self.newest.counts if self.newest is not None else {}
        seconds = max(0, int((census.at - self.newest.at).total_seconds())) if self.newest is not None else 0
        gone = {name: last._replace(rows=0, changed=None, stored=0) for name, last in before.items()}
        for name, count in (gone | {**census.counts}).items():
            weeks, last = self._weeks.setdefault(name, []), before.get(name)
            if last is None or last.shape != count.shape:
                weeks[:] = [week.without_samples() for week in weeks]
            seen = _seen(_week(census.at), last, count, seconds)
            if weeks and weeks[-1].number == seen.number:
                weeks[-1] = weeks[-1].joined(seen)
            else:
                # by what came after what, not by time: a clock may have jumped
                weeks[:] = [*_remembered(weeks), seen]
        self.newest = census

    def after(self, census: Census) -> History:
        """Return what is known after one more backup; this stays as it is."""
        later = History(self.kept, self.newest)
        later.add(census)
        return later


def _seen(number: int, last: Tally | None, now: Tally, seconds: int) -> Week:
    """Return one backup as a week of its own."""
    seen = Week(number, fewest=now.rows)
    if last is not None:
        lost = now.lost_since(last) if last.rows >= FEWEST_EMPTIED else 0.0
        replaced, rows = now.replaced_since(last), max(last.rows, now.rows)
        changed = replaced / rows if replaced is not None and rows >= FEWEST_LOST else 0.0
        gained = now.gained_since(last)
        seen = seen._replace(steps=1, seconds=seconds, lost=_up(lost), gained=_up(gained), changed=_up(changed))
    if now.is_sample:
        width, ratio = now.width, now.ratio
        seen = seen._replace(samples=1, narrowest=width, widest=width, tightest=ratio, loosest=ratio)
    return seen


def _week(moment: datetime) -> int:
    return int(moment.timestamp()) // (7 * 86_400)


def _up(share: float) -> int:
    """Return a share in thousandths, rounded up."""
    return min(math.ceil(1000 * share), 1_000_000)


def _remembered(weeks: list[Week]) -> list[Week]:
    """Return the weeks to go on from where a new one begins."""
    if len(weeks) < WEEKS or sum(week.steps for week in weeks[1 - WEEKS :]) >= ENOUGH_STEPS:
        return weeks[1 - WEEKS :]
    steps = 0
    for n in range(len(weeks) - 1, max(0, len(weeks) - MOST_WEEKS + 1) - 1, -1):
        steps += weeks[n].steps
        if steps >= ENOUGH_STEPS and len(weeks) - n >= WEEKS - 1:
            return weeks[n:]
    return weeks[1 - MOST_WEEKS :]


def _written(weeks: Sequence[Week]) -> str:
    """Write weeks: their numbers with commas, and a space between two of them."""
    return " ".join(",".join(map(str, week)) for week in weeks)


def _read(text: str) -> list[Week]:
    """Read what `_written` wrote; a later lastgood may count more."""
    return [Week(*map(int, week.split(",")[: len(Week._fields)])) for week in text.split()]


def history_of(lineage: Sequence[BackupMetadata]) -> History:
    """Return what is known of the backups so far.

    Args:
        lineage: The newest backup that others can depend on, last, and the chain that it depends on, full first.
    """
    begin = max((n for n, one in enumerate(lineage) if one.history), default=0)
    history = History()
    if lineage and lineage[begin].history:
        history = History(lineage[begin].history, counted(lineage[begin], None))
        begin += 1
    for n in range(begin, len(lineage)):
        # within a chain each is made on the one before, or it is a differential, and has a history
        history.add(counted(lineage[n], {} if n else None))
    return history


def keeps_history(backup: BackupMetadata, lineage: Sequence[BackupMetadata]) -> bool:
    """Whether a backup is one that keeps a history: those after it do not see the ones before.

    Args:
        backup: The backup.
        lineage: As of `history_of`.
    """
    if not backup.backup_type.can_be_base:
        return False
    if backup.base is None or not lineage or backup.base != lineage[-1].backup_id:
        return True
    return not any(one.history for one in lineage[-REMEMBERED:])


def family(collection: str) -> str:
    """Return what the names of partitions have in common: `log_2026_01` and `log_2026_02` are of one family."""
    return _DIGITS.sub("#", collection)
