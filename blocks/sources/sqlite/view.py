"""One consistent look at an SQLite database: a single read transaction that all parts are read in."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from pydantic import JsonValue

from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.sqlite.connect import translated
from blocks.sources.sqlite.rows import (
    Row,
    Rows,
    arrow_table,
    placeholder,
    quoted,
    quoted_list,
    value_from_json,
    value_to_json,
)
from blocks.sources.sqlite.schema import SchemaObject, read_database, read_objects, rehearse
from blocks.sources.sqlite.tables import shadow_tables, shape_of, table_spec
from blocks.variant import Scalar

_CHUNK_ROWS = 4096
"""Rows whose sizes are summed by one statement while parts are drawn."""
_OCTET_LENGTH = (3, 43, 0)
_SMALL_CHUNK = 8
"""A chunk below this fraction of a part is not cut in itself."""


class SQLiteView:
    """One consistent look at a database.

    Args:
        connection: With its read transaction begun.
        path: For messages.
        token: Taken before the transaction began.
        included: Tells by its name whether a table is backed up.
        part_size_bytes: Arrow bytes to draw parts for.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        token: str | None,
        included: Callable[[str], bool],
        part_size_bytes: int,
    ) -> None:
        self.taken_at = datetime.now(UTC)
        self.token = token
        self.system = f"SQLite {sqlite3.sqlite_version}, {path}"
        self._connection, self._lock, self._path = connection, RLock(), path
        self._part_size_bytes = part_size_bytes
        with translated(path, "cannot read the schema of"):
            objects, warnings = self._describe(included)
        self.warnings = (*warnings, *rehearse(objects))

    def _describe(self, included: Callable[[str], bool]) -> tuple[list[SchemaObject], list[str]]:
        everything = read_objects(self._connection)
        shadows, unknown = shadow_tables(self._connection, everything)
        owners = {table: owner for owner, tables in shadows.items() for table in tables}
        views = {thing.name for thing in everything if thing.type == "view"}
        objects = [
            thing
            for thing in everything
            if thing.table in views
            or thing.name.startswith("sqlite_stat")
            or thing.name == "sqlite_sequence"
            or included(owners.get(thing.table, thing.table))
        ]
        kept = {thing.name for thing in objects}
        database = read_database(
            self._connection,
            tuple(objects),
            {owner: tables for owner, tables in shadows.items() if owner in kept},
        )
        self.definition: dict[str, JsonValue] = database.to_manifest()
        tables = [thing.name for thing in objects if thing.type == "table" and not thing.internal]
        self._specs = tuple(
            table_spec(self._connection, thing.name)
            for thing in objects
            if thing.type == "table" and not thing.internal and not thing.virtual
        )
        warnings = [
            f"Virtual table {name!r} is kept as its shadow tables only: its module is not installed here."
            for name in unknown
            if name in kept
        ]
        if not tables:
            warnings.append(f"No table of {self._path} is backed up.")
        return objects, warnings

    def collections(self) -> Sequence[CollectionSpec]:
        """Return all tables, shadow tables of virtual ones included, in the order of the schema."""
        return self._specs

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of the rowid, or of the primary key of a WITHOUT ROWID table."""
        with translated(self._path, f"cannot draw the parts of table {collection.name!r} of"):
            cuts = _Cuts(self._part_size_bytes)
            if shape_of(collection).without_rowid:
                cuts.add_rows(Rows(self._connection, self._lock, *_sizes(collection)).batches())
            else:
                self._measure_chunks(collection, cuts)
        edges = [None, *([value_to_json(value) for value in cut] for cut in cuts.made), None]
        return [{"after": after, "upto": upto} for after, upto in itertools.pairwise(edges)]

    def _measure_chunks(self, collection: CollectionSpec, cuts: _Cuts) -> None:
        last: int | None = None
        while True:
            sizes, values = _sizes(collection, last)
            chunk = f"{sizes} LIMIT {_CHUNK_ROWS}"
            with self._lock:
                end, total = self._connection.execute(
                    f"SELECT max(position), sum(bytes) FROM ({chunk})", values
                ).fetchone()
                if end is None:
                    return
                if not cuts.add_chunk(total, last):
                    cuts.add_rows([self._connection.execute(chunk, values).fetchall()])
            last = end

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether the last part, which takes the rows that are appended, has grown much beyond its size."""
        where, values = _within(collection, bounds[-1])
        sql = f"SELECT count(*), sum({_size(collection)}) FROM {quoted(collection.name)} {where}"
        with translated(self._path, f"cannot measure table {collection.name!r} of"), self._lock:
            rows, size_bytes = self._connection.execute(sql, values).fetchone()
        # a single row, however large, is a part of its own in any drawing
        return bool(rows > 1 and size_bytes > OUTGROWN * self._part_size_bytes)

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the rows of one part; `known` is of no use here, since SQLite does not track changes of rows."""
        names = [name for name, _ in collection.columns]
        order = _locator(collection)
        where, values = _within(collection, bounds)
        sql = f"SELECT {quoted_list(names)} FROM {quoted(collection.name)} {where} ORDER BY {quoted_list(order)}"
        with translated(self._path, f"cannot read table {collection.name!r} of"):
            return Reading(arrow_table(names, Rows(self._connection, self._lock, sql, values).batches()))

    def finish(self) -> None:
        """Nothing to check: all parts were read in one transaction."""

    def close(self) -> None:
        """End the transaction."""
        with self._lock:
            self._connection.close()


def _locator(collection: CollectionSpec) -> tuple[str, ...]:
    return shape_of(collection).locator


def _within(collection: CollectionSpec, bounds: Bounds) -> tuple[str, list[Scalar]]:
    columns = quoted_list(_locator(collection))
    tests: list[str] = []
    values: list[Scalar] = []
    for edge, comparison in (("after", ">"), ("upto", "<=")):
        at = bounds.get(edge)
        if not isinstance(at, list):
            continue
        marks = []
        for value in map(value_from_json, at):
            values.append(value)
            marks.append(placeholder(len(values), isinstance(value, bytearray)))
        tests.append(f"({columns}) {comparison} ({', '.join(marks)})")
    return (f"WHERE {' AND '.join(tests)}" if tests else ""), values


def _size_of(column: str) -> str:
    name = quoted(column)
    text = f"octet_length({name})" if sqlite3.sqlite_version_info >= _OCTET_LENGTH else f"length(CAST({name} AS BLOB))"
    return f"CASE typeof({name}) WHEN 'text' THEN {text} WHEN 'blob' THEN length({name}) ELSE 0 END"


def _summed(terms: Sequence[str]) -> str:
    """Add up terms as a balanced tree; SQLite limits the depth of an expression to 1,000."""
    if len(terms) <= 2:
        return " + ".join(terms)
    half = len(terms) // 2
    return f"({_summed(terms[:half])}) + ({_summed(terms[half:])})"


def _size(collection: CollectionSpec) -> str:
    """Write the bytes of a row as an expression of SQL."""
    locator = _locator(collection)
    sized = [name for name, _ in collection.columns if locator != (name,) or len(collection.columns) == 1]
    return f"{8 * len(collection.columns)} + {_summed([f'({_size_of(name)})' for name in sized])}"


def _sizes(collection: CollectionSpec, after: int | None = None) -> tuple[str, list[Scalar]]:
    locator, size = _locator(collection), _size(collection)
    columns = f"{quoted(locator[0])} AS position" if len(locator) == 1 else quoted_list(locator)
    where = f"WHERE {quoted(locator[0])} > ?" if after is not None else ""
    sql = f"SELECT {columns}, {size} AS bytes FROM {quoted(collection.name)} {where} ORDER BY {quoted_list(locator)}"
    return sql, [] if after is None else [after]


class _Cuts:
    """Fills parts greedily: a part ends before the row that would make it too large."""

    def __init__(self, size_bytes: int) -> None:
        self.made: list[Row] = []
        self._size_bytes, self._filled = size_bytes, 0
        self._last: Row = ()

    def add_chunk(self, total: int, before: int | None) -> bool:
        """Add a run of rows by its sum; False where it has to be looked at row by row."""
        if self._filled + total > self._size_bytes:
            if total * _SMALL_CHUNK > self._size_bytes or before is None:
                self._last = () if before is None else (before,)
                return False
            self.made.append((before,))
            self._filled = 0
        self._filled += total
        return True

    def add_rows(self, batches: Iterable[list[Row]]) -> None:
        """Add rows one by one: the position, then the size in bytes."""
        for rows in batches:
            for *position, size in rows:
                assert isinstance(size, int)
                if self._filled and self._filled + size > self._size_bytes:
                    self.made.append(self._last)
                    self._filled = 0
                self._filled += size
                self._last = tuple(position)
