"""What the backups before lead one to expect of the next one, and what is not so: pure, no I/O.

A backup is compared with the one before it (a *step*), and the step with the greatest of the last weeks: how many rows
of a collection were lost, how many came, how many were written again or replaced. Where most of its rows were stored,
what a row takes, and how well it compresses, are compared with the same of the last weeks. Something is suspicious
where it is large by itself and far beyond all that there was; so histories that grow, shrink, rest at weekends or burst
at the end of a month raise nothing, once they are known.

What is known of the past is a few numbers a week and collection (`Week`), which manifests carry: they outlive the
backups that they were counted from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from blocks.records import BackupMetadata, BackupType, Collection

WEEKS, MOST_WEEKS, ENOUGH_STEPS = 13, 53, 60
"""Weeks with backups that are remembered: three ends of months; of plans with few backups as many as hold so many of
them, but no more than a year has."""

FEWEST_STEPS, FEWEST_WEEKS, FEWEST_SAMPLES = 10, 3, 3
"""What has to be known before anything is compared: one whole week at least, with its weekend."""

CLOSE_SECONDS = 300
"""Where no more time lies between two backups, the hours of the day and the days of the week need not be known."""

FEWEST_EMPTIED, FEWEST_LOST, FEWEST_GAINED, FEWEST_CHANGED = 10, 100, 200, 1000
"""Rows that a collection held before, or holds, for its steps to say anything: small tables jump."""

FEWEST_SAMPLED, LEAST_SAMPLED_BYTES = 100, 64 * 1024
"""Rows and Arrow bytes that have to be stored for widths and compression to say anything."""

LOST, GAINED, CHANGED = 0.4, 0.8, 0.6
"""Shares of the rows from which on a step is large by itself."""

WIDER, NARROWER, LOOSER, TIGHTER = 1.7, 0.6, 1.5, 0.5
"""Factors against the greatest or least of the last weeks."""

BEYOND, UNKNOWN = 2.0, 20.0
"""How many times the greatest step of the last weeks a large one may be without a word; and how much more, divided by
the number of steps that are known: the greatest of a few is not the greatest that there can be."""

USUALLY_EMPTIED = 0.75
"""Share of its rows that a collection lost at once before, for that it is empty to say nothing."""

GONE_WEEKS, MOST_GONE = 5, 100
"""For so many weeks so many collections are remembered that are gone: a table may come and go every month."""

_DIGITS = re.compile(r"[0-9]+")


class Tally(NamedTuple):
    """What a backup counted of one collection.

    Attributes:
        rows: Its rows.
        changed: Rows that were written or deleted since the backup before, at least; None where that is not known.
        stored: Rows that were stored.
        size_bytes: What those take in Arrow, in bytes.
        size_compressed: The same, compressed.
        shape: Its columns; where they differ, rows are not compared by what they take.
    """

    rows: int
    changed: int | None
    stored: int
    size_bytes: int
    size_compressed: int
    shape: object = None


@dataclass(frozen=True)
class Census:
    """What a backup counted.

    Attributes:
        backup_id: Id of the backup.
        at: The time that it restores.
        counts: By the full name of each collection.
    """

    backup_id: str
    at: datetime
    counts: Mapping[str, Tally]


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


def _joined(one: Week, other: Week) -> Week:
    """Return the extremes of both; the number is that of the second."""
    steps = (
        other.number,
        one.steps + other.steps,
        max(one.seconds, other.seconds),
        max(one.lost, other.lost),
        max(one.gained, other.gained),
        max(one.changed, other.changed),
        min(one.fewest, other.fewest),
    )
    if not one.samples or not other.samples:
        return Week(*steps, *(one if one.samples else other)[7:])
    return Week(
        *steps,
        one.samples + other.samples,
        min(one.narrowest, other.narrowest),
        max(one.widest, other.widest),
        min(one.tightest, other.tightest),
        max(one.loosest, other.loosest),
    )


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


class Outlook:
    """What is known of the backups so far.

    Args:
        history: By the full name of a collection its weeks, as a manifest has them.
        newest: The census of the newest backup; None where there is none.
    """

    def __init__(self, history: Mapping[str, str] | None = None, newest: Census | None = None):
        self._weeks = {name: _read(text) for name, text in (history or {}).items()}
        self.newest = newest

    @property
    def history(self) -> dict[str, str]:
        """What a manifest keeps of it: the weeks of collections that the newest backup holds, or that may come back."""
        held = self.newest.counts if self.newest is not None else {}
        kept = {*held, *self._gone()}
        return {name: _written(weeks) for name, weeks in self._weeks.items() if name in kept}

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
                weeks[-1] = _joined(weeks[-1], seen)
            else:
                # by what came after what, not by time: a clock may have jumped
                weeks[:] = [*_remembered(weeks), seen]
        self.newest = census

    def usually_emptied(self, collection: str) -> bool:
        """Whether a collection lost about all of its rows before, as a queue does that is drained.

        While little is known, one that held nothing at some time is taken for such a one.
        """
        weeks = self._weeks.get(collection, ())
        young = sum(week.steps for week in weeks) < FEWEST_STEPS
        return any(week.lost >= USUALLY_EMPTIED * 1000 or (young and not week.fewest) for week in weeks)

    def emptied(self, collection: str, rows: int) -> bool:
        """Whether it is suspicious that a collection that held some rows holds none, however little is known of it."""
        return rows >= FEWEST_EMPTIED and not self.usually_emptied(collection)

    def suspicions(self, census: Census) -> Iterator[str]:
        """Yield what is suspicious about a new backup, a sentence each; emptied collections are not looked at."""
        if self.newest is None:
            return
        seconds = (census.at - self.newest.at).total_seconds()
        for name, count in census.counts.items():
            last, weeks = self.newest.counts.get(name), self._weeks.get(name)
            if last is None or weeks is None or not count.rows:
                continue
            yield from _Look(name, self.newest.backup_id, last, count, seconds, weeks).sentences()


@dataclass(frozen=True)
class _Look:
    """One collection of a new backup beside the one before.

    Attributes:
        name: Its full name.
        before_id: Id of the backup before.
        last: What that counted.
        now: What the new one counted.
        seconds: Time between both.
        weeks: What is known, oldest first.
    """

    name: str
    before_id: str
    last: Tally
    now: Tally
    seconds: float
    weeks: Sequence[Week]
    known: Week = field(init=False)

    def __post_init__(self) -> None:
        known = self.weeks[0]
        for week in self.weeks[1:]:
            known = _joined(known, week)
        object.__setattr__(self, "known", known)

    def sentences(self) -> Iterator[str]:
        close = max(self.known.seconds, self.seconds) <= CLOSE_SECONDS
        if self.known.steps >= FEWEST_STEPS and (close or len(self.weeks) >= FEWEST_WEEKS):
            yield from self._rows()
            yield from self._changes()
        if self.known.samples >= FEWEST_SAMPLES and self.last.shape == self.now.shape:
            # values that were cut off may not be enough for a sample any more
            expected = max(self.now.size_bytes, self.now.stored * self.known.narrowest)
            if _is_sample(self.now._replace(size_bytes=expected)):
                yield from self._values()

    def _rows(self) -> Iterator[str]:
        now, before, seen = self.now.rows, self.last.rows, f"the {self.known.steps:,} backups before"
        said = f"{self.name} holds {now:,} rows, and held {before:,} in {self.before_id}"
        lost, gained = _lost(self.last, self.now), _gained(self.last, self.now)
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
        replaced = _replaced(self.last, self.now)
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
        width, ratio = _width(self.now), _ratio(self.now)
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


def _seen(number: int, last: Tally | None, now: Tally, seconds: int) -> Week:
    """Return one backup as a week of its own."""
    seen = Week(number, fewest=now.rows)
    if last is not None:
        lost = _lost(last, now) if last.rows >= FEWEST_EMPTIED else 0.0
        replaced, rows = _replaced(last, now), max(last.rows, now.rows)
        changed = replaced / rows if replaced is not None and rows >= FEWEST_LOST else 0.0
        seen = Week(number, 1, seconds, _up(lost), _up(_gained(last, now)), _up(changed), now.rows)
    if _is_sample(now):
        width, ratio = _width(now), _ratio(now)
        seen = seen._replace(samples=1, narrowest=width, widest=width, tightest=ratio, loosest=ratio)
    return seen


def _week(moment: datetime) -> int:
    return int(moment.timestamp()) // (7 * 86_400)


def _is_sample(count: Tally) -> bool:
    most = 2 * count.stored >= count.rows and count.stored >= FEWEST_SAMPLED
    return most and count.size_bytes >= LEAST_SAMPLED_BYTES


def _lost(last: Tally, now: Tally) -> float:
    return max(0.0, 1 - now.rows / last.rows) if last.rows else 0.0


def _gained(last: Tally, now: Tally) -> float:
    """Return by what share a collection grew, as if it had held some rows at least; to be filled is not to grow."""
    return max(0.0, now.rows / max(last.rows, FEWEST_GAINED) - 1) if last.rows else 0.0


def _replaced(last: Tally, now: Tally) -> int | None:
    """Return how many rows changed beside those by which it grew or shrank."""
    return None if now.changed is None else max(0, now.changed - abs(now.rows - last.rows))


def _width(count: Tally) -> int:
    return round(count.size_bytes / count.stored)


def _ratio(count: Tally) -> int:
    return round(1000 * count.size_compressed / max(1, count.size_bytes))


def _shrinking(lost: float) -> float:
    """Return a loss on the scale on which halving twice is twice as much."""
    return -math.log(max(1 - lost, 0.001))


def _up(share: float) -> int:
    return min(math.ceil(1000 * share), 1_000_000)


def _percent(thousandths: int) -> str:
    return f"{thousandths / 10:.1f} %" if thousandths < 100 else f"{round(thousandths / 10)} %"


def _range(least: int, greatest: int, unit: str) -> str:
    return f"{least:,} {unit}" if least == greatest else f"{least:,} to {greatest:,} {unit}"


# Of backups


REMEMBERED = 64
"""Backups of a chain after which one more keeps a history: the next one looks at no more than these."""

MOST_SAID = 20
"""Sentences that a backup keeps; of a database that was exchanged as a whole each collection would say the same."""


def judged(
    backup: BackupMetadata, lineage: Sequence[BackupMetadata], outlook: Outlook, lost: Sequence[str] = ()
) -> BackupMetadata:
    """Return a new backup with what is suspicious about it, and with a history where those after it need one.

    Args:
        backup: The backup; it names all of its collections. One that is made before a restore, or of what is critical
            only, is not compared.
        lineage: As of `outlook_of`.
        outlook: What that returned.
        lost: What is suspicious about collections that are emptied or gone, a sentence each.
    """
    if backup.backup_type is BackupType.EMERGENCY:
        return backup
    census = census_of(backup, lineage)
    said = [*lost, *outlook.suspicions(census)]
    if len(said) > MOST_SAID:
        said[MOST_SAID:] = [f"{backup.plan}: the same may be said {len(said) - MOST_SAID} times more."]
    found: dict[str, object] = {"suspicions": tuple(said)}
    if keeps_history(backup, lineage):
        later = Outlook(outlook.history, outlook.newest)
        later.add(census)
        found["history"] = later.history
    return backup.model_copy(update=found)


def outlook_of(lineage: Sequence[BackupMetadata]) -> Outlook:
    """Return what is known of the backups so far.

    Args:
        lineage: The newest backup that others can depend on, last, and the chain that it depends on, full first.
    """
    begin = max((n for n, one in enumerate(lineage) if one.history), default=0)
    outlook = Outlook()
    if lineage and lineage[begin].history:
        outlook = Outlook(lineage[begin].history, _census(lineage[begin], None))
        begin += 1
    for n in range(begin, len(lineage)):
        # within a chain each is made on the one before, or it is a differential, and has a history
        outlook.add(_census(lineage[n], {} if n else None))
    return outlook


def keeps_history(backup: BackupMetadata, lineage: Sequence[BackupMetadata]) -> bool:
    """Whether a backup is one that keeps a history: those after it do not see the ones before."""
    if not backup.backup_type.can_be_base:
        return False
    if backup.base is None or not lineage or backup.base != lineage[-1].backup_id:
        return True
    return not any(one.history for one in lineage[-REMEMBERED:])


def census_of(backup: BackupMetadata, lineage: Sequence[BackupMetadata]) -> Census:
    """Count a backup that is made after those of a lineage.

    Args:
        backup: The backup; it names all of its collections.
        lineage: As of `outlook_of`.
    """
    if backup.base is None or not lineage:
        return _census(backup, None)
    if backup.base == lineage[-1].backup_id:
        return _census(backup, {})
    if backup.base != lineage[0].backup_id:
        return _census(backup, None)
    # a differential: what changed since its full, without what had changed by the backup before
    known: dict[str, int] = {}
    for one in lineage[1:]:
        for c in one.collections:
            known[c.name] = known.get(c.name, 0) + c.upserts + c.tombstones
    return _census(backup, known)


def _census(backup: BackupMetadata, known: Mapping[str, int] | None) -> Census:
    counts = {c.name: _count(c, None if known is None else known.get(c.name, 0)) for c in backup.collections}
    return Census(backup.backup_id, backup.timestamp, counts)


def _count(collection: Collection, known: int | None) -> Tally:
    rows = stored = removed = size_bytes = size_compressed = 0
    for part in collection.parts:
        rows += part.rows
        if (segment := part.segment) is not None:
            stored, removed = stored + segment.upserts, removed + segment.tombstones
            size_bytes, size_compressed = size_bytes + segment.size_bytes, size_compressed + segment.size_compressed
    changed = None if known is None else max(0, stored + removed - known)
    return Tally(rows, changed, stored, size_bytes, size_compressed, (collection.key, collection.columns))


def family(collection: str) -> str:
    """Return what the names of partitions have in common: `log_2026_01` and `log_2026_02` are of one family."""
    return _DIGITS.sub("#", collection)


def is_unsettled(backup: BackupMetadata, settled: Container[str]) -> bool:
    """Whether a backup is suspicious, and no person has accepted it.

    Args:
        backup: The backup.
        settled: Ids of those that persons accepted.
    """
    return bool(backup.suspicions) and backup.backup_id not in settled
