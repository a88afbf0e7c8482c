"""What is due to be proved: `prove_within` and `prove_budget` of a plan, and the pure rule that a run goes by.

The newest backup is proved by every run, wholly: read, merged, restored, its suites run. Of the others a run takes
those whose proof is oldest, so many that all come round within the time that the plan says; none again in the first
half of it. A backup that depends on none is proved wholly, too. Of one that depends on others only its own objects are
read: those of its chain were read by proofs of their own, and what has not changed since is not read again. So every
stored byte is read about once in that time, and the newest chain once a run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from blocks.plan.clock import TOLERANCE
from blocks.plan.durations import format_duration, parse_duration
from blocks.records import BackupMetadata

FIRST_RUN = timedelta(weeks=1)
"""What is taken for the time between two runs where there was none before: the usual schedule."""

_LONGEST = timedelta(days=365_000)
"""What a longer time is taken for, so that it can be added to any date."""

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_EVER = datetime.min.replace(tzinfo=UTC)


def parse_budget(value: object) -> object:
    """Read `50GiB` or `200 MB` as bytes, `2h` or `30m` as a time; a bare number says of neither."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
        if not size:
            raise ValueError("a budget must be more than nothing")
        return size
    span = parse_duration(value)
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise ValueError(f"{value} is no budget: write a size such as 50GiB, or a time such as 2h")
    return span


def _format_budget(value: int | timedelta) -> str:
    return format_duration(value) if isinstance(value, timedelta) else f"{value}B"


Budget = Annotated[int | timedelta, BeforeValidator(parse_budget), PlainSerializer(_format_budget)]
"""What one run may cost: bytes that it reads, or time that it takes."""


@dataclass(frozen=True)
class ProofPolicy:
    """Within what time all kept backups are proved, and at what cost a run.

    Attributes:
        within: The time; None where only the newest backup is proved.
        budget_bytes: Stored bytes that one run may read; None for as many as are due.
        budget_time: How long a run goes on to begin proofs; None for as long as it takes.
    """

    within: timedelta | None = None
    budget_bytes: int | None = None
    budget_time: timedelta | None = None

    @classmethod
    def of(cls, within: timedelta | None, budget: int | timedelta | None) -> ProofPolicy:
        """Make one of what a plan says."""
        if isinstance(budget, timedelta):
            return cls(within, budget_time=budget)
        return cls(within, budget_bytes=budget)


class ProofKind(StrEnum):
    """What a run does to prove a backup."""

    WHOLE = "whole"
    """All of its chain is read, merged, compared and restored; the suites run."""
    OWN = "own objects"
    """Its own objects are read and every row in them compared; what it depends on was proved before."""


@dataclass(frozen=True)
class DueProof:
    """One proof that is due.

    Attributes:
        backup: Of what.
        kind: What is done.
        why: In words, the end of a sentence.
        size_bytes: What is read for it, in stored bytes.
        deadline: When its time is over; None of the newest backup, which each run proves, and where all are proved.
    """

    backup: BackupMetadata
    kind: ProofKind
    why: str
    size_bytes: int
    deadline: datetime | None = None


@dataclass(frozen=True)
class ProofSchedule:
    """What one run does.

    Attributes:
        proofs: In the order in which they are to be made: a backup comes after those that it depends on.
        waiting: For each other backup that is to be proved, when that is due; `datetime.min` for at once.
        left_out: Backups that are not proved, since they are known to be bad or depend on one that is or is not there.
        needed_bytes: What a run has to read for all backups to be proved in time, if runs come as they did.
        every: The time between two runs, as it was measured.
    """

    proofs: tuple[DueProof, ...] = ()
    waiting: Mapping[str, datetime] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    needed_bytes: int = 0
    every: timedelta = FIRST_RUN

    @property
    def size_bytes(self) -> int:
        """Stored bytes that the run reads."""
        return sum(proof.size_bytes for proof in self.proofs)

    def overdue(self, now: datetime) -> list[str]:
        """Return the backups that the run leaves although their time is over, the oldest proof first."""
        late = [(moment, backup_id) for backup_id, moment in self.waiting.items() if moment < now]
        return [backup_id for _, backup_id in sorted(late, key=lambda one: one[0])]


@dataclass(frozen=True)
class Known:
    """What is known of backups before a run.

    Attributes:
        proved: By id, when the own objects of a backup were last read and found good, row by row; those of which
            something was written since are not in it.
        doubted: Ids of backups of which something is not there or was written since: to be proved at once.
        bad: Ids of backups whose bytes are known to be bad.
        last_run: When the run before this one began; None where there was none.
    """

    proved: Mapping[str, datetime] = field(default_factory=dict)
    doubted: Collection[str] = frozenset()
    bad: Collection[str] = frozenset()
    last_run: datetime | None = None


def due(backups: Sequence[BackupMetadata], known: Known, now: datetime, policy: ProofPolicy) -> ProofSchedule:
    """Tell what a run is to prove.

    A time that is still to come, by a clock that was ahead, proves nothing: a backup that was proved then counts as
    one that never was, and one that was made under a clock that was doubted is due at once.

    Args:
        backups: All committed backups of the plan in the order of their sequence.
        known: What is known of them.
        now: The time to decide at, with a time zone.
        policy: What the plan says.
    """
    if not backups:
        return ProofSchedule()
    newest = newest_of(backups)
    first = _whole(newest, {b.backup_id: b for b in backups}, "the newest backup")
    if policy.within is None:
        return ProofSchedule((first,), needed_bytes=first.size_bytes, every=_every(known, now))
    return _Run(backups, known, now, policy.within, policy.budget_bytes, first).schedule()


