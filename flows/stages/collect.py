"""Stage 1: read a part of live state, and write records to a target."""

from __future__ import annotations

import pyarrow as pa

from blocks.sources.base import Reading, Target
from flows.box import Box
from flows.engine import INSIDE, OUTSIDE, task
from flows.parcel import PartJob, RestorePart


@task(task_run_name="collect {part}", tags=["stage"], **OUTSIDE)
def collect(part: PartJob) -> Box[Reading]:
    """Read one part from its source's view; with native change tracking, only what may have changed."""
    known = part.known() if part.job.tracks_changes else None
    reading = part.view.read(part.spec, part.bounds, known)
    part.job.note(part, reading.warnings)
    return Box(reading)


@task(task_run_name="apply {part}", tags=["stage"], **INSIDE)
def apply(part: RestorePart, target: Target, rows: Box[pa.Table]) -> int:
    """Write the records of one part to the target.

    Not retried: a target's writes are one transaction, which an error may already have ended.
    """
    restored = rows.take()
    return target.apply(part.spec, restored) if restored.num_rows else 0
