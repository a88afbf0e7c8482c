"""Stage 4: Arrow to Parquet with zstd, and back."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

from blocks.errors import CorruptionDetected
from flows.box import Box
from flows.line import INSIDE
from flows.parcel import Changes, Packed, PartJob, RestorePart

ROW_GROUP_BYTES = 16 * 1024 * 1024
ROW_GROUP_ROWS = 1 << 17
_WIDE_BYTES = 256
_INDEX_LEVEL = 1


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


def rows_to_parquet(rows: pa.Table, level: int) -> pa.Buffer:
    """Write rows as Parquet; statistics only where they are small, dictionaries only where they can pay."""
    width = {name: rows.column(name).nbytes // max(rows.num_rows, 1) for name in rows.column_names}
    per_row = max(sum(width.values()), 1)
    narrow = [name for name in rows.column_names if width[name] <= _WIDE_BYTES]
    return _write(
        rows,
        compression_level=level,
        row_group_size=min(max(ROW_GROUP_BYTES // per_row, 1), ROW_GROUP_ROWS),
        use_dictionary=narrow,
        write_statistics=narrow,
    )


def index_to_parquet(index: pa.Table) -> pa.Buffer:
    """Write an index; sorted keys are delta encoded, because an index can otherwise outweigh its data."""
    return _write(
        index,
        compression_level=_INDEX_LEVEL,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=False,
        column_encoding={"_key": "DELTA_BYTE_ARRAY", "_digest": "PLAIN", "_deleted": "RLE"},
        write_statistics=["_key"],
    )


def from_parquet(data: pa.Buffer | bytes, what: str) -> pa.Table:
    """Read a Parquet file back.

    Raises:
        CorruptionDetected: It is not one; `what` names it.
    """
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as exc:
        raise CorruptionDetected(
            f"{what}: not a Parquet file that can be read: {exc}", hint="Restore an earlier backup."
        ) from exc


def _write(table: pa.Table, **options: object) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=True, **options)
    return sink.getvalue()
