"""Rows of SQLite to Arrow and back, each value with its storage class.

    Rows.batches()   cursor -> lists of tuples, a few MiB at a time, also where text is not UTF-8
    arrow_table()    batches -> Arrow, a column typed by what it really holds
    write_rows()     Arrow -> executemany

SQLite types values, not columns: a column whose values are of one storage class becomes a plain Arrow column, any
other becomes a variant (blocks/rows/variant.py). Python's `bytearray` stands for TEXT that is not UTF-8 throughout.
"""

from __future__ import annotations

import base64
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import RLock
from types import NoneType

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from blocks.errors import RestoreRefused, UnsupportedState
from blocks.rows.variant import Scalar, decode_variant, encode_variant, is_variant, to_variant, variant_field

Row = tuple[Scalar, ...]

BATCH_BYTES = 4 * 1024 * 1024
"""Arrow bytes that are held as Python objects at a time."""
BATCH_ROWS = 4096
_FIRST_BATCH_ROWS = 64
_PLAIN = {int: pa.int64(), float: pa.float64(), str: pa.large_string(), bytes: pa.large_binary()}
_EXACT_INTEGER = 2**53
"""Beyond this, JSON readers that know only doubles lose digits."""
BROKEN_TEXT_HINT = "Correct the text, or leave out the table with `exclude` or the rows with `on_unsupported: skip`."


def quoted(name: str) -> str:
    """Quote an identifier; the only place where names enter SQL text."""
    return '"' + name.replace('"', '""') + '"'


def quoted_list(names: Iterable[str]) -> str:
    """Quote several identifiers, joined by commas."""
    return ", ".join(quoted(name) for name in names)


def summed(terms: Sequence[str]) -> str:
    """Add up terms as a balanced tree; SQLite limits the depth of an expression to 1,000."""
    if len(terms) <= 2:
        return " + ".join(terms)
    half = len(terms) // 2
    return f"({summed(terms[:half])}) + ({summed(terms[half:])})"


def placeholder(number: int, as_text: bool) -> str:
    """Name a numbered parameter; bytes that are TEXT are cast, and `+` keeps the cast from lending its affinity."""
    return f"+CAST(?{number} AS TEXT)" if as_text else f"?{number}"


