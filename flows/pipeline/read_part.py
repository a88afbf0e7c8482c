"""Reading a part of live state: all of it, or with native change tracking only what may have changed."""

from __future__ import annotations

import time

from blocks.sources.reading import Reading, Unchanged, UnprovenLookup
from blocks.sources.view import Skipping, read_whole
from blocks.telemetry.numbers import Outcome, SourceReads
from blocks.telemetry.recorder import recorder
from flows.pipeline.attempt import BackupPart


def read_part(part: BackupPart) -> Reading:
    """Read a part from its source's view, and have that counted where the operation is recorded."""
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
    try:
        return _reading(part)
    except Exception as exc:
        exc.add_note(f"source {part.source} raised it when {part} was read")  # what is no error of ours does not say it
        raise


def _reading(part: BackupPart) -> Reading:
    if part.attempt.tracks_changes:
        return part.view.read(part.spec, part.bounds, part.known())
    if part.attempt.base is not None and isinstance(part.view, Skipping) and part.view.skips:
        return part.view.read(part.spec, part.bounds, UnprovenLookup(part.known()))
    return read_whole(part.view, part.spec, part.bounds)
