"""Rows as COPY takes them: in its binary format where every type of a table has one here, as CSV elsewhere.

The CSV is written by Arrow; in it nothing is NULL and a quoted nothing is empty text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from blocks.errors import RestoreRefused
from blocks.rows.variant import Scalar, decode_variant, is_variant
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.overloaded import all_numbered
from blocks.sources.postgres.schema.tables import Column
from blocks.sources.postgres.write.binary import HEADER, TRAILER, encode, encoders

_ROWS = 1 << 15
"""Rows of one piece."""
_OPTIONS = csv.WriteOptions(include_header=False, quoting_style="needed")
_BINARY, _CSV = "binary", "csv"


def copy_rows(session: Session, table: str, columns: Sequence[Column], rows: pa.Table, freeze: bool = False) -> None:
    """Write columns of rows into a table (quoted, as a statement names it).

    Raises:
        RestoreRefused: The server took fewer than it was given.
    """
    if not columns:
        # rows without a column: all there is of them is their number
        made = session.execute(
            f"INSERT INTO {table} SELECT FROM pg_catalog.generate_series(1, {rows.num_rows})".encode()
        )
        check_count(table, rows.num_rows, made.rowcount)
        return
    taken = 0
    names = ", ".join(identifier(column.name) for column in columns)
    options = ", FREEZE" if freeze else ""
    rows = all_numbered(session, [column.read for column in columns], rows.select([c.name for c in columns]))
    pieces = _pieces(rows, columns)
    for form, of_form in groupby(pieces, itemgetter(0)):
        statement = f"COPY {table} ({names}) FROM STDIN (FORMAT {form}{options})"
        with session.cursor() as cursor:
            with cursor.copy(statement.encode()) as copy:
                if form == _BINARY:
                    copy.write(HEADER)
                for _, piece in of_form:
                    copy.write(piece)
                if form == _BINARY:
                    copy.write(TRAILER)
            taken += cursor.rowcount
    check_count(table, rows.num_rows, taken)


def check_count(table: str, given: int, taken: int) -> None:
    """Refuse where the server took another number of rows than it was given.

    Raises:
        RestoreRefused: It did.
    """
    if given != taken:
        raise RestoreRefused(
            f"{given} rows were given to {table}, and {taken} arrived there",
            hint="A rule, a trigger or a policy of the table may have held the others back.",
        )


def _pieces(rows: pa.Table, columns: Sequence[Column]) -> Iterator[tuple[str, memoryview]]:
    """Write rows piece by piece, each in the format that can hold it."""
    how = encoders(columns)
    for start in range(0, rows.num_rows, _ROWS):
        piece = rows.slice(start, _ROWS)
        encoded = encode(piece, how) if how is not None else None
        yield (_CSV, as_csv(piece)) if encoded is None else (_BINARY, encoded)


def as_csv(rows: pa.Table) -> memoryview:
    """Write rows as CSV.

    Args:
        rows: The rows to write, one column per column of the table, in its order.
    """
    sink = pa.BufferOutputStream()
    csv.write_csv(_printable(rows), sink, _OPTIONS)
    return memoryview(sink.getvalue())


def _printable(rows: pa.Table) -> pa.Table:
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if is_variant(field):
            columns.append(pa.array([_text(value) for value in decode_variant(column)], pa.large_string()))
        elif pa.types.is_large_binary(field.type) or pa.types.is_binary(field.type):
            columns.append(_hex(column.cast(pa.large_binary()).combine_chunks()))
        elif pa.types.is_null(field.type):
            columns.append(column.cast(pa.large_string()))
        else:
            columns.append(column)
    # by position, because the names of columns are of no use here and may be any
    return pa.Table.from_arrays(columns, names=[str(n) for n in range(len(columns))])


def _text(value: Scalar) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return f"\\x{value.hex()}" if isinstance(value, bytes | bytearray) else repr(value)


def _hex(column: pa.LargeBinaryArray) -> pa.LargeStringArray:
    r"""Write bytes as `\x` and two digits each."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.large_binary())
    _, offsets_buffer, data = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    digits = bytes(data[offsets[0] : offsets[-1]]).hex().encode() if data is not None else b""
    doubled = pa.py_buffer((offsets - offsets[0]) * 2)
    text = pa.LargeStringArray.from_buffers(len(column), doubled, pa.py_buffer(digits))
    kind = pa.large_string()
    written = pc.binary_join_element_wise(pa.scalar("\\x", kind), text, pa.scalar("", kind))
    return pc.if_else(column.is_valid(), written, None) if column.null_count else written
