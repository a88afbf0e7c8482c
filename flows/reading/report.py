"""The report of plans: how they stand, what there is, how it goes on, and what to do now. From records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from blocks.errors import LastgoodError
from blocks.plan.objectives import rpo_target
from blocks.plan.plan import BackupPlan
from blocks.plan.suspicion import is_unsettled
from blocks.records import BackupMetadata, BackupStatus, Expiry
from blocks.repository.verdict import Verdict
from blocks.verification import Axis, CheckOutcome, Verification
from flows.reading.growth import growth, whole_since
from flows.reading.outlook import outlook
from flows.reading.recovery import LOOKED_AT, Recovery, recovery
from flows.reading.status import PlanStatus, Seen, last_good, plan_status, see
from flows.reporting.report_facts import UNKNOWN, AxisFacts, Mark, MarkedBackup, Objective, PlanFacts
from flows.reporting.report_page import report_page
from flows.reporting.units import human_bytes, human_seconds, human_span


def report_html(plans: Sequence[BackupPlan], now: datetime) -> str:
    """Make the report of plans, one page of HTML of less than 500 KB that loads nothing.

    A plan whose repository cannot be read is shown with the reason, beside the others.

    Args:
        plans: Read and resolved, in the order in which they are shown.
        now: The moment that ages are counted from, aware.
    """
    return report_page([plan_facts(plan, plan.reference or plan.name, now) for plan in plans], now)


def plan_facts(plan: BackupPlan, reference: str, now: datetime) -> PlanFacts:
    """Do what `read_facts` does; of a plan that cannot be looked at, tell why."""
    try:
        return read_facts(plan, reference, now)
    except LastgoodError as exc:
        return unread(plan.name, exc)


def read_facts(plan: BackupPlan, reference: str, now: datetime) -> PlanFacts:
    """Read what the report tells of a plan.

    Args:
        plan: The plan, read and resolved.
        reference: What a person types for the plan, for what is to be done.
        now: The moment that ages are counted from, aware.

    Raises:
        RepositoryUnavailable: The records cannot be read.
        WrongKey: No key opens them.
    """
    repository = plan.repository.unlock(plan.encryption)
    seen = see(plan, repository, now)
    expiries, newest = repository.expiries(plan.name), repository.all_verifications(plan.name, LOOKED_AT)
    return facts_of(plan, reference, Recorded(seen, expiries, newest), now)


@dataclass(frozen=True)
class Recorded:
    """What is on record of a plan.

    Attributes:
        seen: Its backups, and what is known of them.
        expiries: What retention removed.
        verifications: The newest ones, in any order.
    """

    seen: Seen
    expiries: Sequence[Expiry]
    verifications: Sequence[Verification]


def facts_of(plan: BackupPlan, reference: str, recorded: Recorded, now: datetime) -> PlanFacts:
    """Return what the report tells of a plan, from what is on record of it.

    Args:
        plan: The plan, read and resolved.
        reference: What a person types for the plan, for what is to be done.
        recorded: What is on record.
        now: The moment that ages are counted from, aware.
    """
    seen = recorded.seen
    status = plan_status(plan, reference, now, seen)
    statuses = {one: verdict.shown_status for one, verdict in seen.verdicts.items()}
    measured = recovery(seen.backups, recorded.verifications, statuses, now)
    marked = {made.backup_id: _marked(made, seen.verdicts[made.backup_id], seen.settled) for made in seen.backups}
    return PlanFacts(
        plan=plan.name,
        health=status.health.value,
        to_do=status.to_do,
        repository=status.repository,
        backups=sorted(marked.values(), key=lambda one: one.at),
        rpo=_rpo(plan, seen, measured, now),
        rto=_rto(plan, measured),
        growth=growth(seen.backups, recorded.expiries, status.free_bytes, now),
        outlook=outlook(plan.retention, seen, marked, now),
        axes=[_axis(axis, seen.verdicts) for axis in Axis],
        wrong=_wrong(status, seen),
        odd=_odd(status, seen),
        next_due=status.next_due,
        whole_since=whole_since(recorded.expiries),
        verified=(proof.backup_id, proof.verified_at, proof.good) if (proof := status.last_verified) else None,
    )


def unread(plan: str, error: LastgoodError) -> PlanFacts:
    """Return what is told of a plan that cannot be looked at.

    Args:
        plan: Its name, or what a person typed for it.
        error: Why.
    """
    return PlanFacts(plan, UNKNOWN, " ".join(filter(None, (f"It cannot be looked at: {error.message}.", error.hint))))


def _marked(made: BackupMetadata, verdict: Verdict, settled: frozenset[str]) -> MarkedBackup:
    unsettled = is_unsettled(made, settled)
    mark = (
        Mark.CORRUPTED if verdict.status is BackupStatus.CORRUPTED
        else Mark.WRONG if verdict.bad
        else Mark.SUSPICIOUS if unsettled
        else Mark.VERIFIED if verdict.good
        else Mark.COMPLETED
    )  # fmt: skip
    return MarkedBackup(
        made.backup_id,
        made.backup_type,
        made.timestamp,
        mark,
        made.base,
        made.size_stored,
        (*verdict.sentences(), *(made.suspicions if unsettled else ())),
    )


def _rpo(plan: BackupPlan, seen: Seen, recovery: Recovery, now: datetime) -> Objective:
    good = last_good(seen.backups, seen.verdicts, now)
    target = rpo_target(plan.objectives, plan.schedules, good.timestamp if good else now)
    said, apart = "", recovery.rpo
    if apart.worst_seconds is not None:
        worst = human_span(timedelta(seconds=apart.worst_seconds))
        said = f"the last {apart.backups + 1} backups were {worst} apart at most"
    age = None if good is None else max(timedelta(0), now - good.timestamp)
    return Objective(age, target, said, from_schedule=plan.objectives.rpo is None)


def _rto(plan: BackupPlan, recovery: Recovery) -> Objective:
    times, target = recovery.rto, plan.objectives.rto
    if times is None:
        return Objective(None, target, "no restore was measured yet")
    size = "" if times.last_size_bytes is None else f" for {human_bytes(times.last_size_bytes)}"
    slowest = "measured once" if times.restores == 1 else f"the slowest of {times.restores} scratch restores"
    return Objective(
        timedelta(seconds=times.worst_seconds), target, f"{slowest}; the last {human_seconds(times.last_seconds)}{size}"
    )


def _axis(axis: Axis, verdicts: Mapping[str, Verdict]) -> AxisFacts:
    found = [(one.axes[axis], backup_id) for backup_id, one in verdicts.items() if axis in one.axes]
    # what is bad only because of another one is told of that one
    found = [(stands, one) for stands, one in found if axis is not Axis.BYTES or verdicts[one].bad_base is None]
    if not found:
        return AxisFacts(axis)
    newest, backup_id = max(found, key=lambda one: (one[0].verified_at, one[1]))
    good = [stands.verified_at for stands, _ in found if stands.outcome is CheckOutcome.GOOD]
    return AxisFacts(axis, newest.outcome, newest.depth, newest.verified_at, backup_id, max(good, default=None))


def _wrong(status: PlanStatus, seen: Seen) -> list[str]:
    """Return what is wrong with the repository, and with which backups; those that depend on one are told with it."""
    below = Counter(one.bad_base for one in seen.verdicts.values())
    said = list(status.findings)
    for made in reversed(seen.backups):
        verdict = seen.verdicts[made.backup_id]
        sentences = verdict.sentences() if verdict.bad_base is None else []
        many = below[made.backup_id]
        also = "" if not many else f"; {many:,} that depend{'s' if many == 1 else ''} on it cannot be restored either"
        said += [f"{made.backup_id}: {sentence}{also}" for sentence in sentences]
    return said


def _odd(status: PlanStatus, seen: Seen) -> list[str]:
    """Return what is odd: suspicious backups, what the newest backup says of its sources, and what holds things up."""
    said = [f"{one.backup_id}: {sentence}" for one in reversed(status.suspicious) for sentence in one.suspicions]
    for made in seen.backups[-1:]:
        said += [f"{source.name}: {text}" for source in made.sources for text in source.warnings]
        said += [made.clock_doubt] if made.clock_doubt else []
    said += [f"the slot {slot.name} of {slot.source} held back {human_bytes(slot.held_bytes)}" for slot in status.slots]
    return said
