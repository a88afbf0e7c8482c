"""Segments and indexes as Parquet files.

The rows of a segment stand in the order of their `_key`s, in small row groups, and the file says with which `_key` each
of them begins: so one record is read without the others.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import DIGEST

ROW_GROUP_BYTES = 4 * 1024 * 1024
ROW_GROUP_ROWS = 8192
_INDEX_GROUP_ROWS = 1 << 17
FIRST_KEYS = "lastgood.first_keys"
"""Name of the metadata that has the least `_key` of each row group."""
KEY_BYTES = 64
"""What is kept of a `_key` that only bounds others."""
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


@dataclass(frozen=True)
class Grouping:
    """How the rows of a segment are divided into row groups.

    Attributes:
        rows: Rows of each group but the last.
        first_keys: What the file says of the least `_key` of each, as text.
    """

    rows: int
    first_keys: str

    @classmethod
    def of(cls, rows: pa.Table, keys: pa.LargeBinaryArray) -> Grouping:
        """Divide rows.

        Args:
            rows: A segment: `_key` (large_binary) and the canonical columns.
            keys: The `_key` of each row; ascending.
        """
        count = min(max(ROW_GROUP_BYTES // max(rows.nbytes // max(rows.num_rows, 1), 1), 1), ROW_GROUP_ROWS)
        return cls(count, pack_keys([keys[at].as_py() for at in range(0, len(keys), count)]))


def rows_to_parquet(rows: pa.Table, keys: pa.LargeBinaryArray, level: int) -> pa.Buffer:
    """Write rows as Parquet, each column in an encoding that suits its values.

    Args:
        rows: A segment: `_key` (large_binary) and the canonical columns.
        keys: The `_key` of each row; ascending.
        level: Level of zstd.
    """
    sink = pa.BufferOutputStream()
    write_parquet(rows, Grouping.of(rows, keys), level, sink)
    return sink.getvalue()


def write_parquet(rows: pa.Table, grouping: Grouping, level: int, sink: pa.NativeFile) -> None:
    """Write what `rows_to_parquet` returns to an open file."""
    width = {name: rows.column(name).nbytes // max(rows.num_rows, 1) for name in rows.column_names}
    encoding = {name: _encoding(rows.column(name), width[name]) for name in rows.column_names}
    _write(
        rows,
        sink,
        grouping.rows,
        {FIRST_KEYS: grouping.first_keys},
        compression_level=level,
        use_dictionary=[name for name, chosen in encoding.items() if chosen is None],
        column_encoding={name: chosen for name, chosen in encoding.items() if chosen is not None},
        write_statistics=False,
    )


def pack_keys(keys: Sequence[bytes]) -> str:
    """Write the beginnings of `_key`s as text: each behind its length in one byte, all of it in base64."""
    cut = (key[:KEY_BYTES] for key in keys)
    return base64.b64encode(b"".join(bytes((len(key),)) + key for key in cut)).decode()


def unpack_keys(text: str) -> list[bytes]:
    """Undo `pack_keys`.

    Raises:
        ValueError: It is not what that makes.
    """
    data, keys = base64.b64decode(text, validate=True), []
    while data:
        length = data[0]
        if length > KEY_BYTES or len(data) <= length:
            raise ValueError("the keys of row groups are cut off")
        keys.append(data[1 : length + 1])
        data = data[length + 1 :]
    return keys


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
        index: `_key` (large_binary), `_digest` (uint64, of which the upper half is kept) and `_deleted` (bool).
    """
    digests = pc.cast(pc.shift_right(index.column(DIGEST), pa.scalar(32, pa.uint64())), pa.uint32())
    sink = pa.BufferOutputStream()
    _write(
        index.set_column(index.column_names.index(DIGEST), DIGEST, digests),
        sink,
        _INDEX_GROUP_ROWS,
        {},
        compression_level=_INDEX_LEVEL,
        use_dictionary=False,
        column_encoding={"_key": "DELTA_BYTE_ARRAY", "_digest": "PLAIN", "_deleted": "RLE"},
        write_statistics=False,
    )
    return sink.getvalue()


def index_from_parquet(data: pa.Buffer | bytes, what: str) -> pa.Table:
    """Read an index back: `_key` (large_binary), `_digest` (uint64) and `_deleted` (bool).

    Raises:
        CorruptionDetected: It is not one; `what` names it.
    """
    index = from_parquet(data, what)
    if DIGEST in index.column_names and index.schema.field(DIGEST).type == pa.uint32():
        digests = pc.shift_left(index.column(DIGEST).cast(pa.uint64()), pa.scalar(32, pa.uint64()))
        index = index.set_column(index.column_names.index(DIGEST), DIGEST, digests)
    return index


def from_parquet(data: pa.Buffer | bytes, what: str) -> pa.Table:
    """Read a Parquet file back.

    Raises:
        CorruptionDetected: It is not one; `what` names it.
    """
    try:
        # not `read_table`: the threads of its scanner may outlive it, and abort the interpreter at its exit
        own = _copied(data)
        file = pq.ParquetFile(pa.BufferReader(own))
        if repeating := _repeating(file):
            rows = pq.ParquetFile(pa.BufferReader(own), read_dictionary=repeating).read().cast(file.schema_arrow)
        else:
            rows = file.read()
        return rows.replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as exc:
        raise CorruptionDetected(
            f"{what}: not a Parquet file that can be read: {exc}", hint="Restore an earlier backup."
        ) from exc


def _copied(data: pa.Buffer | bytes) -> pa.Buffer:
    """Copy bytes of Python's into memory of Arrow's own.

    A thread that reads may let go of them last, after who waits for it has gone on. It needs the interpreter for bytes
    of Python's, and while that ends it aborts the process.
    """
    given = np.frombuffer(data, np.uint8)
    own = pa.allocate_buffer(len(given))
    np.frombuffer(own, np.uint8)[:] = given
    return own


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
        if _repeats([group.column(n) for group in groups])
    ]


def _repeats(column: Sequence[pq.ColumnChunkMetaData]) -> bool:
    """Whether a column, given as its pieces, is written with dictionaries that pay."""
    size, count = sum(piece.total_uncompressed_size for piece in column), sum(piece.num_values for piece in column)
    return size <= _INDEX_BYTES * count and all("RLE_DICTIONARY" in piece.encodings for piece in column)


def _write(table: pa.Table, sink: pa.NativeFile, group_rows: int, metadata: dict[str, str], **options: object) -> None:
    with pq.ParquetWriter(sink, table.schema, compression="zstd", store_schema=True, **options) as writer:
        writer.write_table(table, row_group_size=group_rows)
        if metadata:
            writer.add_key_value_metadata(metadata)
