"""What the operations of one plan add up to: counts that only ever grow, and the newest of what has a newest.

Sums are whole numbers (microseconds, bytes), so that they are the same in whatever order lines are read: a counter that
went back by the last digit of a fraction would pass for one that began anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import JsonValue

MICRO = 1_000_000
"""Microseconds of a second."""
_MOST_BACKUPS = 50
_MOST_RESTORES = 30
_OPPOSITE = {"success": "failure", "failure": "success"}


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
        latest: Times in seconds since 1970 by name and labels: what was noted last.
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
            self.latest[name] = max(moment, self.latest.get(name, moment))
        for made in other.newest.values():
            self._newest(made)
        self.backups = sorted([*self.backups, *other.backups], key=lambda one: one.timestamp)[-_MOST_BACKUPS:]
        self.restores = sorted([*self.restores, *other.restores])[-_MOST_RESTORES:]

    def saw(self, name: tuple[str, ...], moment: float) -> None:
        """Note when something was that is noted last: what a clock that was ahead then said of others is corrected.

        A success of next year would hide every failure until then.
        """
        self.latest[name] = moment
        if name[0] in _OPPOSITE:
            other = (_OPPOSITE[name[0]], *name[1:])
            if self.latest.get(other, 0.0) >= moment:
                self.latest[other] = moment - 1 / MICRO

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

    def restored(self, at: float, seconds: float) -> None:
        """Note when a scratch restore ended, and how long it took."""
        self.restores = sorted([*self.restores, (at, seconds)])[-_MOST_RESTORES:]

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


Counts = Counter[tuple[str, ...]]


def total(counts: Counts, *key: str) -> int:
    """Return the sum of all whose names and labels begin like this."""
    return sum(count for labels, count in counts.items() if labels[: len(key)] == key)


def buckets(counts: Counts, name: str, *labels: str) -> Mapping[float, int]:
    """Return how many values of a histogram, or of all whose labels begin like this, lie below each upper bound."""
    key, found = (f"{name}_le", *labels), Counter[float]()
    for one, count in counts.items():
        if one[: len(key)] == key:
            found[float(one[-1])] += count
    return found
