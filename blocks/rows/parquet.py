"""Segments and indexes as Parquet files."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import CorruptionDetected

ROW_GROUP_BYTES = 16 * 1024 * 1024
ROW_GROUP_ROWS = 1 << 17
_WIDE_BYTES = 256
_INDEX_LEVEL = 1
_SAMPLE = 256
"""Values of a column that are looked at."""
_PAIRS = 64
"""Pairs of neighbours that are compared."""
_FEW, _MOST = 0.25, 0.9
"""The share of different ones up to which integers, and all others, are written with a dictionary."""
_INDEX_BYTES = 3
"""What a value takes in a column that repeats, its share of the dictionary included."""
_SHARED = 0.25
"""The share of bytes that texts have in common with those before them, from which only the rest is written."""


def rows_to_parquet(rows: pa.Table, level: int) -> pa.Buffer:
    """Write rows as Parquet, each column in an encoding that suits its values; statistics only where they are small.

    Args:
        rows: A segment: `_key` (large_binary) and the canonical columns.
        level: Level of zstd.
    """
    sink = pa.BufferOutputStream()
    write_parquet(rows, level, sink)
    return sink.getvalue()


def write_parquet(rows: pa.Table, level: int, sink: pa.NativeFile) -> None:
    """Write what `rows_to_parquet` returns to an open file."""
    width = {name: rows.column(name).nbytes // max(rows.num_rows, 1) for name in rows.column_names}
    per_row = max(sum(width.values()), 1)
    encoding = {name: _encoding(rows.column(name), width[name]) for name in rows.column_names}
    _write(
        rows,
        sink,
        compression_level=level,
        row_group_size=min(max(ROW_GROUP_BYTES // per_row, 1), ROW_GROUP_ROWS),
        use_dictionary=[name for name, chosen in encoding.items() if chosen is None],
        column_encoding={name: chosen for name, chosen in encoding.items() if chosen is not None},
        write_statistics=[name for name in rows.column_names if width[name] <= _WIDE_BYTES],
    )


def _encoding(column: pa.ChunkedArray, width: int) -> str | None:
    """Choose how a column is written, by its type and a sample of its values; None for a dictionary.

    A dictionary of values that hardly repeat costs time and room before Parquet gives it up.
    """
    kind = column.type
    if width > _WIDE_BYTES and (pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)):
        return "PLAIN"  # a sample would copy values that may be very long
    different = _share_of_different(column)
    if pa.types.is_int64(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_date(kind):
        return "DELTA_BINARY_PACKED" if different > _FEW else None
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return "PLAIN"
    if different <= _MOST and width <= _WIDE_BYTES:
        return None
    if pa.types.is_float64(kind):
        return "BYTE_STREAM_SPLIT"
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return "DELTA_BYTE_ARRAY" if _begins_like_the_one_before(column) else "PLAIN"
    return "PLAIN"


def _begins_like_the_one_before(column: pa.ChunkedArray) -> bool:
    """Whether values share much with those before them, as sorted keys do."""
    pairs = [column.slice(int(at), 2).to_pylist() for at in _spread(len(column) - 1, _PAIRS)]
    texts = [(one, other) for one, other in pairs if one is not None and other is not None]
    shared = sum(len(os.path.commonprefix(pair)) for pair in texts)  # noqa: RUF071  these are no paths
    return shared >= _SHARED * sum(len(other) for _, other in texts) > 0


def _share_of_different(column: pa.ChunkedArray) -> float:
    count = len(column)
    if not count:
        return 0.0
    # `take` would put all of its chunks together
    pieces = [piece for at in _spread(count, _SAMPLE) for piece in column.slice(int(at), 1).chunks if len(piece)]
    return len(pa.chunked_array(pieces, column.type).unique()) / len(pieces)


def _spread(count: int, most: int) -> npt.NDArray[np.int64]:
    """Choose places that are spread evenly."""
    return np.linspace(0, max(count - 1, 0), min(max(count, 0), most)).astype(np.int64)


def index_to_parquet(index: pa.Table) -> pa.Buffer:
    """Write an index; sorted keys are delta encoded, because an index can otherwise outweigh its data.

    Args:
        index: `_key` (large_binary), `_digest` (uint64) and `_deleted` (bool), sorted by `_key`.
    """
    sink = pa.BufferOutputStream()
    _write(
        index,
        sink,
        compression_level=_INDEX_LEVEL,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=False,
        column_encoding={"_key": "DELTA_BYTE_ARRAY", "_digest": "PLAIN", "_deleted": "RLE"},
        write_statistics=["_key"],
    )
    return sink.getvalue()


def from_parquet(data: pa.Buffer | bytes, what: str) -> pa.Table:
    """Read a Parquet file back.

    Raises:
        CorruptionDetected: It is not one; `what` names it.
    """
    try:
        # not `read_table`: the threads of its scanner may outlive it, and abort the interpreter at its exit
        file = pq.ParquetFile(pa.BufferReader(data))
        if not (repeating := _repeating(file)):
            return file.read()
        return pq.ParquetFile(pa.BufferReader(data), read_dictionary=repeating).read().cast(file.schema_arrow)
    except (pa.ArrowException, OSError) as exc:
        raise CorruptionDetected(
            f"{what}: not a Parquet file that can be read: {exc}", hint="Restore an earlier backup."
        ) from exc


def _repeating(file: pq.ParquetFile) -> list[str]:
    """Name texts that repeat so much that each takes few bytes: read as a dictionary, then spread, they come faster."""
    found = [
        n
        for n, field in enumerate(file.schema_arrow)
        if pa.types.is_large_string(field.type) or pa.types.is_large_binary(field.type)
    ]
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    return [
        groups[0].column(n).path_in_schema
        for n in (found if groups and len(file.schema_arrow) == file.metadata.num_columns else ())
        if all(_repeats(group.column(n)) for group in groups)
    ]


def _repeats(column: pq.ColumnChunkMetaData) -> bool:
    return "RLE_DICTIONARY" in column.encodings and column.total_uncompressed_size <= _INDEX_BYTES * column.num_values


def _write(table: pa.Table, sink: pa.NativeFile, **options: object) -> None:
    pq.write_table(table, sink, compression="zstd", store_schema=True, **options)
