"""What the report of plans is drawn from: facts that were read or computed, and nothing of how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from blocks.records import BackupType
from blocks.verification import Axis, CheckOutcome

UNKNOWN = "unknown"
"""Health of a plan that cannot be looked at."""


class Mark(StrEnum):
    """What a backup is marked as, the worst last."""

    VERIFIED = "verified"
    """Every row was compared, and nothing is wrong."""
    COMPLETED = "completed"
    """Nothing is known against it, and it is not proved."""
    SUSPICIOUS = "suspicious"
    """It departs from those before it, and nobody has accepted that."""
    WRONG = "wrong"
    """Its bytes are whole, and its data or definitions are not as expected."""
    CORRUPTED = "corrupted"
    """It, or one that it depends on, cannot be restored as it was."""


@dataclass(frozen=True)
class MarkedBackup:
    """One backup.

    Attributes:
        at: The point in time that it restores, aware.
        base: Id of the one that it depends on; None where it stands alone.
        size_stored: In bytes.
        why: What stands against it, sentences; empty where nothing does.
    """

    backup_id: str
    kind: BackupType
    at: datetime
    mark: Mark
    base: str | None
    size_stored: int
    why: Sequence[str] = ()


@dataclass(frozen=True)
class Objective:
    """Something measured, and what it may be at most.

    Attributes:
        measured: None where there is nothing to measure.
        target: None where the plan sets none.
        from_schedule: Whether the target is not set, but follows from the plan's schedules.
        said: What was measured, in words.
    """

    measured: timedelta | None
    target: timedelta | None
    said: str
    from_schedule: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is within the target; None where one of both is not known."""
        return None if self.measured is None or self.target is None else self.measured <= self.target


@dataclass(frozen=True)
class Growth:
    """What the backups take, over time and from now on. Sizes are in bytes.

    Attributes:
        history: Moments, oldest first, and what was stored then.
        estimated: Whether the size of backups that were removed since is estimated in it.
        per_day: How fast it grows, by a straight line through the last days; None where they are too few.
        days: Through how many days.
        free: Room that is left; None where that is not known.
        now: When it was measured.
    """

    history: Sequence[tuple[datetime, int]]
    estimated: bool
    per_day: float | None
    days: float
    free: int | None
    now: datetime

    @property
    def stored(self) -> int:
        """What is stored now."""
        return self.history[-1][1] if self.history else 0

    def after(self, days: float) -> int | None:
        """Return what is stored after some days, if it goes on like this; None where that is not known."""
        return None if self.per_day is None else max(0, round(self.stored + days * self.per_day))

    @property
    def full_in(self) -> timedelta | None:
        """After what time no room is left; None where that is not known, or it takes longer than a century."""
        if self.free is None or self.per_day is None or self.per_day <= 0:
            return None
        days = self.free / self.per_day
        return timedelta(days=days) if days < 36_500 else None


@dataclass(frozen=True)
class Leaving:
    """What the policy of a plan removes until some time, of the backups that are there now.

    Attributes:
        when: Until when, in words.
        counts: How many go, by type.
        size_stored: What they take, in bytes.
    """

    when: str
    counts: Mapping[BackupType, int]
    size_stored: int

    @property
    def backups(self) -> int:
        """How many go."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Outlook:
    """What retention will do.

    Attributes:
        leaving: By time; what went earlier is counted again later.
        first: The first that go, oldest first, each with when and why.
        held: Those that stay in all that time although they are older than their type is kept, each with why.
    """

    leaving: Sequence[Leaving]
    first: Sequence[tuple[MarkedBackup, str, str]]
    held: Sequence[tuple[MarkedBackup, str]]


@dataclass(frozen=True)
class AxisFacts:
    """The newest that any verification of the plan's backups said on one axis.

    Attributes:
        outcome: Untried where none did.
        depth: How deep it looked; empty where it did not.
        at: When; None where none did.
        backup_id: Of which backup.
        last_good: When one was last found good on it.
    """

    axis: Axis
    outcome: CheckOutcome = CheckOutcome.UNTRIED
    depth: str = ""
    at: datetime | None = None
    backup_id: str = ""
    last_good: datetime | None = None


@dataclass(frozen=True)
class PlanFacts:
    """What the report tells of one plan.

    Attributes:
        health: `good`, `unproved`, `suspicious`, `stale`, `damaged`, or `UNKNOWN` where it cannot be looked at.
        to_do: What to do now, a sentence; commands in it are between backquotes.
        repository: Where its backups are; empty where that is not known.
        backups: In the order of their times.
        wrong: What is wrong, the most urgent first, sentences.
        odd: What is odd, sentences.
        next_due: When the next backup is due; None where all are made by hand.
        whole_since: From when on every backup that was made is still there; None where none was ever removed.
        verified: Id of the backup that was verified last, when, and whether it was found good; None without one.
    """

    plan: str
    health: str
    to_do: str
    repository: str = ""
    backups: Sequence[MarkedBackup] = ()
    rpo: Objective = field(default_factory=lambda: Objective(None, None, ""))
    rto: Objective = field(default_factory=lambda: Objective(None, None, ""))
    growth: Growth | None = None
    outlook: Outlook | None = None
    axes: Sequence[AxisFacts] = ()
    wrong: Sequence[str] = ()
    odd: Sequence[str] = ()
    next_due: datetime | None = None
    whole_since: datetime | None = None
    verified: tuple[str, datetime, bool] | None = None
