"""Stage 2: canonical types, a key and a digest for each row, sorted by key, and back."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from blocks.errors import CorruptionDetected, UnsupportedState
from blocks.rows.normalize import from_normal, to_normal
from blocks.sources.reading import Reading, Unchanged
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import NormalizedPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task
from flows.pipeline.run_log import tally


@task(task_run_name="normalize {part}", tags=["stage"], **PURE)
def normalize(part: BackupPart, reading: OneShot[Reading]) -> OneShot[NormalizedPart]:
    """Give the rows of one part their canonical form, keys and digests, in key order."""
    what = reading.take()
    if isinstance(what, Unchanged):
        return OneShot(NormalizedPart(what))
    selected = part.selection.rows(what.rows, part.spec.label) if part.selection else what.rows
    try:
        rows = to_normal(selected, part.spec.key, part.digest)
    except UnsupportedState as exc:
        raise UnsupportedState(f"{part}: {exc.message}", hint=exc.hint) from exc
    tally(rows=rows.num_rows, size_bytes=rows.nbytes)
    return OneShot(NormalizedPart(replace(what, rows=rows)))


@task(task_run_name="denormalize {part}", tags=["stage"], **PURE)
def denormalize(part: RestorePart, rows: OneShot[pa.Table]) -> OneShot[pa.Table]:
    """Give canonical rows the names their source knows, narrowed to what was asked for.

    Raises:
        CorruptionDetected: They are not as many as the manifest counts.
    """
    restored = from_normal(rows.take())
    if part.wanted is None and restored.num_rows != part.part.rows:
        raise CorruptionDetected(
            f"{part}: its chain holds {restored.num_rows} rows, the manifest counts {part.part.rows}",
            hint="Restore a backup that does not depend on this one.",
        )
    narrowed = part.narrowed(restored)
    tally(rows=narrowed.num_rows, size_bytes=narrowed.nbytes)
    return OneShot(narrowed)
