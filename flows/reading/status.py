"""How a plan stands: whether its backups are as new as its schedules say, and whether they are proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel

from blocks.host.room import free_bytes
from blocks.plan.clock import is_ahead
from blocks.plan.objectives import backup_overdue_since, overdue_since
from blocks.plan.plan import BackupPlan
from blocks.plan.schedule_times import times_after
from blocks.plan.schedules import Scheduled, Schedules
from blocks.plan.suspicion import is_unsettled
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.repository.leases import LeaseRecord
from blocks.repository.verdict import Verdict
from blocks.verification import Axis
from flows.pipeline.doubts import settled
from flows.reading.attempts import FailedRun, last_failed
from flows.reporting.moments import ago, span

_WEEK, _MONTH = timedelta(days=7), timedelta(days=30)
_BACKUPS = (Scheduled.FULL, Scheduled.DIFFERENTIAL, Scheduled.INCREMENTAL)


class Health(StrEnum):
    """What a plan's backups amount to, the best first."""

    GOOD = "good"
    UNPROVED = "unproved"
    SUSPICIOUS = "suspicious"
    STALE = "stale"
    DAMAGED = "damaged"


class BackupAge(BaseModel):
    """A backup, and how old the state in it is.

    Attributes:
        timestamp: The point in time that it restores.
    """

    backup_id: str
    type: str
    timestamp: datetime
    age_seconds: float


class ProofAge(BaseModel):
    """The newest verification of a plan's backups.

    Attributes:
        axes: By axis that was tried, what stands of that backup.
        depth: How deep its bytes or its restore were looked at: objects, rows or restored.
        good: Whether nothing is wrong with it, and every row was compared.
    """

    backup_id: str
    verified_at: datetime
    age_seconds: float
    axes: dict[str, str]
    depth: str
    good: bool


class SlotAge(BaseModel):
    """A replication slot, as the newest backup saw it; a status asks no server."""

    source: str
    name: str
    held_bytes: int


class SuspiciousBackup(BaseModel):
    """A backup that departs from those before, and that nobody has accepted.

    Attributes:
        suspicions: What is suspicious about it, a sentence each.
    """

    backup_id: str
    timestamp: datetime
    suspicions: list[str]


class Holder(BaseModel):
    """Who holds the plan now."""

    purpose: str
    holder: str
    since: datetime


class PlanStatus(BaseModel):
    """How a plan stands. Sizes are in bytes, times aware UTC.

    Attributes:
        health: What it amounts to.
        last_good: The newest backup that nothing is known against, as `last_good` returns it.
        next_due: When the next backup is due by the plan's schedules; None where all are made by hand.
        overdue_since: The first of the times that passed without a good backup, where two did; where the plan sets
            an RPO, when the newest good backup became older.
        last_failed: The newest backup run that failed in the last days, where none of its type succeeded since.
        last_verified: The newest verification.
        suspicious: Backups that are suspicious, and that nobody has accepted, oldest first.
        backups: How many backups there are.
        size_stored: What they take.
        grown_7_days, grown_30_days: What those of the last days take that are still there.
        free_bytes: Room that is left where the repository is; None where that is not known.
        held_by: Who holds the plan; None where nobody does.
        findings: Backups that cannot be read, and what else is wrong with the repository, each a sentence.
        to_do: What to do now, a sentence.
    """

    plan: str
    repository: str
    health: Health
    last_good: BackupAge | None
    next_due: datetime | None
    overdue_since: datetime | None
    last_failed: FailedRun | None
    last_verified: ProofAge | None
    suspicious: list[SuspiciousBackup]
    backups: int
    size_stored: int
    grown_7_days: int
    grown_30_days: int
    free_bytes: int | None
    slots: list[SlotAge]
    held_by: Holder | None
    findings: list[str]
    to_do: str


@dataclass(frozen=True)
class Seen:
    """What is on record of a plan, as it was read at one moment.

    Attributes:
        url: Where the repository is, without secrets.
        backups: All committed backups whose manifests open, in the order of their commits.
        verdicts: What is known of them, by id.
        settled: Ids of the suspicious ones that a person accepted.
        lease: Who holds the plan; None where nobody does.
        findings: What is wrong with the repository, each a sentence.
        failed: The newest backup run that failed, where none of its type succeeded since.
    """

    url: str
    backups: Sequence[BackupMetadata]
    verdicts: Mapping[str, Verdict]
    settled: frozenset[str]
    lease: LeaseRecord | None
    findings: list[str]
    failed: FailedRun | None = None


