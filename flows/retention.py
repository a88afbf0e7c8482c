"""The retention flow: decide, record what goes and why, remove, and collect the garbage of unfinished backups.

It also works where not a byte is left. The lease and the record of what goes need a little room then, which is made of
what can be made again: leftovers, and SHA256SUMS of backups that are about to go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.errors import CorruptionDetected, ObjectUnreadable, Partial, RepositoryFull, RepositoryUnavailable
from blocks.plan.plan import BackupPlan, load_plan
from blocks.plan.retention import Decision
from blocks.records import Acceptance, BackupMetadata, BackupStatus, Expiry
from blocks.repository.block import Repository
from blocks.repository.stock import Stock
from blocks.repository.verdict import Verdict
from flows.pipeline.doubts import Doubts, doubts_of_retention, settled
from flows.pipeline.executor import StageExecutor, open_executor
from flows.pipeline.prefect_compat import RETRIED, flow, stage_runner, task
from flows.pipeline.results import DecidedBackup, RetentionResult
from flows.pipeline.run_log import tally
from flows.pipeline.run_names import named
from flows.reading.report_run import publish_plan
from flows.reporting.artifacts import publish_retention
from flows.reporting.hooked import hooked
from flows.reporting.lifecycle import Verb, operation
from flows.reporting.run_lines import retention_lines, tell


@flow(name="retention", flow_run_name=named("retention of {plan}"), task_runner=stage_runner, persist_result=False)
def retention(plan: str, dry_run: bool = False, accept_clock: bool = False, adopt: bool = False) -> RetentionResult:
    """Remove the backups that a plan's policy no longer keeps; never one that a kept backup depends on.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        dry_run: Only report what would go, and why.
        accept_clock: Go on although what is on record, or the storage, speaks against this machine's clock.
        adopt: Take backups of other sources (those of before a move or an upgrade, say) for the plan's own.
    """
    loaded = load_plan(plan)
    result = apply_retention(loaded, dry_run, accept_clock=accept_clock, adopt=adopt)
    if dry_run:
        tell(retention_lines(loaded, result))
    publish_retention(result)
    publish_plan(loaded)
    return result


@dataclass(frozen=True)
class _Run:
    """One retention run.

    Attributes:
        plan: The plan, read and resolved.
        repository: Its repository, opened.
        now: This machine's time.
        accept_clock: Whether a person said that it is right.
        adopt: Whether a person said that all backups of the plan are its own.
    """

    plan: BackupPlan
    repository: Repository
    now: datetime
    accept_clock: bool
    adopt: bool

    def doubts(self, decisions: Sequence[Decision], storage: datetime | None = None) -> Doubts:
        """Find out what speaks against removing backups.

        Args:
            decisions: On all backups of the plan.
            storage: What the storage's clock said when the run began; None where it was not asked.
        """
        return doubts_of_retention(self.plan, self.repository, decisions, self.now, storage)

    def settle(self, decisions: Sequence[Decision], storage: datetime | None) -> Doubts:
        """Do the same, and refuse where a person has not accepted it.

        Raises:
            NotConfirmed: Nobody has.
        """
        found = self.doubts(decisions, storage)
        found.refuse(self.plan.name, accept_clock=self.accept_clock, adopt=self.adopt)
        return found


def apply_retention(
    plan: BackupPlan,
    dry_run: bool = False,
    now: datetime | None = None,
    *,
    accept_clock: bool = False,
    adopt: bool = False,
) -> RetentionResult:
    """Apply a plan's retention policy, inside a flow run or without any Prefect server.

    Args:
        plan: The plan, read and resolved.
        dry_run: Only report what would go, and why.
        now: What this machine's clock says; it is read where this is None.
        accept_clock: Whether the clock is right although something speaks against it.
        adopt: Whether all backups of the plan are its own although they are of other sources.

    Raises:
        CorruptionDetected: A manifest cannot be read, or the newest backup that this machine has seen is gone without
            a record. Then nothing is removed, since what is not seen may depend on any other backup.
        NotConfirmed: The clock, or the backups, are in doubt, and nobody accepted that. Nothing was removed.
        RepositoryLocked: Another run holds the plan.
        RepositoryUnavailable: The storage failed or refused. Then nothing is removed by what is not known of backups.
        HookFailed: A hook before it failed; nothing was removed.
        Partial: Some objects could not be removed, or the removal could not be recorded, or a hook after it failed.
    """
    now = now or datetime.now(UTC)
    if dry_run:
        run = _Run(plan, plan.repository.unlock(plan.encryption), now, accept_clock, adopt)
        with open_executor() as executor:
            decisions = executor.submit(decide, plan, run.repository, now).result()
        return _result(plan, decisions, [], run.doubts(decisions).refusals, dry_run)
    with operation(plan, Verb.RETENTION) as told, hooked(told) as hooks:
        run = _Run(plan, plan.repository.unlock(plan.encryption), now, accept_clock, adopt)
        with open_executor() as executor, _held(run) as (storage, swept, notes), hooks.around_verb():
            told.result = _remove(run, executor, storage, swept, notes)
        return told.result


def _remove(
    run: _Run, executor: StageExecutor, storage: datetime | None, swept: list[str], notes: list[str]
) -> RetentionResult:
    plan, repository, now = run.plan, run.repository, run.now
    decided = executor.submit(decide, plan, repository, now)
    decisions: list[Decision] = decided.result()
    doubts = run.settle(decisions, storage)
    record = expiry(plan, repository, decisions, now, doubts.acceptance)
    explained = executor.submit(explain, repository, decisions, record, after=[decided])
    removed = executor.submit(remove, plan, repository, decisions, after=[explained])
    try:
        removed.result()
    finally:
        if not explained.result() and record is not None:
            notes += _explain_afterwards(repository, record)
    cleaned = executor.submit(sweep, plan, repository, now, after=[removed])
    swept = [*swept, *cleaned.result()]
    return _result(plan, decisions, swept, [*notes, *doubts.sentences], dry_run=False)


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
    tally(backups=len(survey.backups))
    known = verdicts(repository, survey.backups)
    return plan.retention.decide(survey.backups, now, known, settled(repository, plan.name, survey.backups))


def verdicts(repository: Repository, backups: Sequence[BackupMetadata]) -> dict[str, Verdict | None]:
    """Return what is known of backups: None where objects or bases of one are not there, or a record does not open.

    Raises:
        RepositoryUnavailable: The storage failed or refused.
    """
    if not backups:
        return {}
    stock = repository.stock(backups[0].plan)
    found = repository.verdicts(backups[0].plan, backups)
    return {backup.backup_id: _known(repository, backup, found[backup.backup_id], stock) for backup in backups}


def _known(repository: Repository, backup: BackupMetadata, verdict: Verdict, stock: Stock) -> Verdict | None:
    try:
        if verdict.status is None:
            return None
        if verdict.status is BackupStatus.CORRUPTED and verdict.bad_base is None:
            return verdict
        repository.chain(backup, stock=stock)
        return None if repository.missing(backup, stock) else verdict
    except (CorruptionDetected, ObjectUnreadable):
        # a storage that fails or refuses says nothing of the backup: then nothing is decided
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
    going = _going(decisions)
    repository.remove(plan.name, [backup.backup_id for backup in reversed(going)])
    tally(backups=len(going), size_bytes=sum(backup.size_stored for backup in going))


@task(task_run_name="sweep", tags=["retention"], **RETRIED)
def sweep(plan: BackupPlan, repository: Repository, now: datetime) -> list[str]:
    """Remove what unfinished backups left, after the grace time."""
    swept = repository.collect_garbage(plan.name, plan.retention.sweep_grace, now)
    tally(leftovers=len(swept))
    return swept


@contextmanager
def _held(run: _Run) -> Iterator[tuple[datetime | None, list[str], list[str]]]:
    """Hold the plan's lease; where there is no room for one, make it.

    Yields:
        When it was taken by the clock of the storage, the garbage that was removed for it, and notes.
    """
    plan, repository = run.plan, run.repository
    storage: list[datetime | None] = []
    with ExitStack() as stack:

        def take() -> None:
            storage.append(repository.storage_time(stack.enter_context(repository.lease(plan.name, "retention"))))

        swept: list[str] = []
        notes: list[str] = []
        try:
            take()
        except RepositoryFull:
            decisions = decide.fn(plan, repository, run.now)
            run.settle(decisions, None)
            swept = repository.make_room(plan.name, plan.retention.sweep_grace, run.now)
            if not _with_room(repository, _going(decisions), take):
                notes.append("there was no room for a lease, so this run held none")
        yield (storage[0] if storage else None), swept, notes


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


def expiry(
    plan: BackupPlan, repository: Repository, decisions: list[Decision], now: datetime, said: Acceptance | None = None
) -> Expiry | None:
    """Make the record of what is about to go, and of what a person accepted; None where there is neither."""
    going = [d for d in decisions if d.remove]
    if not going and said is None:
        return None
    return Expiry(
        plan=plan.name,
        expired_at=now,
        removed=tuple(repository.link_of(d.backup) for d in going),
        reasons={d.backup.backup_id: d.reason for d in going},
        head=repository.link_of(decisions[-1].backup) if decisions else None,
        accepted=said,
    )


def _going(decisions: Sequence[Decision]) -> list[BackupMetadata]:
    return [d.backup for d in decisions if d.remove]


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
