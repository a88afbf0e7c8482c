"""The backup flow: collect → normalize → diff → compress → encrypt → store for each part, then record, once."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.errors import BaseUnusable
from blocks.manifest import BackupMetadata, BackupType
from blocks.plan import BackupPlan, load_plan
from flows.engine import flow, stage_runner
from flows.job import BackupJob
from flows.line import Line, Outcome, Window, open_line
from flows.naming import named
from flows.opening import open_backup
from flows.progress import Progress
from flows.report import publish_backup
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
    made = make_backup(load_plan(plan), backup_type, tags or [], wait_seconds)
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
    with open_backup(plan, backup_type, tags, wait_seconds) as job, open_line() as line:
        try:
            stored = send_down(job, line, progress)
        except BaseUnusable as error:
            job.begin(backup_type, None, error.message, tags)
            stored = send_down(job, line, progress)
        made: BackupMetadata = line.submit(record, job, after=stored).result()
        return made


def send_down(job: BackupJob, line: Line, progress: Progress | None = None) -> list[Outcome]:
    """Send every part of the state down the stages, a window of parts at a time."""
    window = Window(job.parts(), done=job.done, progress=progress, give_up=job.give_up)
    for part in window:
        rows = line.submit(collect, part)
        normal = line.submit(normalize, part, rows)
        changes = line.submit(diff, part, normal)
        packed = line.submit(compress, part, changes)
        sealed = line.submit(encrypt, part, packed)
        window.follow(part, rows, normal, changes, packed, sealed, line.submit(store, part, sealed))
    return window.last