def see(plan: BackupPlan, repository: Repository, now: datetime) -> Seen:
    """Read what is on record of a plan; no data are read, and no source is asked.

    Args:
        plan: The plan, read and resolved.
        repository: Its unlocked repository.
        now: The moment that ages are counted from, aware.
    """
    survey = repository.survey(plan.name, shown=True)
    verdicts = repository.verdicts(plan.name, survey.backups)
    lease = repository.current_lease(plan.name)
    findings = [*survey.findings, *repository.damaged_lease(plan.name)]
    if lost := repository.rolled_back(plan.name):
        findings.append(lost)
    said = settled(repository, plan.name, survey.backups)
    failed = last_failed(plan, repository.repository_id, now)
    return Seen(repository.url, survey.backups, verdicts, said, lease, findings, failed)


def plan_status(plan: BackupPlan, reference: str, now: datetime, seen: Seen | None = None) -> PlanStatus:
    """Find out how a plan stands, from records alone: no data are read, and no source is asked.

    Args:
        plan: The plan, read and resolved.
        reference: What a person types for the plan, for what is to be done.
        now: The moment that ages are counted from, aware.
        seen: What is on record of it; it is read where this is None.
    """
    seen = seen or see(plan, plan.repository.unlock(plan.encryption), now)
    backups, verdicts, findings = seen.backups, seen.verdicts, seen.findings
    good = last_good(backups, verdicts, now)
    proof = _last_proof(backups, verdicts, now)
    overdue = backup_overdue_since(plan.objectives, plan.schedules, good.timestamp, now) if good else None
    unproved = _unproved(plan.schedules, proof, verdicts, now)
    bad = _bad(backups, verdicts)
    suspicious = _suspicious(backups, seen.settled)
    health = (
        Health.DAMAGED if findings or bad
        else Health.STALE if good is None or overdue
        else Health.SUSPICIOUS if suspicious
        else Health.UNPROVED if unproved
        else Health.GOOD
    )  # fmt: skip
    folder, lease = plan.repository.folder, seen.lease
    return PlanStatus(
        plan=plan.name,
        repository=seen.url,
        health=health,
        last_good=_aged(good, now) if good else None,
        next_due=_next(plan.schedules, now),
        overdue_since=overdue,
        last_failed=seen.failed,
        last_verified=proof,
        suspicious=suspicious,
        backups=len(backups),
        size_stored=sum(made.size_stored for made in backups),
        grown_7_days=_grown(backups, now - _WEEK),
        grown_30_days=_grown(backups, now - _MONTH),
        free_bytes=free_bytes(folder) if folder is not None else None,
        slots=slots(backups),
        held_by=Holder(purpose=lease.purpose, holder=lease.holder, since=lease.acquired_at) if lease else None,
        findings=findings,
        to_do=_to_do(reference, good, overdue, unproved, bad, suspicious, bool(findings), seen.failed, now),
    )


def last_good(
    backups: Sequence[BackupMetadata], verdicts: Mapping[str, Verdict], now: datetime
) -> BackupMetadata | None:
    """Return the newest backup that nothing is known against; an emergency backup, which may hold part, is none.

    Of one that a clock dated ahead it is not known how old it is: one before it counts, where there is one.
    """
    whole = [made for made in reversed(backups) if made.is_regular]
    good = [made for made in whole if not verdicts[made.backup_id].bad]
    return next((made for made in good if not is_ahead(made.timestamp, now)), next(iter(good), None))


def _bad(backups: Sequence[BackupMetadata], verdicts: Mapping[str, Verdict]) -> BackupMetadata | None:
    """Return the newest backup, where something is known against it: what matters is whether the next one is good."""
    return backups[-1] if backups and verdicts[backups[-1].backup_id].bad else None


