"""How long a restore takes, and how much state is lost at most: as measured, not as hoped for.

The time of a restore (RTO) is that of scratch restores, from when the scratch place is opened until it is all there and
committed. The state that is lost (RPO) is what came between two backups, by the times that they restore to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from pydantic import BaseModel

from blocks.plan.clock import is_ahead
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.block import Repository
from blocks.verification import Verification
from flows.reporting.units import human_bytes, human_seconds, human_span

MEASURED = 30
"""So many of the newest restores, and of the newest distances between backups, are looked at."""

LOOKED_AT = 100
"""So many of the newest verifications are looked at for those that restored something."""


class RestoreTimes(BaseModel):
    """How long scratch restores took, in seconds.

    Attributes:
        restores: How many were measured.
        last_rows: Rows that the newest of them restored.
        last_size_bytes: Size of what it read for that, before compression: of the backup and all that it depends on;
            None where one of them is gone.
    """

    restores: int
    median_seconds: float
    worst_seconds: float
    last_seconds: float
    last_rows: int
    last_size_bytes: int | None = None


class Distances(BaseModel):
    """How far backups are apart, in seconds.

    Attributes:
        backups: Between how many pairs of backups that follow each other.
        median_seconds: None where there are no two backups.
        worst_seconds: Likewise.
        age_seconds: Age of the newest backup that is not known to be bad, nor dated ahead; None where there is none, or
            nobody asked.
    """

    backups: int
    median_seconds: float | None = None
    worst_seconds: float | None = None
    age_seconds: float | None = None


class Recovery(BaseModel):
    """What recovery costs, as measured.

    Attributes:
        rto: None where nothing was restored to a scratch place yet.
        rpo: Of the backups that there are.
    """

    rto: RestoreTimes | None
    rpo: Distances

    def sentences(self) -> list[str]:
        """Say it, what is known of it."""
        return [f"{name}: {text}" for name, text in self.texts()]

    def texts(self) -> list[tuple[str, str]]:
        """Return what is known of it in words, each under its name."""
        told = []
        if (rto := self.rto) is not None:
            size = "" if rto.last_size_bytes is None else f", {human_bytes(rto.last_size_bytes)}"
            text = f"{human_seconds(rto.median_seconds)} in the middle, {human_seconds(rto.worst_seconds)} at worst"
            last = f"the last one {human_seconds(rto.last_seconds)} for {rto.last_rows:,} rows{size}"
            told.append((f"{rto.restores} scratch restore{'s' if rto.restores != 1 else ''}", f"{text}; {last}"))
        rpo = self.rpo
        if rpo.median_seconds is not None and rpo.worst_seconds is not None:
            middle, worst = timedelta(seconds=rpo.median_seconds), timedelta(seconds=rpo.worst_seconds)
            told.append(("between backups", f"{human_span(middle)} in the middle, {human_span(worst)} at worst"))
        if rpo.age_seconds is not None:
            told.append(("newest good state", f"{human_span(timedelta(seconds=rpo.age_seconds))} old"))
        return told


def recovery_of(
    repository: Repository,
    plan: str,
    backups: Sequence[BackupMetadata],
    statuses: Mapping[str, BackupStatus] | None,
    now: datetime,
) -> Recovery:
    """Measure what recovery costs, by the newest verifications of a plan.

    Args:
        repository: The unlocked repository.
        plan: Name of the plan.
        backups: All committed backups of the plan, in the order of their commits.
        statuses: What is known of backups by id; None where nobody asks for the age of the newest good one.
        now: The time to measure ages at.
    """
    found = recovery(backups, repository.all_verifications(plan, LOOKED_AT), statuses or {}, now)
    if statuses is None:
        found.rpo.age_seconds = None
    return found


def recovery(
    backups: Sequence[BackupMetadata],
    verifications: Sequence[Verification],
    statuses: Mapping[str, BackupStatus | None],
    now: datetime,
) -> Recovery:
    """Measure what recovery costs.

    Args:
        backups: All committed backups of the plan, in the order of their commits.
        verifications: Those of all of them, in any order.
        statuses: What is known of backups by id.
        now: The time to measure ages at.
    """
    return Recovery(rto=_restore_times(backups, verifications), rpo=_distances(backups, statuses, now))


def _restore_times(backups: Sequence[BackupMetadata], verifications: Sequence[Verification]) -> RestoreTimes | None:
    measured = [(one.verified_at, one.restore_seconds, one) for one in verifications if one.restore_seconds is not None]
    newest = sorted(measured, key=lambda one: one[0])[-MEASURED:]
    if not newest:
        return None
    seconds, (_, last_seconds, last) = [took for _, took, _ in newest], newest[-1]
    known = {b.backup_id: b for b in backups}
    target = known.get(last.backup_id)
    chain = [known.get(link.backup_id) for link in target.chain] if target is not None else []
    read = [b.size_bytes for b in (target, *chain) if b is not None]
    size = sum(read) if len(read) == 1 + len(chain) and target is not None else None
    return RestoreTimes(
        restores=len(newest),
        median_seconds=median(seconds),
        worst_seconds=max(seconds),
        last_seconds=last_seconds,
        last_rows=last.rows,
        last_size_bytes=size,
    )


def _distances(
    backups: Sequence[BackupMetadata], statuses: Mapping[str, BackupStatus | None], now: datetime
) -> Distances:
    # an emergency backup is of a state that somebody wants to get away from
    regular = [b for b in backups if b.is_regular]
    good = [b for b in regular if statuses.get(b.backup_id, BackupStatus.COMPLETED) is not BackupStatus.CORRUPTED]
    moments = sorted(b.timestamp for b in good)
    past = [moment for moment in moments if not is_ahead(moment, now)]
    age = max(0.0, (now - past[-1]).total_seconds()) if past else None
    apart = [(later - one).total_seconds() for one, later in pairwise(moments)][-MEASURED:]
    if not apart:
        return Distances(backups=0, age_seconds=age)
    return Distances(backups=len(apart), median_seconds=median(apart), worst_seconds=max(apart), age_seconds=age)
