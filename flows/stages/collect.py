"""Stage 1: read a part of live state, and write records to a target."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.comparing import LeavesOut
from blocks.sources.reading import FullRead, Reading, Unchanged, UnprovenLookup
from blocks.sources.target import Target
from blocks.sources.view import Skipping, read_whole
from blocks.telemetry.numbers import Outcome, SourceReads
from blocks.telemetry.recorder import recorder
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, RETRIED, task
from flows.pipeline.run_log import tally


@task(task_run_name="collect {part}", tags=["stage"], **RETRIED)
def collect(part: BackupPart) -> OneShot[Reading]:
    """Read one part from its source's view; with native change tracking, only what may have changed."""
    reading = _recorded(part)
    if isinstance(reading, FullRead):
        part.read_bytes = reading.rows.nbytes
    part.attempt.context.notes.warn(part.source, reading.warnings)
    if isinstance(reading, Unchanged):
        tally(unread=part.base_rows)
    else:
        tally(rows=reading.rows.num_rows, size_bytes=reading.rows.nbytes)
    return OneShot(reading)


def _recorded(part: BackupPart) -> Reading:
    if (recorded := recorder()) is None:
        return _read(part)
    started = time.monotonic()
    try:
        reading = _read(part)
    except BaseException:
        recorded.read_failed(part.source, time.monotonic() - started)
        raise
    rows, size = (0, 0) if isinstance(reading, Unchanged) else (reading.rows.num_rows, reading.rows.nbytes)
    recorded.read(SourceReads(part.source, Outcome.OK.value, 1, time.monotonic() - started, rows, size))
    return reading


def _read(part: BackupPart) -> Reading:
    if part.attempt.tracks_changes:
        return part.view.read(part.spec, part.bounds, part.known())
    if part.attempt.base is not None and isinstance(part.view, Skipping) and part.view.skips:
        return part.view.read(part.spec, part.bounds, UnprovenLookup(part.known()))
    return read_whole(part.view, part.spec, part.bounds)


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
