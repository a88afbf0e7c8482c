"""The rows of a tree as people read them: one row for each file, folder and link, and the content of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.rows import FILE, KINDS, plain_rows

COLUMNS = (
    ("path", "text"),
    ("kind", "text"),
    ("size", "integer"),
    ("modified", "timestamp with time zone"),
    ("mode", "text"),
    ("uid", "integer"),
    ("gid", "integer"),
    ("target", "text"),
    ("mtime_ns", "integer"),
)
"""What a row of `entries` holds: `mode` in base 8; `mtime_ns` says exactly, in nanoseconds since 1970, what `modified`
says to the microsecond; `target` is that of a symbolic link, and of a file with several names the first of them."""

_SCHEMA = pa.schema(
    [
        ("path", pa.large_string()),
        ("kind", pa.large_string()),
        ("size", pa.int64()),
        ("modified", pa.timestamp("us", "UTC")),
        ("mode", pa.large_string()),
        ("uid", pa.int64()),
        ("gid", pa.int64()),
        ("target", pa.large_string()),
        ("mtime_ns", pa.int64()),
    ]
)


def entries(rows: pa.Table) -> pa.Table:
    """Return the entries of a tree, without content.

    Args:
        rows: Stored rows, with the columns of `SCHEMA` (rows.py); earlier versions lack some.

    Returns:
        The columns of `COLUMNS`.
    """
    if not rows.num_columns:
        return _SCHEMA.empty_table()
    rows = rows.filter(pc.equal(rows.column("offset"), -1))
    plain = plain_rows(rows)
    times = plain.column("mtime_ns")
    modes = [None if mode is None else f"{mode:04o}" for mode in plain.column("mode").to_pylist()]
    columns = {
        "path": _text(plain.column("path")),
        "modified": pc.divide(times, 1000).cast(pa.timestamp("us", "UTC")),
        "mode": pa.array(modes, pa.large_string()),
        "target": _text(plain.column("target")),
    }
    found = [columns.get(name, plain.column(name) if name in plain.column_names else None) for name in _SCHEMA.names]
    return pa.Table.from_arrays(found, schema=_SCHEMA)


def content(tables: Iterable[pa.Table]) -> Iterator[bytes]:
    """Yield the content of files, one after the other, each from its beginning to its end; holes are zeros.

    Args:
        tables: Stored rows of the files, in the order of their keys; the columns of `SCHEMA` (rows.py).
    """
    size = at = 0
    for rows in tables:
        plain = rows.select(["offset", "kind", "size"])
        told = zip(*(column.to_pylist() for column in plain.columns), rows.column("data"), strict=True)
        for offset, kind, length, data in told:
            if offset == -1:
                yield from _zeros(size - at)
                size, at = (length or 0) if kind == KINDS[FILE] else 0, 0
            elif offset % CHUNK_BYTES == 0 and data.is_valid:
                yield from _zeros(offset - at)
                piece = data.as_py()[: max(size - offset, 0)]
                yield piece
                at = offset + len(piece)
    yield from _zeros(size - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield bytes(min(count, CHUNK_BYTES))
        count -= CHUNK_BYTES


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Write paths as they are shown, and as `--key` takes them: bytes that are no UTF-8 as `\xff`."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = [None if path is None else path.decode("utf-8", "backslashreplace") for path in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.large_string())])