def value_to_json(value: Scalar) -> JsonValue:
    """Encode one value of SQLite so that every storage class survives JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytearray):
        return {"text": base64.b64encode(value).decode()}
    if isinstance(value, bytes):
        return {"blob": base64.b64encode(value).decode()}
    if isinstance(value, float):
        return {"float": value.hex()}
    return value if abs(value) <= _EXACT_INTEGER else {"int": str(value)}


def value_from_json(value: JsonValue) -> Scalar:
    """Decode what `value_to_json` made.

    Raises:
        RestoreRefused: It is nothing that `value_to_json` makes.
    """
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    match value:
        case {"text": str(text)}:
            return bytearray(base64.b64decode(text))
        case {"blob": str(text)}:
            return base64.b64decode(text)
        case {"float": str(text)}:
            return float.fromhex(text)
        case {"int": str(text)}:
            return int(text)
    raise RestoreRefused(f"the manifest holds {value!r} where a value of SQLite is expected")


def decoded(value: Scalar) -> Scalar:
    """Turn text that came as bytes into text, where it is UTF-8."""
    if not isinstance(value, bytearray):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _size_bytes(row: Row) -> int:
    return sum(len(value) if isinstance(value, str | bytes | bytearray) else 8 for value in row)


class Rows:
    """The rows of one query, which must be in a fixed order and without a LIMIT of its own.

    Args:
        connection: May be shared between threads; every use of it holds `lock`.
        lock: Guards the connection and its text factory.
        sql: The query, as SQL text.
        values: The parameters of the query.
    """

    def __init__(self, connection: sqlite3.Connection, lock: RLock, sql: str, values: Sequence[Scalar] = ()) -> None:
        self._connection, self._lock = connection, lock
        self._sql, self._values = sql, values

    def batches(self) -> Iterator[list[Row]]:
        """Yield the rows in lists of about BATCH_BYTES.

        Raises:
            UnsupportedState: Text of a UTF-16 database has no UTF-8 form.
            sqlite3.Error: The database cannot be read; the caller names it.
        """
        done = 0
        try:
            for rows in self._fetched(0, str):
                yield rows
                done += len(rows)
        except sqlite3.OperationalError:
            # The driver raises this where text is not UTF-8. Anything else that is wrong is raised again here.
            for rows in self._fetched(done, bytearray):
                yield [tuple(map(decoded, row)) for row in rows]

    def all(self) -> list[Row]:
        """Return all rows at once."""
        return list(itertools.chain.from_iterable(self.batches()))

    def _fetched(self, offset: int, text_factory: type[str] | type[bytearray]) -> Iterator[list[Row]]:
        if text_factory is bytearray:
            self._refuse_utf16()
        with self._lock:
            cursor = self._connection.execute(f"{self._sql} LIMIT -1 OFFSET {offset}", self._values)
        count = _FIRST_BATCH_ROWS
        while True:
            with self._lock:
                self._connection.text_factory = text_factory
                try:
                    rows: list[Row] = cursor.fetchmany(count)
                finally:
                    self._connection.text_factory = str
            if not rows:
                return
            sample = rows[:: max(1, len(rows) // 16)]
            width = max(1, sum(map(_size_bytes, sample)) // len(sample))
            yield rows
            # grows slowly, so that wide rows after narrow ones come in a small batch
            count = max(1, min(BATCH_ROWS, count * 4, BATCH_BYTES // width))

    def _refuse_utf16(self) -> None:
        with self._lock:
            (encoding,) = self._connection.execute("PRAGMA encoding").fetchone()
        if encoding != "UTF-8":
            raise UnsupportedState(
                f"the {encoding} database holds text with broken surrogates (found by: {self._sql})",
                hint=BROKEN_TEXT_HINT,
            )


def _chunk(values: Row) -> tuple[pa.Array, bool]:
    kinds = set(map(type, values))
    kinds.discard(NoneType)
    if not kinds:
        return pa.nulls(len(values)), False
    if len(kinds) == 1 and (plain := _PLAIN.get(next(iter(kinds)))):
        return pa.array(values, plain), False
    return encode_variant(values), True


def _column(name: str, chunks: list[tuple[pa.Array, bool]]) -> tuple[pa.Field, pa.ChunkedArray]:
    types = {array.type for array, variant in chunks if not variant and not pa.types.is_null(array.type)}
    if len(types) > 1 or any(variant for _, variant in chunks):
        arrays = [array if variant else to_variant(array) for array, variant in chunks]
        return variant_field(name), pa.chunked_array(arrays, pa.large_binary())
    kind = types.pop() if types else pa.null()
    arrays = [array if array.type == kind else pa.nulls(len(array), kind) for array, _ in chunks]
    return pa.field(name, kind), pa.chunked_array(arrays, kind)


def arrow_table(names: Sequence[str], batches: Iterable[list[Row]]) -> pa.Table:
    """Turn batches of rows into one Arrow table, each batch at once, so that few Python objects live at a time."""
    chunks: list[list[tuple[pa.Array, bool]]] = [[] for _ in names]
    for rows in batches:
        for column, values in zip(chunks, zip(*rows, strict=True), strict=True):
            column.append(_chunk(values))
    made = [_column(name, column) for name, column in zip(names, chunks, strict=True)]
    return pa.table([data for _, data in made], pa.schema([field for field, _ in made]))


def _values(field: pa.Field, column: pa.ChunkedArray) -> list[Scalar]:
    if is_variant(field):
        return decode_variant(column)
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int64())
    elif pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        column = pc.cast(column, pa.large_string())
    values: list[Scalar] = column.to_pylist()
    return values


def write_rows(connection: sqlite3.Connection, statement: Callable[[frozenset[int]], str], rows: pa.Table) -> None:
    """Run a statement once for each row, a few MiB of rows at a time.

    Args:
        connection: Where to; held by the caller.
        statement: Makes the SQL, given the positions of the columns whose bytes are TEXT that is not UTF-8.
        rows: The parameters of the statement, one row per execution: column 0 is `?1`.
    """
    for columns in _pieces(rows):
        odd = [i for i, column in enumerate(columns) if any(type(value) is bytearray for value in column)]
        if not odd:
            connection.executemany(statement(frozenset()), zip(*columns, strict=True))
            continue
        for row in zip(*columns, strict=True):
            as_text = frozenset(i for i in odd if type(row[i]) is bytearray)
            connection.execute(statement(as_text), row)


def scalar_rows(rows: pa.Table) -> Iterator[list[Row]]:
    """Yield Arrow rows as tuples of SQLite's values, in lists of a few MiB.

    Args:
        rows: Rows of a table, or some columns of them.
    """
    for columns in _pieces(rows):
        yield list(zip(*columns, strict=True))


def _pieces(rows: pa.Table) -> Iterator[list[list[Scalar]]]:
    """Yield the values of all columns, some rows at a time."""
    width = max(1, rows.nbytes // max(1, rows.num_rows))
    step = max(1, min(2 * BATCH_ROWS, BATCH_BYTES // width))
    for start in range(0, rows.num_rows, step):
        piece = rows.slice(start, step)
        yield [_values(field, piece.column(i)) for i, field in enumerate(piece.schema)]
