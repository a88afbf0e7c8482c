"""Stage 7: commit the manifest, last, and find a backup again."""

from __future__ import annotations

from datetime import datetime

from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from flows.pipeline.attempt import BackupAttempt
from flows.pipeline.chain import Chain
from flows.pipeline.emptied import check_emptied
from flows.pipeline.manifest import commit_attempt
from flows.pipeline.prefect_compat import RETRIED, task
from flows.pipeline.run_log import tally


@task(task_run_name="record {attempt}", tags=["stage"], **RETRIED)
def record(attempt: BackupAttempt) -> BackupMetadata:
    """Commit the backup: its manifest is created exclusively, and only now does the backup exist.

    Raises:
        SourceGone: A source held records in the last backup, and holds none now.
    """
    made = commit_attempt(attempt, check_emptied(attempt))
    tally(rows=made.rows, size_bytes=made.size_stored)
    return made


@task(task_run_name="find {backup}", tags=["stage"], **RETRIED)
def find(repository: Repository, plan: str, backup: str, at: datetime | None = None) -> Chain:
    """Find a backup by id, by `latest` or by time, and the chain it depends on."""
    chain = Chain(repository, repository.find(plan, backup, at))
    tally(backups=len(chain.backups))
    return chain
