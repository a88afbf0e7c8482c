"""Stage 1: read a part of live state, and write records to a target."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.comparing import LeavesOut
from blocks.sources.reading import FullRead, Reading, Unchanged
from blocks.sources.target import Target
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, RETRIED, task
from flows.pipeline.read_part import read_part
from flows.pipeline.run_log import tally


@task(task_run_name="collect {part}", tags=["stage"], **RETRIED)
def collect(part: BackupPart) -> OneShot[Reading]:
    """Read one part from its source's view; with native change tracking, only what may have changed."""
    reading = read_part(part)
    if isinstance(reading, FullRead):
        part.read_bytes = reading.rows.nbytes
    part.attempt.context.notes.warn(part.source, reading.warnings)
    if isinstance(reading, Unchanged):
        tally(unread=part.base_rows)
    else:
        tally(rows=reading.rows.num_rows, size_bytes=reading.rows.nbytes)
    return OneShot(reading)


@task(task_run_name="apply {part}", tags=["stage"], **PURE)
def apply(part: RestorePart, target: Target, rows: OneShot[pa.Table]) -> int:
    """Write the records of one part to the target.

    Not retried: a target's writes are one transaction, which an error may already have ended.
    """
    restored = rows.take()
    if not restored.num_rows:
        return 0
    applied = target.apply(part.spec, restored)
    if applied == restored.num_rows and isinstance(target, LeavesOut):  # else it has counted what it took
        applied -= pc.sum(target.left_out(part.spec, restored)).as_py() or 0
    tally(rows=applied, size_bytes=restored.nbytes)
    return applied
