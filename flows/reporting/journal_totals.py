"""What the lines of the journal add up to: counts that only ever grow, and the newest of what has a newest.

Sums are whole numbers (microseconds, bytes), so that they are the same in whatever order lines are read: a counter that
went back by the last digit of a fraction would pass for one that began anew.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from blocks.host.folders import sync_folder
from blocks.host.leftovers import has_ended, running_host
from blocks.telemetry.published import BYTES, COUNTS, SECONDS
from flows.reporting.journal_files import TOTALS, lock, opened, segment, segments, through, totals_text

logger = logging.getLogger(__name__)

KEPT_SEGMENTS = 2
"""So many segments stay besides the one that is written, for people; older ones are totals."""
GONE_AFTER = timedelta(days=1)
"""An operation of which no end is known for so long has failed, where it is not known whether its process runs."""

_VERSION = 1
_MOST_PENDING = 1000
_MOST_SETTLED = 1000
_MOST_BACKUPS = 50
_MOST_RESTORES = 30
_LOCK_SECONDS = 0.1
_TRIES = 10
_MICRO = 1_000_000
_MOST_COUNT = 2**62
_MOST_PLACE = 4096
_ENDED_WELL = frozenset({"completed", "failed", "partial", "bad"})
_VERBS = frozenset({"backup", "restore", "verification", "retention"})


class Made(NamedTuple):
    """A backup that was made, as its line says. Sizes are in bytes, the time is that which it restores to."""

    backup_id: str
    type: str
    timestamp: float
    sequence: int
    rows: int
    size_bytes: int
    size_stored: int
    regular: bool
    """Whether it is not an emergency backup, which may hold part of the state, of a moment to get away from."""
    bad: bool = False
    """Whether a verification found something wrong with it since."""
    verified: bool = False


@dataclass
class PlanTotals:
    """What the operations of one plan add up to, in one repository.

    Attributes:
        counts: Whole numbers by name and labels, such as `("ended", "backup", "full", "completed")`.
        latest: Times in seconds since 1970 by name and labels: the greatest counts.
        newest: The newest backup by its type.
        backups: The newest backups, the oldest first.
        restores: Seconds of the newest scratch restores, each with its time, the oldest first.
    """

    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    latest: dict[tuple[str, ...], float] = field(default_factory=dict)
    newest: dict[str, Made] = field(default_factory=dict)
    backups: list[Made] = field(default_factory=list)
    restores: list[tuple[float, float]] = field(default_factory=list)

    def add(self, other: PlanTotals) -> None:
        """Add what others did for the same plan."""
        self.counts.update(other.counts)
        for name, moment in other.latest.items():
            self.saw(name, moment)
        for made in other.newest.values():
            self._newest(made)
        self.backups = sorted([*self.backups, *other.backups], key=lambda one: one.timestamp)[-_MOST_BACKUPS:]
        self.restores = sorted([*self.restores, *other.restores])[-_MOST_RESTORES:]

    def saw(self, name: tuple[str, ...], moment: float) -> None:
        """Note when something was."""
        self.latest[name] = max(moment, self.latest.get(name, moment))

    def made(self, made: Made) -> None:
        """Note a backup."""
        self._newest(made)
        self.backups = sorted([*self.backups, made], key=lambda one: one.timestamp)[-_MOST_BACKUPS:]

    def _newest(self, made: Made) -> None:
        known = self.newest.get(made.type)
        if known is None or (made.sequence, made.timestamp) >= (known.sequence, known.timestamp):
            self.newest[made.type] = made

    def judged(self, backup_id: str, *, bad: bool, verified: bool) -> None:
        """Note what a verification found."""
        for number, made in enumerate(self.backups):
            if made.backup_id == backup_id:
                self.backups[number] = made._replace(bad=bad, verified=verified)

    def observe(self, name: str, labels: tuple[str, ...], value: int, bound: float | None) -> None:
        """Count a value of a histogram, in the bucket of its upper bound."""
        self.counts[(name, *labels)] += value
        self.counts[(f"{name}_le", *labels, "+Inf" if bound is None else str(bound))] += 1

    def as_json(self) -> dict[str, JsonValue]:
        """Return it as it is kept."""
        return {
            "counts": [[*name, count] for name, count in sorted(self.counts.items())],
            "latest": [[*name, moment] for name, moment in sorted(self.latest.items())],
            "newest": [list(made) for _, made in sorted(self.newest.items())],
            "backups": [list(made) for made in self.backups],
            "restores": [list(one) for one in self.restores],
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> PlanTotals:
        """Return what `as_json` kept."""
        newest = [Made(*made) for made in kept["newest"]]
        return cls(
            counts=Counter({tuple(name): int(count) for *name, count in kept["counts"]}),
            latest={tuple(name): float(moment) for *name, moment in kept["latest"]},
            newest={made.type: made for made in newest},
            backups=[Made(*made) for made in kept["backups"]],
            restores=[(float(moment), float(seconds)) for moment, seconds in kept["restores"]],
        )


class Pending(NamedTuple):
    """An operation that began, and of which no end is known."""

    repository: str
    plan: str
    verb: str
    type: str
    started: float
    process: str
    host: tuple[str, str] | None

    def gone(self, now: datetime) -> bool:
        """Whether its process has ended, as far as that can be known here."""
        here = running_host()
        if self.host is not None and here is not None and self.host[0] == here[0] and self.host[1] != here[1]:
            return True  # the machine was started again since
        return has_ended(self.process) or now.timestamp() - self.started > GONE_AFTER.total_seconds()


@dataclass
class Totals:
    """What all lines so far add up to.

    Attributes:
        through: Number of the last segment that is part of it, where it is kept; those after it are not.
        plans: By what the lines call the repository (its id, or a digest of its place) and name of the plan.
        places: By digest of a place the ids of the repositories that were there, the newest last.
        pending: Operations without an end, by their ids, the oldest first.
    """

    through: int = 0
    plans: dict[tuple[str, str], PlanTotals] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    settled: dict[str, None] = field(default_factory=dict)
    """Ids of operations that were counted as begun without their start, or that have failed without an end."""

    def feed(self, line: bytes) -> None:
        """Add a line; one that is torn, or of others, is left out."""
        if not line.strip():
            return
        try:
            said = json.loads(line)
            match said["event"]:
                case "started":
                    self._started(said)
                case "ended":
                    self._ended(said)
                case "lost":
                    self.lost(str(said["id"]), _seconds(said["at"]))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as exc:
            logger.debug("a line of the journal is left out: %r", exc)

    def of(self, place: str, repository_id: str | None, plan: str) -> PlanTotals:
        """Return what a plan's operations add up to, however their lines call its repository.

        Args:
            place: Digest of the place, as the plan spells it.
            repository_id: Id of the repository; None where it is not known.
            plan: Name of the plan.
        """
        known = repository_id or next(reversed(self.places.get(place, ())), None)
        called = {place} if known is None else {place, known, *self._places_of(known)}
        found = PlanTotals()
        for name in sorted(called):
            if (one := self.plans.get((name, plan))) is not None:
                found.add(one)
        return found

    def _places_of(self, repository_id: str) -> list[str]:
        return [place for place, ids in self.places.items() if repository_id in ids]

    def _started(self, said: Mapping[str, Any]) -> None:
        host = said.get("host")
        begun = Pending(
            self._repository(said),
            str(said["plan"]),
            _one_of(said["verb"], _VERBS),
            _label(said["type"]),
            _seconds(said["at"]),
            str(said["process"]),
            (str(host[0]), str(host[1])) if host else None,
        )
        operation = str(said["id"])
        if operation in self.pending or operation in self.settled:
            return
        self._of(begun).counts["started", begun.verb, begun.type] += 1
        self.pending[operation] = begun
        if len(self.pending) > _MOST_PENDING:
            self.lost(next(iter(self.pending)), begun.started)

    def _ended(self, said: Mapping[str, Any]) -> None:
        operation, verb, kind = str(said["id"]), _one_of(said["verb"], _VERBS), _label(said["type"])
        how, at = _one_of(said["outcome"], _ENDED_WELL), _seconds(said["at"])
        found = _result(said)
        counted = list(_counted(verb, said.get("numbers") or {}))
        seconds = _micro(said["seconds"])
        begun = self.pending.pop(operation, None)
        repository = begun.repository if begun is not None else self._repository(said)
        self._learn(said)
        plan = self.plans.setdefault((repository, str(said["plan"])), PlanTotals())
        if begun is None:
            if operation not in self.settled:
                plan.counts["started", verb, kind] += 1
            self._settle(operation)
        plan.counts["ended", verb, kind, how] += 1
        plan.observe("took", (verb, kind), seconds, _bucket(SECONDS, seconds / _MICRO))
        plan.saw(("success" if how == "completed" else "failure", verb, kind), at)
        for name, number in counted:
            plan.counts[name] += number
        found(plan, at, how == "bad")

    def lost(self, operation: str, at: float) -> None:
        """Count an operation without an end as failed."""
        begun = self.pending.pop(operation, None)
        if begun is None:
            return
        plan = self._of(begun)
        plan.counts["ended", begun.verb, begun.type, "failed"] += 1
        plan.saw(("failure", begun.verb, begun.type), at)
        self._settle(operation)

    def _settle(self, operation: str) -> None:
        self.settled[operation] = None
        if len(self.settled) > _MOST_SETTLED:
            del self.settled[next(iter(self.settled))]

    def _of(self, begun: Pending) -> PlanTotals:
        return self.plans.setdefault((begun.repository, begun.plan), PlanTotals())

    def _repository(self, said: Mapping[str, Any]) -> str:
        self._learn(said)
        return str(said.get("repository") or said["place"])

    def _learn(self, said: Mapping[str, Any]) -> None:
        if repository := said.get("repository"):
            known = self.places.setdefault(str(said["place"]), [])
            if repository not in known[-1:]:
                self.places[str(said["place"])] = [*(one for one in known if one != repository), str(repository)]

    def as_json(self) -> dict[str, JsonValue]:
        """Return it as it is kept."""
        return {
            "version": _VERSION,
            "through": self.through,
            "plans": [[*name, plan.as_json()] for name, plan in sorted(self.plans.items())],
            "places": {place: list(ids) for place, ids in sorted(self.places.items())},
            "pending": [[operation, *_listed(begun)] for operation, begun in self.pending.items()],
            "settled": list(self.settled),
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Totals:
        """Return what `as_json` kept.

        Raises:
            ValueError: It is something else.
        """
        try:
            if kept["version"] != _VERSION:
                raise ValueError(f"version {kept['version']}")
            pending = {
                operation: Pending(
                    repository, plan, verb, kind, float(at), str(process), (host[0], host[1]) if host else None
                )
                for operation, repository, plan, verb, kind, at, process, host in kept["pending"]
            }
            return cls(
                through(kept),
                {(repository, plan): PlanTotals.from_json(told) for repository, plan, told in kept["plans"]},
                {place: list(map(str, ids)) for place, ids in kept["places"].items()},
                pending,
                dict.fromkeys(map(str, kept["settled"])),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"no totals of a journal: {exc!r}") from exc


def _listed(begun: Pending) -> list[JsonValue]:
    return [*begun[:-1], list(begun.host) if begun.host else None]


def _seconds(moment: Any) -> float:
    return datetime.fromisoformat(moment).astimezone(UTC).timestamp()


def _micro(seconds: Any) -> int:
    return _count(round(float(seconds) * _MICRO))


def _count(number: Any) -> int:
    if not isinstance(number, int) or not 0 <= number < _MOST_COUNT:
        raise ValueError(f"{number!r} is no count")
    return number


def _one_of(word: Any, words: frozenset[str]) -> str:
    if word not in words:
        raise ValueError(f"{word!r} is unknown")
    return str(word)


def _label(word: Any, most: int = 40) -> str:
    if not isinstance(word, str) or len(word) > most:
        raise ValueError(f"{word!r} is no label")
    return word


def _bucket(bounds: tuple[float, ...], value: float) -> float | None:
    number = bisect_left(bounds, value)
    return bounds[number] if number < len(bounds) else None


def _result(said: Mapping[str, Any]) -> Callable[[PlanTotals, float, bool], None]:
    """Read what came of an operation, all of it before anything of the line is counted."""
    if one := said.get("made"):
        made = Made(
            str(said["backup"]),
            _label(one["type"]),
            _seconds(one["timestamp"]),
            _count(one["sequence"]),
            _count(one["rows"]),
            _count(one["size_bytes"]),
            _count(one["size_stored"]),
            bool(one["regular"]),
        )
        return lambda plan, _at, _bad: _backup(plan, made)
    if one := said.get("verified"):
        status, seconds = _label(one["status"]), one.get("rto_seconds")
        took = None if seconds is None else _micro(seconds) / _MICRO
        backup_id = str(said["backup"])
        return lambda plan, at, bad: _verification(plan, at, (backup_id, status, bad), took)
    if one := said.get("removed"):
        removed = _count(one["backups"])
        return lambda plan, _at, _bad: _retention(plan, removed)
    return lambda _plan, _at, _bad: None


def _backup(plan: PlanTotals, made: Made) -> None:
    plan.made(made)
    plan.observe("size", (), made.size_stored, _bucket(BYTES, made.size_stored))


def _verification(plan: PlanTotals, at: float, found: tuple[str, str, bool], took: float | None) -> None:
    backup_id, status, bad = found
    plan.counts["verified", status] += 1
    plan.saw(("verification",), at)
    plan.judged(backup_id, bad=bad, verified=status == "verified")
    if took is not None:
        plan.restores = sorted([*plan.restores, (at, took)])[-_MOST_RESTORES:]


def _retention(plan: PlanTotals, removed: int) -> None:
    if removed:
        plan.observe("removed", (), removed, _bucket(COUNTS, removed))


def _counted(verb: str, numbers: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], int]]:
    """Read what an operation did, as `OperationNumbers.as_json` has it."""
    for stage, seconds in numbers.get("stages", {}).items():
        yield ("stage", verb, _label(stage)), _micro(seconds)
    for tier, call, how, calls, seconds in numbers.get("calls", ()):
        called = _label(tier, _MOST_PLACE), _label(call)
        yield ("calls", *called, _label(how)), _count(calls)
        yield ("call_seconds", *called), _micro(seconds)
    for tier, direction, size in numbers.get("moved", ()):
        yield ("moved", _label(tier, _MOST_PLACE), _label(direction)), _count(size)
    for source, how, reads, seconds, rows, size in numbers.get("reads", ()):
        read = _label(source, _MOST_PLACE)
        yield ("reads", read, _label(how)), _count(reads)
        yield ("read_seconds", read), _micro(seconds)
        yield ("read_rows", read), _count(rows)
        yield ("read_bytes", read), _count(size)
    yield ("lease_wait",), _micro(numbers.get("lease_wait_seconds", 0))
    yield ("leases_refused",), _count(numbers.get("leases_refused", 0))


# Files


def read_totals(folder: Path) -> Totals:
    """Return the totals of older segments; empty ones where there are none.

    Raises:
        ValueError: A newer lastgood wrote them, or they are damaged.
    """
    kept = totals_text(folder)
    return Totals.from_json(kept) if kept else Totals()


def compact(folder: Path) -> None:
    """Put totals in the place of all but the newest segments, where there are more.

    What stands for them is there before they go. A reader reads segments that are not part of the totals, so that one
    which a killed compaction left is not counted twice. Where it fails, the journal is larger than it need be.
    """
    try:
        if len(segments(folder)) > KEPT_SEGMENTS + 1:
            with opened(folder / "lock") as (fd, _):
                if lock(fd, 0):  # else another one is at it, or nothing can be locked
                    _compact(folder)
    except (OSError, ValueError) as exc:
        logger.warning("the journal in %s is not compacted: %s", folder, exc)


def _compact(folder: Path) -> None:
    totals = read_totals(folder)
    there = segments(folder)
    for number in there[: -KEPT_SEGMENTS - 1]:
        if number > totals.through:
            if not _feed_whole(totals, folder, number):
                break
            totals.through = number
    for left in folder.glob(f".{TOTALS}.*"):  # by a compaction that was killed
        left.unlink(missing_ok=True)
    _keep(folder, totals)
    for number in there:
        if number <= totals.through:
            segment(folder, number).unlink(missing_ok=True)


def _feed_whole(totals: Totals, folder: Path, number: int) -> bool:
    """Add a segment that is no longer the last one, unless somebody who began to write into it has not gone on."""
    with segment(folder, number).open("rb") as file:
        if not lock(file.fileno(), _LOCK_SECONDS):
            return False
        for line in file:
            totals.feed(line)
    return True


def _keep(folder: Path, totals: Totals) -> None:
    made = folder / f".{TOTALS}.{secrets.token_hex(4)}"
    try:
        with open(made, "xb") as file:
            file.write(json.dumps(totals.as_json(), separators=(",", ":")).encode("ascii"))
            os.fchmod(file.fileno(), os.stat(folder).st_mode & 0o666)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, folder / TOTALS)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    sync_folder(folder)
