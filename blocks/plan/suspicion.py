"""What the backups before lead one to expect of the next one, and what is not so: pure, no I/O.

A backup is compared with the one before it (a *step*), and the step with the greatest of the last weeks: how many rows
of a collection were lost, how many came, how many were written again or replaced. Where most of its rows were stored,
what a row takes, and how well it compresses, are compared with the same of the last weeks. Something is suspicious
where it is large by itself and far beyond all that there was; so histories that grow, shrink, rest at weekends or burst
at the end of a month raise nothing, once they are known. What is known of the past is in `suspicion_history.py`.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

from blocks.plan.census import FEWEST_GAINED, Census, Tally, census_of
from blocks.plan.suspicion_history import FEWEST_EMPTIED, FEWEST_LOST, History, Week, keeps_history
from blocks.records import BackupMetadata, BackupType
from blocks.repository.summaries import Shown

FEWEST_STEPS, FEWEST_WEEKS, FEWEST_SAMPLES = 10, 3, 3
"""What has to be known before anything is compared: one whole week at least, with its weekend."""

CLOSE_SECONDS = 300
"""Where no more time lies between two backups, the hours of the day and the days of the week need not be known."""

FEWEST_CHANGED = 1000
"""Rows that have to change for that to be suspicious."""

LOST, GAINED, CHANGED = 0.4, 0.8, 0.6
"""Shares of the rows from which on a step is large by itself."""

WIDER, NARROWER, LOOSER, TIGHTER = 1.7, 0.6, 1.5, 0.5
"""Factors against the greatest or least of the last weeks."""

BEYOND, UNKNOWN = 2.0, 20.0
"""How many times the greatest step of the last weeks a large one may be without a word; and how much more, divided by
the number of steps that are known: the greatest of a few is not the greatest that there can be."""

USUALLY_EMPTIED = 0.75
"""Where a collection lost this share of its rows at once before, it is not suspicious that it is empty."""

MOST_SAID = 20
"""Sentences that a backup keeps; of a database that was exchanged as a whole each collection would say the same."""


def judged(
    backup: BackupMetadata, lineage: Sequence[BackupMetadata], history: History, lost: Sequence[str] = ()
) -> BackupMetadata:
    """Return a new backup with what is suspicious about it, and with a history where those after it need one.

    Args:
        backup: The backup; it names all of its collections. One that is made before a restore, or of what is critical
            only, is not compared.
        lineage: As of `history_of`.
        history: What that returned.
        lost: What is suspicious about collections that are emptied or gone, a sentence each.
    """
    if backup.backup_type is BackupType.EMERGENCY:
        return backup
    census = census_of(backup, lineage)
    said = [*lost, *suspicions(history, census)]
    if len(said) > MOST_SAID:
        said[MOST_SAID:] = [f"{backup.plan}: the same may be said {len(said) - MOST_SAID} times more."]
    found: dict[str, object] = {"suspicions": tuple(said)}
    if keeps_history(backup, lineage):
        found["history"] = history.after(census).kept
    return backup.model_copy(update=found)


def suspicions(history: History, census: Census) -> Iterator[str]:
    """Yield what is suspicious about a new backup, a sentence each; emptied collections are not looked at."""
    if history.newest is None:
        return
    seconds = (census.at - history.newest.at).total_seconds()
    for name, count in census.counts.items():
        last, weeks = history.newest.counts.get(name), history.weeks(name)
        if last is not None and weeks and count.rows:
            yield from _Look(name, history.newest.backup_id, last, count, seconds, weeks).sentences()


def is_emptying_suspicious(history: History, collection: str, rows: int) -> bool:
    """Whether it is suspicious that a collection holds none of the rows that it held, however little is known of it."""
    return rows >= FEWEST_EMPTIED and not _usually_emptied(history, collection)


def _usually_emptied(history: History, collection: str) -> bool:
    """Whether a collection lost about all of its rows before, as a queue does that is drained.

    While little is known, one that held nothing at some time is taken for such a one.
    """
    weeks = history.weeks(collection)
    young = sum(week.steps for week in weeks) < FEWEST_STEPS
    return any(week.lost >= USUALLY_EMPTIED * 1000 or (young and not week.fewest) for week in weeks)


def is_unsettled(backup: Shown, settled: Container[str]) -> bool:
    """Whether a backup is suspicious, and no person has accepted it.

    Args:
        backup: The backup.
        settled: Ids of those that persons accepted.
    """
    return bool(backup.suspicions) and backup.backup_id not in settled


@dataclass(frozen=True)
class _Look:
    """One collection of a new backup beside the one before.

    Attributes:
        name: Its full name.
        before_id: Id of the backup before.
        last: What that counted.
        now: What the new one counted.
        seconds: Time between both.
        weeks: What is known, oldest first; one at least.
    """

    name: str
    before_id: str
    last: Tally
    now: Tally
    seconds: float
    weeks: Sequence[Week]

    @cached_property
    def known(self) -> Week:
        """The extremes of all weeks."""
        return reduce(Week.joined, self.weeks)

    def sentences(self) -> Iterator[str]:
        close = max(self.known.seconds, self.seconds) <= CLOSE_SECONDS
        if self.known.steps >= FEWEST_STEPS and (close or len(self.weeks) >= FEWEST_WEEKS):
            yield from self._rows()
            yield from self._changes()
        if self.known.samples >= FEWEST_SAMPLES and self.last.shape == self.now.shape:
            # values that were cut off may not be enough for a sample any more
            expected = max(self.now.size_bytes, self.now.stored * self.known.narrowest)
            if self.now._replace(size_bytes=expected).is_sample:
                yield from self._values()

    def _rows(self) -> Iterator[str]:
        now, before, seen = self.now.rows, self.last.rows, f"the {self.known.steps:,} backups before"
        said = f"{self.name} holds {now:,} rows, and held {before:,} in {self.before_id}"
        lost, gained = self.now.lost_since(self.last), self.now.gained_since(self.last)
        if (
            before >= FEWEST_LOST
            and lost >= LOST
            and self._beyond(_shrinking(lost), _shrinking(self.known.lost / 1000))
        ):
            yield f"{said}; {seen} lost at most {_percent(self.known.lost)}."
        elif (
            before >= FEWEST_GAINED
            and gained >= GAINED
            and self._beyond(math.log1p(gained), math.log1p(self.known.gained / 1000))
        ):
            yield f"{said}; {seen} added at most {_percent(self.known.gained)}."

    def _changes(self) -> Iterator[str]:
        replaced = self.now.replaced_since(self.last)
        rows = max(self.last.rows, self.now.rows)
        if replaced is None or replaced < FEWEST_CHANGED or replaced < CHANGED * rows:
            return
        if self._beyond(replaced / rows, self.known.changed / 1000):
            # of a row that another one took the place of, both were counted
            share, most = _percent(min(1000, round(1000 * replaced / rows))), _percent(min(1000, self.known.changed))
            yield (
                f"{self.name}: {share} of {rows:,} rows were changed or replaced since {self.before_id}; "
                f"in the {self.known.steps:,} backups before at most {most}."
            )

    def _values(self) -> Iterator[str]:
        width, ratio = self.now.width, self.now.ratio
        seen = f"in the {self.known.samples:,} backups before that stored most of its rows"
        if not NARROWER * self.known.narrowest <= width <= WIDER * self.known.widest:
            took = _range(self.known.narrowest, self.known.widest, "bytes")
            yield f"a row of {self.name} takes {width:,} bytes, and took {took} {seen}."
        if not TIGHTER * self.known.tightest <= ratio <= LOOSER * self.known.loosest:
            was = _range(self.known.tightest // 10, self.known.loosest // 10, "%")
            yield f"{self.name} is compressed to {ratio // 10} %, and was to {was} {seen}."

    def _beyond(self, step: float, greatest: float) -> bool:
        """Whether a step is far beyond the greatest one, were as much time between those as there is now."""
        often = BEYOND + UNKNOWN / self.known.steps
        return step > often * greatest * max(1.0, self.seconds / max(1, self.known.seconds))


def _shrinking(lost: float) -> float:
    """Return a loss on the scale on which halving twice is twice as much."""
    return -math.log(max(1 - lost, 0.001))


def _percent(thousandths: int) -> str:
    return f"{thousandths / 10:.1f} %" if thousandths < 100 else f"{round(thousandths / 10)} %"


def _range(least: int, greatest: int, unit: str) -> str:
    return f"{least:,} {unit}" if least == greatest else f"{least:,} to {greatest:,} {unit}"
