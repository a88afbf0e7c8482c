"""What one operation did, in numbers: how long its stages took, what it asked of tiers and sources, how it waited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pydantic import JsonValue

from blocks.errors import (
    AlreadyExists,
    ObjectMissing,
    ObjectUnreadable,
    PlaceMissing,
    RepositoryFull,
    StorageRefused,
    StorageUnreachable,
)


class Outcome(StrEnum):
    """How a call of a tier, or a read of a source, ended.

    The first three are those of a tier that works: that there is no such object is an answer, too.
    """

    OK = "ok"
    MISSING = "missing"
    EXISTS = "exists"
    UNREADABLE = "unreadable"
    REFUSED = "refused"
    FULL = "full"
    UNREACHABLE = "unreachable"
    FAILED = "failed"


class Call(StrEnum):
    """What a tier is asked for."""

    PUT = "put"
    GET = "get"
    SIZE = "size"
    LIST = "list"
    REMOVE = "remove"
    PREPARE = "prepare"


class Direction(StrEnum):
    """Which way content goes: to a tier, or from it."""

    WRITTEN = "written"
    READ = "read"


_OUTCOMES: tuple[tuple[type[Exception], Outcome], ...] = (
    (ObjectMissing, Outcome.MISSING),
    (AlreadyExists, Outcome.EXISTS),
    (ObjectUnreadable, Outcome.UNREADABLE),
    (StorageRefused, Outcome.REFUSED),
    (RepositoryFull, Outcome.FULL),
    (StorageUnreachable, Outcome.UNREACHABLE),
    (PlaceMissing, Outcome.UNREACHABLE),
)


def outcome_of(error: BaseException) -> Outcome:
    """Return how something ended that raised an error."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), Outcome.FAILED)


class TierCalls(NamedTuple):
    """Calls of one kind of one tier.

    Attributes:
        tier: Its place, without secrets.
        call: What it was asked for, one of `Call`.
        outcome: How they ended, one of `Outcome`.
        calls: How many there were. A call that was tried again counts once.
        seconds: How long they took together, with all attempts.
    """

    tier: str
    call: str
    outcome: str
    calls: int
    seconds: float


class TierBytes(NamedTuple):
    """Content of objects that went to a tier or came from it.

    Attributes:
        tier: Its place, without secrets.
        direction: One of `Direction`.
        size_bytes: How much.
    """

    tier: str
    direction: str
    size_bytes: int


class SourceReads(NamedTuple):
    """Reads of parts of one source.

    Attributes:
        source: Its name in the plan.
        outcome: `ok` or `failed`.
        reads: How many there were; one that was tried again counts again.
        seconds: How long they took together. Parts are read at the same time, so this may be more than passed.
        rows: How many rows were read.
        size_bytes: Their size in memory, before compression.
    """

    source: str
    outcome: str
    reads: int
    seconds: float
    rows: int
    size_bytes: int


class BreakerTurns(NamedTuple):
    """How often the breaker of a tier opened and closed.

    Attributes:
        tier: Its place, without secrets.
        opened: So often the tier failed too often, and was left alone.
        closed: So often it was found to work again.
    """

    tier: str
    opened: int
    closed: int


@dataclass(frozen=True)
class OperationNumbers:
    """What one operation did. Frozen; each tuple is sorted.

    Attributes:
        stages: Seconds by name of the stage, in the order in which they first ended; parts run at the same time, so
            their sum may be more than passed.
        calls: Calls of tiers, by tier, call and outcome.
        moved: Bytes by tier and direction.
        reads: Reads of sources, by source and outcome.
        breakers: Tiers whose breaker opened or closed.
        lease_wait_seconds: How long another run that held the plan was waited for.
        leases_refused: How often the plan was not had, because another run held it for longer.
    """

    stages: Mapping[str, float] = field(default_factory=dict)
    calls: tuple[TierCalls, ...] = ()
    moved: tuple[TierBytes, ...] = ()
    reads: tuple[SourceReads, ...] = ()
    breakers: tuple[BreakerTurns, ...] = ()
    lease_wait_seconds: float = 0.0
    leases_refused: int = 0

    def as_json(self) -> dict[str, JsonValue]:
        """Return it as it is kept: what is zero or empty is left out, records are lists, seconds have 6 decimals."""
        found: dict[str, JsonValue] = {
            "stages": {stage: round(seconds, 6) for stage, seconds in self.stages.items()},
            "calls": [_row(one) for one in self.calls],
            "moved": [_row(one) for one in self.moved],
            "reads": [_row(one) for one in self.reads],
            "breakers": [_row(one) for one in self.breakers],
            "lease_wait_seconds": round(self.lease_wait_seconds, 6),
            "leases_refused": self.leases_refused,
        }
        return {name: value for name, value in found.items() if value}


def _row(one: tuple[JsonValue, ...]) -> list[JsonValue]:
    return [round(value, 6) if isinstance(value, float) else value for value in one]
