"""The retention flow: decide, record what goes and why, remove, and collect the garbage of unfinished backups.

It also works where not a byte is left. The lease and the record of what goes need a little room then, which is made of
what can be made again: leftovers, and SHA256SUMS of backups that are about to go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

from blocks.errors import CorruptionDetected, Partial, RepositoryFull, RepositoryUnavailable
from blocks.plan.plan import BackupPlan, load_plan
from blocks.plan.retention import Decision
from blocks.records import BackupMetadata, BackupStatus, Expiry
from blocks.repository.block import Repository
from blocks.repository.stock import Stock
from flows.pipeline.executor import StageExecutor, open_executor
from flows.pipeline.prefect_compat import RETRIED, flow, stage_runner, task
from flows.pipeline.results import DecidedBackup, RetentionResult
from flows.pipeline.run_names import named
from flows.reporting.artifacts import publish_retention

CLOCKS_DIFFER = timedelta(minutes=10)
"""How far a backup may be ahead of this machine's clock without a word."""


@flow(name="retention", flow_run_name=named("retention of {plan}"), task_runner=stage_runner, persist_result=False)
def retention(plan: str, dry_run: bool = False) -> RetentionResult:
    """Remove the backups that a plan's policy no longer keeps; never one that a kept backup depends on.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        dry_run: Only report what would go, and why.
    """
    result = apply_retention(load_plan(plan), dry_run)
    publish_retention(result)
    return result


def apply_retention(plan: BackupPlan, dry_run: bool = False, now: datetime | None = None) -> RetentionResult:
    """Apply a plan's retention policy, inside a flow run or without any Prefect server.

    Raises:
        CorruptionDetected: A manifest cannot be read, or the newest backup that this machine has seen is gone without
            a record. Then nothing is removed, since what is not seen may depend on any other backup.
        RepositoryLocked: Another run holds the plan.
        Partial: Some objects could not be removed, or the removal could not be recorded.
    """
    repository = plan.repository.unlock(plan.encryption)
    moment = now or datetime.now(UTC)
    with open_executor() as executor:
        if dry_run:
            decisions = executor.submit(decide, plan, repository, moment).result()
            return _result(plan, decisions, [], _clock_notes(plan, decisions, moment), dry_run)
        with _held(plan, repository, moment) as (swept, notes):
            return _remove(plan, repository, moment, executor, swept, notes)


def _remove(
    plan: BackupPlan, repository: Repository, now: datetime, executor: StageExecutor, swept: list[str], notes: list[str]
) -> RetentionResult:
    decided = executor.submit(decide, plan, repository, now)
    decisions: list[Decision] = decided.result()
    record = expiry(plan, repository, decisions, now)
    explained = executor.submit(explain, repository, decisions, record, after=[decided])
    removed = executor.submit(remove, plan, repository, decisions, after=[explained])
    try:
        removed.result()
    finally:
        if not explained.result() and record is not None:
            notes += _explain_afterwards(repository, record)
    cleaned = executor.submit(sweep, plan, repository, now, after=[removed])
    swept = [*swept, *cleaned.result()]
    return _result(plan, decisions, swept, [*notes, *_clock_notes(plan, decisions, now)], dry_run=False)


@task(task_run_name="decide", tags=["retention"], **RETRIED)
def decide(plan: BackupPlan, repository: Repository, now: datetime) -> list[Decision]:
    """Decide about every backup of the plan."""
    survey = repository.survey(plan.name)
    if survey.damaged:
        raise CorruptionDetected(
            f"plan {plan.name}: {survey.findings[0]}",
            hint="Nothing was removed. `lastgood check` reports more.",
        )
    if lost := repository.rolled_back(plan.name):
        raise CorruptionDetected(
            lost,
            hint="Nothing was removed. Is its disk mounted as a whole? If it is gone for good: "
            "`lastgood check --accept-head`.",
        )
    return plan.retention.decide(survey.backups, now, statuses(repository, survey.backups))


def statuses(repository: Repository, backups: Sequence[BackupMetadata]) -> dict[str, BackupStatus | None]:
    """Return what is known of backups: None where objects or bases of one are not there, or a record does not open."""
    stock = repository.stock(backups[0].plan) if backups else None
    return {backup.backup_id: _status(repository, backup, stock) for backup in backups}


def _status(repository: Repository, backup: BackupMetadata, stock: Stock | None) -> BackupStatus | None:
    try:
        told = repository.readable_status(backup, stock)
        if told is None or told is BackupStatus.CORRUPTED:
            return told
        repository.chain(backup, stock=stock)
        return None if repository.missing(backup, stock) else told
    except (CorruptionDetected, RepositoryUnavailable):
        return None


