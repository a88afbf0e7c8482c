"""Stage 3: keep what changed against the base, and lay a chain's changes over its full.

Going down, only indexes are compared; going up, only rows are read.
"""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from blocks.errors import CorruptionDetected
from blocks.rows.changes import Changes, changes_by_updates
from blocks.rows.index import INDEX_ROW_BYTES
from blocks.rows.merge import as_it_was
from blocks.sources.part_changes import changes_since
from blocks.sources.reading import Unchanged, Updates
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.executor import retried
from flows.pipeline.messages import NormalizedPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task
from flows.pipeline.run_log import tally


@task(task_run_name="diff {part}", tags=["stage"], **PURE)
def diff(part: BackupPart, normal: OneShot[NormalizedPart]) -> OneShot[Changes | None]:
    """Compare one part with the base's index of it; None where nothing changed."""
    changes: Changes | None
    match normal.take().reading:
        case Unchanged():
            changes = None
        case Updates(rows) if rows.nbytes < part.base_rows * INDEX_ROW_BYTES:
            # to fetch the index would cost more than could be saved by leaving out rows that are as they were
            changes = changes_by_updates(rows, part.base_rows)
        case now:
            changes = changes_since(part.base(), now)
            changes = part.attempt.once.referring(part.collection_name, part.number, part.spec, now, changes)
    part.drop_base()  # also where only the source has looked into it
    if changes is None or changes.is_empty:
        return OneShot(None)
    tally(written=changes.upserts, deleted=changes.tombstones, size_bytes=changes.rows.nbytes)
    return OneShot(changes)


@task(task_run_name="merge {part}", tags=["stage"], **PURE)
def merge(part: RestorePart, tables: OneShot[list[pa.Table]]) -> OneShot[pa.Table]:
    """Lay the segments of one part's chain, oldest first, over each other: the part as it was.

    Raises:
        CorruptionDetected: A segment lacks the columns of its key, or refers to a value that is nowhere.
    """
    try:
        rows = as_it_was(tables.take(), part.spec.key)
        whole = retried(partial(part.filled, rows))  # which may have to fetch what other parts hold
        tally(rows=whole.num_rows, size_bytes=whole.nbytes)
        return OneShot(whole)
    except CorruptionDetected as exc:
        raise CorruptionDetected(f"{part}: {exc.message}", hint=exc.hint) from exc
