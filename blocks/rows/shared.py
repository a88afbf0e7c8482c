"""Small parts that share a blob: each by itself would be more frame than rows.

The rows of each part are an Arrow IPC stream, since their columns differ; the streams stand one after another, and are
compressed together. The indexes of all are one table.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pyarrow as pa

from blocks.errors import CorruptionDetected
from blocks.rows.parquet import index_to_parquet

MOST_BYTES = 64 * 1024 * 1024
"""A shared blob that unpacks to more is refused: it would be an attack on memory."""
_LEVEL = 9
_SIZE = struct.Struct(">Q")

Range = tuple[int, int]


def join_rows(tables: Sequence[pa.Table]) -> tuple[bytes, list[Range]]:
    """Pack the rows of several parts.

    Returns:
        Their size before compression in 8 bytes, then a zstd frame; and for each table its offset and its length in
        what the frame unpacks to.
    """
    sink = pa.BufferOutputStream()
    ranges = []
    for table in tables:
        start = sink.tell()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())  # each chunk would have a frame of its own
        ranges.append((start, sink.tell() - start))
    plain = sink.getvalue()
    if len(plain) > MOST_BYTES:  # it would not be read back
        raise ValueError(f"{len(tables)} parts take {len(plain)} bytes together")
    return _SIZE.pack(len(plain)) + pa.Codec("zstd", _LEVEL).compress(plain, asbytes=True), ranges


def unpack(payload: bytes, what: str) -> pa.Buffer:
    """Undo the compression of `join_rows`; `what` names the blob.

    Raises:
        CorruptionDetected: It is no such blob.
    """
    try:
        (size,) = _SIZE.unpack_from(payload)
        if size <= MOST_BYTES:
            return pa.Codec("zstd").decompress(memoryview(payload)[_SIZE.size :], decompressed_size=size)
    except (struct.error, pa.ArrowException, OSError) as exc:
        raise CorruptionDetected(f"{what}: it cannot be unpacked: {exc}", hint=_HINT) from exc
    raise CorruptionDetected(f"{what}: it says that it unpacks to {size} bytes", hint=_HINT)


def rows_at(plain: pa.Buffer, place: Range, what: str) -> pa.Table:
    """Return the rows of one part; `what` names it.

    Raises:
        CorruptionDetected: There are none at that place.
    """
    start, length = place
    if start + length > plain.size:
        wrong = f"bytes {start} to {start + length} are outside of its {plain.size} bytes"
        raise CorruptionDetected(f"{what}: {wrong}", hint=_HINT)
    try:
        rows = pa.ipc.open_stream(plain.slice(start, length)).read_all()
        rows.validate(full=True)  # unlike a reader of Parquet, this one believes what it is given
    except (ValueError, pa.ArrowException, OSError) as exc:
        raise CorruptionDetected(f"{what}: its rows cannot be read: {exc}", hint=_HINT) from exc
    return rows


def join_indexes(indexes: Sequence[pa.Table]) -> tuple[pa.Buffer, list[Range]]:
    """Pack the indexes of several parts as one; return also the first row and the number of rows of each."""
    ranges, start = [], 0
    for index in indexes:
        ranges.append((start, index.num_rows))
        start += index.num_rows
    return index_to_parquet(pa.concat_tables(indexes)), ranges


def index_at(index: pa.Table, place: Range, what: str) -> pa.Table:
    """Return the index of one part; `what` names it.

    Raises:
        CorruptionDetected: There is none at that place.
    """
    start, count = place
    if start + count > index.num_rows:
        raise CorruptionDetected(f"{what}: rows {start} to {start + count} are not in the index", hint=_HINT)
    return index.slice(start, count)


_HINT = "Restore an earlier backup; `lastgood check --read-data` reports what else is damaged."
