"""Segments and indexes as Parquet files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import CorruptionDetected

ROW_GROUP_BYTES = 16 * 1024 * 1024
ROW_GROUP_ROWS = 1 << 17
_WIDE_BYTES = 256
_INDEX_LEVEL = 1


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
        # not `read_table`: the threads of its scanner may outlive it, and abort the interpreter at its exit
        return pq.ParquetFile(pa.BufferReader(data)).read()
    except (pa.ArrowException, OSError) as exc:
        raise CorruptionDetected(
            f"{what}: not a Parquet file that can be read: {exc}", hint="Restore an earlier backup."
        ) from exc


def _write(table: pa.Table, **options: object) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=True, **options)
    return sink.getvalue()
