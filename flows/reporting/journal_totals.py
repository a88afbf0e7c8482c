"""Reads lines of the journal, and adds them up by plan and repository.

Only some lines of a repository in a network name its id. Others are of the repository that was last named at their
place: at one place there is one repository at a time.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from blocks.host.leftovers import running_host, runs
from blocks.telemetry.published import BYTES, COUNTS, SECONDS
from flows.reporting.journal import BAD, COMPLETED, FAILED, OUTCOMES
from flows.reporting.journal_files import through, totals_text
from flows.reporting.lifecycle import Verb
from flows.reporting.plan_totals import MICRO, Made, PlanTotals

logger = logging.getLogger(__name__)

GONE_AFTER = timedelta(hours=6)
"""An operation that was not heard of for so long has failed, where it is not known whether its process runs. It says
each hour that it does (`flows/reporting/journal.py`)."""

_VERSION = 1
_MOST_PENDING = 1000
_MOST_SETTLED = 1000
_MOST_COUNT = 2**62
_MOST_PLACE = 4096
_VERBS = frozenset(Verb)


class Pending(NamedTuple):
    """An operation that began, and of which no end is known."""

    repository: str
    plan: str
    verb: str
    type: str
    heard: float
    """When it last said that it runs, by its own clock, in seconds since 1970."""
    process: str
    host: tuple[str, str] | None

    def gone(self, now: datetime) -> bool:
        """Whether its process has ended, as far as that can be known here."""
        here = running_host()
        if self.host is not None and here is not None and self.host[0] == here[0] and self.host[1] != here[1]:
            return True  # the machine was started again since
        if (running := runs(self.process)) is not None:
            return not running  # however long it takes, and whatever became of the clock
        return now.timestamp() - self.heard > GONE_AFTER.total_seconds()


@dataclass
class Totals:
    """What all lines so far add up to.

    Attributes:
        through: Number of the last segment that is part of it, where it is kept; those after it are not.
        plans: By id of the repository (a digest of its place, until a line of that place names an id) and name of the
            plan.
        places: By digest of a place the id of the repository that was last named there.
        pending: Operations without an end, by their ids, the oldest first.
    """

    through: int = 0
    plans: dict[tuple[str, str], PlanTotals] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
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
                case "runs":
                    self._runs(str(said["id"]), _seconds(said["at"]))
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
        found = PlanTotals()
        for name in dict.fromkeys((place, repository_id or self.places.get(place, place))):
            if (one := self.plans.get((name, plan))) is not None:
                found.add(one)
        return found

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
            self.lost(next(iter(self.pending)), begun.heard)

    def _runs(self, operation: str, at: float) -> None:
        if (begun := self.pending.get(operation)) is not None:
            self.pending[operation] = begun._replace(heard=at)

    def _ended(self, said: Mapping[str, Any]) -> None:
        operation, verb, kind = str(said["id"]), _one_of(said["verb"], _VERBS), _label(said["type"])
        how, at = _one_of(said["outcome"], OUTCOMES), _seconds(said["at"])
        found = _result(said)
        counted = list(_counted(verb, said.get("numbers") or {}))
        seconds = _micro(said["seconds"])
        repository = self._repository(said)
        begun = self.pending.pop(operation, None)
        if begun is not None:
            if not said.get("repository"):
                repository = begun.repository
            elif begun.repository != repository:  # it began where another repository had been before
                self._of(begun).counts["started", begun.verb, begun.type] -= 1
                self._of(begun._replace(repository=repository)).counts["started", begun.verb, begun.type] += 1
        plan = self.plans.setdefault((repository, str(said["plan"])), PlanTotals())
        if begun is None:
            if operation not in self.settled:
                plan.counts["started", verb, kind] += 1
            self._settle(operation)
        plan.counts["ended", verb, kind, how] += 1
        plan.observe("took", (verb, kind), seconds, _bucket(SECONDS, seconds / MICRO))
        plan.saw(("success" if how == COMPLETED else "failure", verb, kind), at)
        for name, number in counted:
            plan.counts[name] += number
        found(plan, at, how == BAD)

    def lost(self, operation: str, at: float) -> None:
        """Count an operation without an end as failed."""
        begun = self.pending.pop(operation, None)
        if begun is None:
            return
        plan = self._of(begun)
        plan.counts["ended", begun.verb, begun.type, FAILED] += 1
        plan.saw(("failure", begun.verb, begun.type), at)
        self._settle(operation)

    def _settle(self, operation: str) -> None:
        self.settled[operation] = None
        if len(self.settled) > _MOST_SETTLED:
            del self.settled[next(iter(self.settled))]

    def _of(self, begun: Pending) -> PlanTotals:
        return self.plans.setdefault((begun.repository, begun.plan), PlanTotals())

    def _repository(self, said: Mapping[str, Any]) -> str:
        place = str(said["place"])
        if not said.get("repository"):
            return self.places.get(place, place)
        repository = str(said["repository"])
        if place not in self.places and place != repository:
            self._rename(place, repository)
        self.places[place] = repository
        return repository

    def _rename(self, place: str, repository: str) -> None:
        """Give a repository what was noted of its place before its id was known."""
        for called, plan in [name for name in self.plans if name[0] == place]:
            self.plans.setdefault((repository, plan), PlanTotals()).add(self.plans.pop((called, plan)))
        for operation, begun in self.pending.items():
            if begun.repository == place:
                self.pending[operation] = begun._replace(repository=repository)

    def as_json(self) -> dict[str, JsonValue]:
        """Return it as it is kept."""
        return {
            "version": _VERSION,
            "through": self.through,
            "plans": [[*name, plan.as_json()] for name, plan in sorted(self.plans.items())],
            "places": dict(sorted(self.places.items())),
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
                {str(place): str(repository) for place, repository in kept["places"].items()},
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
    return _count(round(float(seconds) * MICRO))


def _count(number: Any) -> int:
    if not isinstance(number, int) or not 0 <= number < _MOST_COUNT:
        raise ValueError(f"{number!r} is no count")
    return number


def _one_of(word: Any, words: Collection[str]) -> str:
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
        took = None if seconds is None else _micro(seconds) / MICRO
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
        plan.restored(at, took)


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


def read_totals(folder: Path) -> Totals:
    """Return the totals of older segments; empty ones where there are none.

    Raises:
        ValueError: A newer lastgood wrote them, or they are damaged.
    """
    kept = totals_text(folder)
    return Totals.from_json(kept) if kept else Totals()