def _suspicious(backups: Sequence[BackupMetadata], said: frozenset[str]) -> list[SuspiciousBackup]:
    return [
        SuspiciousBackup(backup_id=one.backup_id, timestamp=one.timestamp, suspicions=list(one.suspicions))
        for one in backups
        if is_unsettled(one, said)
    ]


def _aged(made: BackupMetadata, now: datetime) -> BackupAge:
    return BackupAge(
        backup_id=made.backup_id,
        type=made.backup_type.value,
        timestamp=made.timestamp,
        age_seconds=(now - made.timestamp).total_seconds(),
    )


def _last_proof(backups: Sequence[BackupMetadata], verdicts: Mapping[str, Verdict], now: datetime) -> ProofAge | None:
    """Return the newest verification of a backup; of several at one time that of the newest backup."""
    tried = [
        (max(stands.verified_at for stands in verdict.axes.values()), number, made, verdict)
        for number, made in enumerate(backups)
        if (verdict := verdicts[made.backup_id]).axes and verdict.bad_base is None
    ]
    if not tried:
        return None
    moment, _, made, verdict = max(tried, key=lambda one: one[:2])
    return ProofAge(
        backup_id=made.backup_id,
        verified_at=moment,
        age_seconds=(now - moment).total_seconds(),
        axes={axis.value: verdict.axes[axis].outcome.value for axis in Axis if axis in verdict.axes},
        depth=verdict.depth(Axis.RESTORABLE) or verdict.depth(Axis.BYTES),
        good=verdict.good,
    )


def _next(schedules: Schedules, now: datetime) -> datetime | None:
    times = (next(iter(times_after(schedule, now)), None) for job in _BACKUPS if (schedule := schedules.of(job)))
    return min((time for time in times if time is not None), default=None)


def _unproved(schedules: Schedules, proof: ProofAge | None, verdicts: Mapping[str, Verdict], now: datetime) -> bool:
    """Whether no backup is proved, or none was for longer than the plan wants."""
    if proof is None or not any(verdict.good for verdict in verdicts.values()):
        return True
    return overdue_since(schedules, [Scheduled.VERIFY], proof.verified_at, now) is not None


def _grown(backups: Sequence[BackupMetadata], since: datetime) -> int:
    return sum(made.size_stored for made in backups if made.timestamp >= since)


def slots(backups: Sequence[BackupMetadata]) -> list[SlotAge]:
    """Return the replication slots as the newest backup saw them."""
    found = []
    for source in backups[-1].sources if backups else ():
        match source.definition.get("slot"):
            case {"name": str(name), "held_bytes": int(held)}:
                found.append(SlotAge(source=source.name, name=name, held_bytes=held))
    return found


def _to_do(  # noqa: PLR0913  all that a sentence can be about
    reference: str,
    good: BackupMetadata | None,
    overdue: datetime | None,
    unproved: bool,
    bad: BackupMetadata | None,
    suspicious: Sequence[SuspiciousBackup],
    damaged: bool,
    failed: FailedRun | None,
    now: datetime,
) -> str:
    """Say what is most urgent, in one sentence."""
    if damaged:
        return f"Something is wrong with the repository: run `lastgood check {reference}`."
    if bad is not None:
        return (
            f"Something is wrong with {bad.backup_id}: `lastgood show {reference} {bad.backup_id}` says what; "
            f"`lastgood backup {reference} --type full` makes one that does not depend on it."
        )
    if good is None:
        return f"There is no good backup: run `lastgood backup {reference}`."
    if overdue is not None:
        return (
            f"No good backup was made for {span(now - good.timestamp)}: look why the scheduled runs fail, or run "
            f"`lastgood backup {reference}`."
        )
    if suspicious:
        newest = suspicious[-1]
        return (
            f"Look at what is suspicious about {newest.backup_id}: {newest.suspicions[0]} If that is right, run "
            f"`lastgood accept {reference} {newest.backup_id}`; until then the good backup before it is kept."
        )
    if unproved:
        return f"Prove that it can be restored: run `lastgood verify {reference} --deep`."
    if failed is not None:
        return (
            f"Look why the {failed.type} backup of {ago(failed.failed_at, now)} failed: its log says so. The last good "
            f"one is from {ago(good.timestamp, now)}."
        )
    return f"Nothing: the last good backup is from {ago(good.timestamp, now)}."
