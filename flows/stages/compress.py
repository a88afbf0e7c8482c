"""Stage 4: Arrow to Parquet with zstd, and back."""

from __future__ import annotations

import pyarrow as pa

from blocks.rows.changes import Changes
from blocks.rows.parquet import from_parquet, index_to_parquet
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import CompressedPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.packing import packed
from flows.pipeline.prefect_compat import PURE, task


@task(task_run_name="compress {part}", tags=["stage"], **PURE)
def compress(part: BackupPart, changes: OneShot[Changes | None]) -> OneShot[CompressedPart | None]:
    """Pack the changes of one part as two Parquet files: the rows, and the index of keys and digests."""
    what = changes.take()
    if what is None:
        return OneShot(None)
    # the index first: it is the smaller one, and is let go of before the rows are packed
    index, size_bytes = index_to_parquet(what.index), what.rows.nbytes
    upserts, tombstones, count, rows = what.upserts, what.tombstones, what.count, [what.rows]
    del what
    data = packed(rows, part.attempt.context.plan.compression.level)
    return OneShot(CompressedPart(data, index, upserts, tombstones, count, size_bytes))


@task(task_run_name="decompress {part}", tags=["stage"], **PURE)
def decompress(part: RestorePart, files: OneShot[list[pa.Buffer]]) -> OneShot[list[pa.Table]]:
    """Unpack a chain's Parquet files, oldest first."""
    return OneShot([from_parquet(data, f"data of {part}") for data in files.take()])
