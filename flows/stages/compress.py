"""Stage 4: Arrow to Parquet with zstd, and back."""

from __future__ import annotations

import pyarrow as pa

from flows.box import Box
from flows.engine import INSIDE, task
from flows.parcel import Changes, Packed, PartJob, RestorePart
from flows.parquet import from_parquet, index_to_parquet, rows_to_parquet


@task(task_run_name="compress {part}", tags=["stage"], **INSIDE)
def compress(part: PartJob, changes: Box[Changes | None]) -> Box[Packed | None]:
    """Pack the changes of one part as two Parquet files: the rows, and the index of keys and digests."""
    what = changes.take()
    if what is None:
        return Box(None)
    return Box(
        Packed(
            data=rows_to_parquet(what.rows, part.job.compression_level),
            index=index_to_parquet(what.index),
            upserts=what.upserts,
            tombstones=what.tombstones,
            size_bytes=what.rows.nbytes,
        )
    )


@task(task_run_name="decompress {part}", tags=["stage"], **INSIDE)
def decompress(part: RestorePart, packed: Box[list[pa.Buffer]]) -> Box[list[pa.Table]]:
    """Unpack a chain's Parquet files, oldest first."""
    return Box([from_parquet(data, f"data of {part}") for data in packed.take()])
