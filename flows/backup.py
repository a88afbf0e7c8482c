"""The backup flow: collect → normalize → diff → compress → encrypt → store for each part, then record, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blocks.errors import BaseUnusable
from blocks.host.leftovers import remove_abandoned_scratch
from blocks.plan.plan import BackupPlan, load_plan
from blocks.records import BackupMetadata, BackupType
from flows.pipeline.attempt import BackupAttempt, BackupPart
from flows.pipeline.executor import BoundedWindow, Outcome, StageExecutor, open_executor
from flows.pipeline.one_shot import OneShot
from flows.pipeline.open_backup import open_backup
from flows.pipeline.prefect_compat import flow, stage_runner
from flows.pipeline.progress import Progress
from flows.pipeline.run_names import named
from flows.proving.suite_warnings import warn_of_suites
from flows.reporting.artifacts import publish_backup
from flows.reporting.run_lines import backup_lines, tell
from flows.restoring.places import settle_places
from flows.stages.collect import collect
from flows.stages.compress import compress
from flows.stages.diff import diff
from flows.stages.encrypt import encrypt
from flows.stages.normalize import normalize
from flows.stages.record import record
from flows.stages.store import store


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

    Args:
        plan: Name of a saved Backup Plan block, or path of a YAML plan.
        backup_type: What to make; a type that needs a base and finds none becomes a full backup and says so.
        tags: Words to find the backup by.
        wait_seconds: How long to wait where another run holds the plan.
    """
    loaded = load_plan(plan)
    made = make_backup(loaded, backup_type, tags or [], wait_seconds)
    tell(backup_lines(loaded, made))
    publish_backup(made)
    return made


def make_backup(
    plan: BackupPlan,
    backup_type: BackupType,
    tags: Sequence[str] = (),
    wait_seconds: float = 0,
    progress: Progress | None = None,
) -> BackupMetadata:
    """Make one backup, inside a flow run or without any Prefect server."""
    remove_abandoned_scratch()
    plan = settle_places(plan)
    warn_of_suites(plan)
    with open_backup(plan, backup_type, tags, wait_seconds) as attempt, open_executor() as executor:
        try:
            stored = run_backup_stages(attempt, executor, progress)
        except BaseUnusable as error:
            attempt = attempt.without_base(error.message)
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
