"""Stage 7: commit the manifest, last, and find a backup again."""

from __future__ import annotations

from datetime import datetime

from blocks.manifest import BackupMetadata
from blocks.repository import Repository
from flows.chain import Chain
from flows.engine import OUTSIDE, task
from flows.job import BackupJob


@task(task_run_name="record {job}", tags=["stage"], **OUTSIDE)
def record(job: BackupJob) -> BackupMetadata:
    """Commit the backup: its manifest is created exclusively, and only now does the backup exist."""
    return job.commit()


@task(task_run_name="find {backup}", tags=["stage"], **OUTSIDE)
def find(repository: Repository, plan: str, backup: str, at: datetime | None = None) -> Chain:
    """Find a backup by id, by `latest` or by time, and the chain it stands on."""
    return Chain(repository, repository.find(plan, backup, at))