def everything(backups: Sequence[BackupMetadata], known: Known) -> ProofSchedule:
    """Tell what a run is to prove that reads all, whenever it was proved: the newest first, the others as they came."""
    if not backups:
        return ProofSchedule()
    by_id, newest = {b.backup_id: b for b in backups}, newest_of(backups)
    others = [b for b in backups if b is not newest]
    left_out = [b.backup_id for b in others if any(link.backup_id not in by_id for link in b.chain)]
    proofs = [_proof(b, by_id, "all are proved") for b in others if b.backup_id not in left_out]
    return ProofSchedule((_whole(newest, by_id, "the newest backup"), *proofs), left_out=tuple(left_out))


def newest_of(backups: Sequence[BackupMetadata]) -> BackupMetadata:
    """Return the newest backup, one of an emergency only where there is no other."""
    regular = [b for b in backups if b.is_regular]
    return (regular or backups)[-1]


class _Run:
    """Chooses what one run proves besides the newest backup."""

    def __init__(
        self,
        backups: Sequence[BackupMetadata],
        known: Known,
        now: datetime,
        within: timedelta,
        budget_bytes: int | None,
        first: DueProof,
    ) -> None:
        self._by_id = {b.backup_id: b for b in backups}
        self._known, self._now, self._within, self._first = known, now, min(within, _LONGEST), first
        self._every = min(_every(known, now), self._within)
        self._left = None if budget_bytes is None else budget_bytes - first.size_bytes
        lost = {b.backup_id for b in backups if not self._can_be_proved(b)}
        others = [b for b in backups if b is not first.backup]
        self._left_out = tuple(b.backup_id for b in others if b.backup_id in lost)
        waiting = [b for b in others if b.backup_id not in lost]
        self._order = sorted(waiting, key=lambda b: (self._since(b), b.sequence))
        self._taken: dict[str, DueProof] = {first.backup.backup_id: first}

    def schedule(self) -> ProofSchedule:
        total = sum(b.size_stored for b in self._order)
        share = self._every / self._within
        # what is not taken now has to wait for the next run, which may come later than this one came
        horizon, spent, quota = self._now + self._every * 1.5, 0, total * share
        for backup in self._order:
            if backup.backup_id in self._taken:
                continue
            deadline = self._deadline(backup)
            if deadline > horizon and (spent >= quota or deadline - self._now > self._within / 2):
                break
            group = [_proof(b, self._by_id, self._why(b), self._deadline(b)) for b in self._with_bases(backup)]
            cost = sum(proof.size_bytes for proof in group)
            if self._left is not None and cost > self._left:
                continue  # something smaller may fit, and what is left over is told
            self._taken |= {proof.backup.backup_id: proof for proof in group}
            spent += cost
            if self._left is not None:
                self._left -= cost
        left = {b.backup_id: self._deadline(b) for b in self._order if b.backup_id not in self._taken}
        needed = self._first.size_bytes + round(quota)
        return ProofSchedule(tuple(self._taken.values()), left, self._left_out, needed, self._every)

    def _can_be_proved(self, backup: BackupMetadata) -> bool:
        ids = [*(link.backup_id for link in backup.chain), backup.backup_id]
        return all(one in self._by_id and one not in self._known.bad for one in ids)

    def _since(self, backup: BackupMetadata) -> datetime:
        """Return when a backup was proved or, where it never was, made; `datetime.min` where neither counts."""
        proved = self._proved(backup.backup_id)
        if proved is not None:
            return proved
        untold = backup.clock_doubt is not None or self._is_ahead(backup.timestamp)
        if untold or backup.backup_id in self._known.doubted:
            return _EVER
        return min(backup.timestamp, self._now)

    def _proved(self, backup_id: str) -> datetime | None:
        moment = None if backup_id in self._known.doubted else self._known.proved.get(backup_id)
        return None if moment is None or self._is_ahead(moment) else min(moment, self._now)

    def _is_ahead(self, moment: datetime) -> bool:
        return moment - self._now > TOLERANCE

    def _deadline(self, backup: BackupMetadata) -> datetime:
        since = self._since(backup)
        return _EVER if since == _EVER else since + self._within

    def _with_bases(self, backup: BackupMetadata) -> list[BackupMetadata]:
        """Return a backup after those of its chain that no proof tells of which still holds."""
        bases = [self._by_id[link.backup_id] for link in backup.chain]
        return [*(b for b in bases if b.backup_id not in self._taken and not self._is_fresh(b)), backup]

    def _is_fresh(self, backup: BackupMetadata) -> bool:
        proved = self._proved(backup.backup_id)
        return proved is not None and self._now - proved < self._within

    def _why(self, backup: BackupMetadata) -> str:
        proved = self._proved(backup.backup_id)
        if backup.backup_id in self._known.doubted:
            return "something of it is not there, or was written since its proof"
        return "never proved" if proved is None else f"proved {proved:%Y-%m-%d %H:%M} UTC"


def _every(known: Known, now: datetime) -> timedelta:
    """Return the time between two runs, measured by the one before; the usual one where there was none."""
    if known.last_run is None or known.last_run >= now:
        return FIRST_RUN
    return now - known.last_run


def _whole(
    backup: BackupMetadata, by_id: Mapping[str, BackupMetadata], why: str, deadline: datetime | None = None
) -> DueProof:
    chain = [by_id[link.backup_id] for link in backup.chain if link.backup_id in by_id]
    return DueProof(backup, ProofKind.WHOLE, why, sum(b.size_stored for b in (*chain, backup)), deadline)


def _proof(
    backup: BackupMetadata, by_id: Mapping[str, BackupMetadata], why: str, deadline: datetime | None = None
) -> DueProof:
    if not backup.chain:
        return _whole(backup, by_id, why, deadline)
    return DueProof(backup, ProofKind.OWN, why, backup.size_stored, deadline)