@task(task_run_name="explain", tags=["retention"], **RETRIED)
def explain(repository: Repository, decisions: list[Decision], record: Expiry | None) -> bool:
    """Leave a sealed record of what is about to go, so that an expiry is distinguished from a theft.

    Returns:
        False where there was no room for it.
    """
    return record is None or _with_room(repository, _going(decisions), lambda: repository.record_expiry(record))


@task(task_run_name="remove", tags=["retention"], **RETRIED)
def remove(plan: BackupPlan, repository: Repository, decisions: list[Decision]) -> None:
    """Remove manifests first, newest first, then the rest."""
    repository.remove(plan.name, [backup.backup_id for backup in reversed(_going(decisions))])


@task(task_run_name="sweep", tags=["retention"], **RETRIED)
def sweep(plan: BackupPlan, repository: Repository, now: datetime) -> list[str]:
    """Remove what unfinished backups left, after the grace time."""
    return repository.collect_garbage(plan.name, plan.retention.sweep_grace, now)


@contextmanager
def _held(plan: BackupPlan, repository: Repository, now: datetime) -> Iterator[tuple[list[str], list[str]]]:
    """Hold the plan's lease; where there is no room for one, make it. Yields the garbage removed for it, and notes."""
    with ExitStack() as stack:

        def take() -> None:
            stack.enter_context(repository.lease(plan.name, "retention"))

        swept: list[str] = []
        notes: list[str] = []
        try:
            take()
        except RepositoryFull:
            swept = repository.make_room(plan.name, plan.retention.sweep_grace, now)
            if not _with_room(repository, _going(decide.fn(plan, repository, now)), take):
                notes.append("there was no room for a lease, so this run held none")
        yield swept, notes


def _with_room(repository: Repository, going: Sequence[BackupMetadata], work: Callable[[], None]) -> bool:
    """Do what needs a little room; as long as there is none, remove SHA256SUMS of one more backup that goes.

    A run that is killed in between leaves backups that are whole but for those, and `check --repair` writes them again.
    """
    for backup in (None, *going):
        if backup is not None:
            repository.remove_checksums(backup.plan, backup.backup_id)
        try:
            work()
        except RepositoryFull:
            continue
        return True
    return False


def _explain_afterwards(repository: Repository, record: Expiry) -> list[str]:
    try:
        repository.record_expiry(record)
    except RepositoryUnavailable as exc:
        ids = ", ".join(link.backup_id for link in record.removed)
        raise Partial(
            f"plan {record.plan}: {ids} are removed, and there was no room for the record of it: {exc.message}",
            hint="`lastgood check` will miss them. Free more space.",
        ) from exc
    return ["there was no room for the record of what goes: it was written after the removal"]


def expiry(plan: BackupPlan, repository: Repository, decisions: list[Decision], now: datetime) -> Expiry | None:
    """Make the record of what is about to go; None where nothing goes."""
    going = [d for d in decisions if d.remove]
    if not going:
        return None
    return Expiry(
        plan=plan.name,
        expired_at=now,
        removed=tuple(repository.link_of(d.backup) for d in going),
        reasons={d.backup.backup_id: d.reason for d in going},
        head=repository.link_of(decisions[-1].backup),
    )


def _going(decisions: Sequence[Decision]) -> list[BackupMetadata]:
    return [d.backup for d in decisions if d.remove]


def _clock_notes(plan: BackupPlan, decisions: Sequence[Decision], now: datetime) -> list[str]:
    """Say that this machine's clock does not fit to the backups: what is kept by age depends on it."""
    backups = [d.backup for d in decisions]
    if not backups:
        return []
    newest = max(backup.timestamp for backup in backups)
    if newest - now > CLOCKS_DIFFER:
        return [f"the newest backup is of {newest:%Y-%m-%d %H:%M} UTC, which is still to come: is the clock right?"]
    if all(now - b.timestamp >= plan.retention.age_limit(b.backup_type) for b in backups):
        return [f"no backup since {newest:%Y-%m-%d %H:%M} UTC: are backups still made, and is the clock right?"]
    return []


def _result(
    plan: BackupPlan, decisions: list[Decision], swept: list[str], notes: list[str], dry_run: bool
) -> RetentionResult:
    return RetentionResult(
        plan=plan.name,
        dry_run=dry_run,
        decisions=[
            DecidedBackup(
                backup_id=d.backup.backup_id, remove=d.remove, reason=d.reason, size_stored=d.backup.size_stored
            )
            for d in decisions
        ],
        swept=swept,
        notes=notes,
    )
