"""The backup flow: collect → normalize → diff → compress → encrypt → store for each part, then record, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from blocks.errors import BaseUnusable, LastgoodError
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.host.log_lines import working_on
from blocks.plan.plan import BackupPlan, load_plan
from blocks.records import BackupMetadata, BackupType
from blocks.repository.verdict import Verdict, recorded_standing
from blocks.verification import Verification
from flows.pipeline.attempt import BackupAttempt, BackupPart
from flows.pipeline.executor import BoundedWindow, Outcome, StageExecutor, open_executor
from flows.pipeline.one_shot import OneShot
from flows.pipeline.open_backup import open_backup
from flows.pipeline.prefect_compat import flow, stage_runner
from flows.pipeline.progress import Progress
from flows.pipeline.run_names import named
from flows.proving.failure import Unproved, failure, unproved
from flows.proving.suite_warnings import warn_of_suites
from flows.reporting.artifacts import publish_backup
from flows.reporting.hooked import hooked
from flows.reporting.lifecycle import Verb, operation
from flows.restoring.places import settle_places
from flows.stages.collect import collect
from flows.stages.compress import compress
from flows.stages.diff import diff
from flows.stages.encrypt import encrypt
from flows.stages.normalize import normalize
from flows.stages.record import record
from flows.stages.store import store
from flows.verify import make_verification, verify


@flow(
    name="backup", flow_run_name=named("{backup_type} backup of {plan}"), task_runner=stage_runner, persist_result=False
)
def backup(
    plan: str,
    backup_type: BackupType = BackupType.INCREMENTAL,
    tags: list[str] | None = None,
    wait_seconds: float = 0,
) -> BackupMetadata:
    """Back up all sources of a plan, or none: the manifest is committed last.

    Where the plan says `verify_after_backup`, the same run then verifies the backup, and fails where that fails.

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        backup_type: What to make; a type that needs a base and finds none becomes a full backup and says so.
        tags: Words to find the backup by.
        wait_seconds: How long to wait where another run holds the plan.
    """
    opened = load_plan(plan)
    made = make_backup(opened, backup_type, tags or [], wait_seconds)
    publish_backup(made, opened)
    # a run of its own inside of this one, with its stages and its artifacts
    verify_made(opened, made, lambda deep: verify(plan, made.backup_id, deep))
    return made


def backup_and_verify(
    plan: BackupPlan,
    backup_type: BackupType,
    tags: Sequence[str] = (),
    wait_seconds: float = 0,
    progress: Progress | None = None,
) -> BackupMetadata:
    """Make one backup, and verify it where the plan says so, without any Prefect server; the flow without Prefect.

    Raises:
        LastgoodError: As `make_backup` does; or the backup is there, and its verification failed (`made_unproved`).
    """
    made = make_backup(plan, backup_type, tags, wait_seconds, progress)

    def prove(deep: bool) -> None:
        if error := failure(make_verification(plan, made.backup_id, deep, progress)):
            raise error

    verify_made(plan, made, prove)
    return made


class MadeUnproved(Unproved):
    """A backup that is there, and whose verification in the same run found it bad.

    Attributes:
        made: The backup.
    """

    def __init__(self, made: BackupMetadata, result: Verification) -> None:
        super().__init__(result)
        self.made = made

    @property
    def verdict(self) -> Verdict:
        """What is known of the backup after its verification."""
        return Verdict(recorded_standing(self.result))


def made_unproved(error: LastgoodError) -> MadeUnproved | None:
    """Return the backup that was made although a run failed with an error; None where nothing is known of one."""
    return error.__cause__ if isinstance(error.__cause__, MadeUnproved) else None


def verify_made(plan: BackupPlan, made: BackupMetadata, prove: Callable[[bool], object]) -> None:
    """Verify a backup that was just made, where its plan says so.

    Args:
        plan: The plan.
        made: The backup; it stays, whatever is found.
        prove: Verifies it, deeply or not, and raises what is wrong.

    Raises:
        LastgoodError: What `prove` raises, saying that the backup is there.
    """
    if plan.verify_after_backup == "off":
        return
    try:
        prove(plan.verify_after_backup == "deep")
    except LastgoodError as exc:
        found = unproved(exc)
        exc.message = f"the backup {made.backup_id} is there, and its verification says: {exc.message}"
        exc.args = (exc.message,)
        raise exc from (MadeUnproved(made, found) if found is not None else exc.__cause__)


def make_backup(
    plan: BackupPlan,
    backup_type: BackupType,
    tags: Sequence[str] = (),
    wait_seconds: float = 0,
    progress: Progress | None = None,
) -> BackupMetadata:
    """Make one backup, inside a flow run or without any Prefect server."""
    remove_abandoned_scratch()
    with operation(plan, Verb.BACKUP, backup_type.value) as run, hooked(run) as hooks:
        plan = settle_places(plan)
        warn_of_suites(plan)
        with open_backup(plan, backup_type, tags, wait_seconds, progress, hooks) as attempt:
            run.result = made = _made(attempt, progress)
            run.backup_id = made.backup_id
            hooks.made(made)
        return made


def _made(attempt: BackupAttempt, progress: Progress | None) -> BackupMetadata:
    with open_executor() as executor:
        try:
            stored = run_backup_stages(attempt, executor, progress)
        except BaseUnusable as error:
            attempt = attempt.without_base(error.message)
            working_on(attempt.backup_id)
            stored = run_backup_stages(attempt, executor, progress)
        return commit(attempt, executor, stored)


def run_alone(attempt: BackupAttempt, executor: StageExecutor) -> BackupMetadata:
    """Make a backup that has no base."""
    return commit(attempt, executor, run_backup_stages(attempt, executor))


def commit(attempt: BackupAttempt, executor: StageExecutor, stored: list[Outcome]) -> BackupMetadata:
    """Commit a backup when all of its parts are stored."""
    made: BackupMetadata = executor.submit(record, attempt, after=stored).result()
    return made


def run_backup_stages(
    attempt: BackupAttempt, executor: StageExecutor, progress: Progress | None = None
) -> list[Outcome]:
    """Run every part of the state through the backup stages, a window of parts at a time.

    Small parts are stored together, when they are enough, or at the end.
    """
    parts: Iterable[BackupPart] = attempt.parts()
    last: list[Outcome] = []
    while parts:
        last += _run_parts(parts, attempt, executor, progress)
        parts = attempt.stale_parts()
    return last


def _run_parts(
    parts: Iterable[BackupPart], attempt: BackupAttempt, executor: StageExecutor, progress: Progress | None
) -> list[Outcome]:
    window = BoundedWindow(parts, done=attempt.done, progress=progress, give_up=attempt.give_up)
    for part in window:
        rows = executor.submit(collect, part)
        normal = executor.submit(normalize, part, rows)
        changes = executor.submit(diff, part, normal)
        packed = executor.submit(compress, part, changes)
        sealed = executor.submit(encrypt, part, packed)
        window.follow(part, rows, normal, changes, packed, sealed, executor.submit(store, part, sealed))
    if (rest := attempt.small.rest()) is not None:
        packed = executor.submit(compress, rest, OneShot(None))
        sealed = executor.submit(encrypt, rest, packed)
        stored = executor.submit(store, rest, sealed)
        try:
            # in order: the first failure is the cause
            packed.result(), sealed.result()
            attempt.done(None, stored.result())
        except BaseException as error:
            attempt.give_up(error, rest.parts[0])
            raise
        window.last.append(stored)
    return window.last
