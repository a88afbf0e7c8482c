"""One consistent look at an SQLite database: a single read transaction that all parts are read in."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Literal

from pydantic import JsonValue

from blocks.errors import SourceUnavailable, UnsupportedState
from blocks.rows.variant import Scalar
from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, FullRead
from blocks.sources.sqlite.connect import translated
from blocks.sources.sqlite.creating import add_stand_in
from blocks.sources.sqlite.integrity import findings
from blocks.sources.sqlite.rows import (
    BROKEN_TEXT_HINT,
    Row,
    Rows,
    arrow_table,
    placeholder,
    quoted,
    quoted_list,
    summed,
    value_from_json,
    value_to_json,
)
from blocks.sources.sqlite.schema import Database, SchemaObject, read_database, read_objects
from blocks.sources.sqlite.survey import survey
from blocks.sources.sqlite.tables import shadow_tables, shape_of, table_spec
from blocks.sources.sqlite.utf16 import broken_text, is_utf16

_CHUNK_ROWS = 4096
"""Rows whose sizes are summed by one statement while a table is partitioned."""
_OCTET_LENGTH = (3, 43, 0)
_SMALL_CHUNK = 8
"""A chunk below this fraction of a part is not cut in itself."""


class SQLiteView:
    """One consistent look at a database.

    Args:
        connection: With its read transaction begun.
        path: Path of the database; for messages.
        token: Taken before the transaction began.
        included: Returns by its name whether a table is backed up.
        part_size_bytes: Size that parts are partitioned for, in bytes of Arrow data.
        integrity: Which of SQLite's own checks is run on the snapshot.
        skips: Whether what cannot be kept exactly is left out with a warning, instead of failing the backup.
    """

    def __init__(  # noqa: PLR0913  what a source says of itself
        self,
        connection: sqlite3.Connection,
        path: Path,
        token: str | None,
        included: Callable[[str], bool],
        part_size_bytes: int,
        *,
        integrity: Literal["quick", "full", "off"] = "off",
        skips: bool = False,
    ) -> None:
        self.taken_at = datetime.now(UTC)
        self.token = token
        self.system = f"SQLite {sqlite3.sqlite_version}, {path}"
        self._connection, self._lock, self._path = connection, RLock(), path
        self._part_size_bytes = part_size_bytes
        self._skips = skips
        self._utf16 = False
        with translated(path, "cannot read the schema of"):
            self._utf16 = is_utf16(connection)
            everything = self._objects()
            self._survey = survey(everything)
            for stand_in in self._survey.stand_ins:
                add_stand_in(connection, stand_in)
            objects, warnings = self._describe(everything, included)
            kept = {(thing.type, thing.name) for thing in objects}
            told = [flaw.told for flaw in self._survey.flaws if (flaw.thing.type, flaw.thing.name) in kept]
            warnings += [f"A restore cannot rebuild {each.name}: {each.reason}." for each in told]
            if integrity != "off":
                tables = [t.name for t in everything if t.type == "table" and not (t.internal or t.virtual)]
                warnings += findings(connection, integrity, tables, self._survey)
        self.warnings = tuple(warnings)

    def _describe(
        self, everything: tuple[SchemaObject, ...], included: Callable[[str], bool]
    ) -> tuple[list[SchemaObject], list[str]]:
        unkept = self._unkept_tables(everything, included) if self._skips else {}
        shadows, unknown = shadow_tables(self._connection, everything)
        owners = {table: owner for owner, tables in shadows.items() for table in tables}
        views = {thing.name for thing in everything if thing.type == "view"}
        objects = [
            thing
            for thing in everything
            if thing.table in views
            or thing.name.startswith("sqlite_stat")
            or thing.name == "sqlite_sequence"
            or (included(owners.get(thing.table, thing.table)) and thing.table not in unkept)
        ]
        kept = {thing.name for thing in objects}
        database = self._database(tuple(objects), {owner: tables for owner, tables in shadows.items() if owner in kept})
        self.definition: dict[str, JsonValue] = database.to_manifest()
        tables = [thing.name for thing in objects if thing.type == "table" and not thing.internal]
        rows_in = [thing.name for thing in objects if thing.type == "table" and not (thing.internal or thing.virtual)]
        self._specs = tuple(spec for name in rows_in if (spec := self._spec(name)) is not None)
        warnings = [
            f"Virtual table {name!r} is kept as its shadow tables only: its module is not installed here."
            for name in unknown
            if name in kept
        ]
        warnings += [f"Table {name!r} is left out: {reason}." for name, reason in unkept.items()]
        if not tables:
            warnings.append(f"No table of {self._path} is backed up.")
        return objects, warnings

    def _objects(self) -> tuple[SchemaObject, ...]:
        return read_objects(self._connection)

    def _database(self, objects: tuple[SchemaObject, ...], shadows: dict[str, tuple[str, ...]]) -> Database:
        return read_database(self._connection, objects, shadows)

    def _unkept_tables(self, everything: Iterable[SchemaObject], included: Callable[[str], bool]) -> dict[str, str]:
        """Name the tables whose rows cannot be told apart by anything that can be read, and why."""
        unkept: dict[str, str] = {}
        for thing in everything:
            if thing.type != "table" or thing.internal or thing.virtual or not included(thing.name):
                continue
            try:
                self._spec(thing.name)
            except UnsupportedState as exc:
                unkept[thing.name] = exc.message
        return unkept

    def _order_unknown(self, collection: CollectionSpec) -> bool:
        """Whether rows lie in an order that only the application knows: no range of them can be found."""
        flaws = self._survey.foreign(collection.name)
        return shape_of(collection).without_rowid and any(flaw.thing.type == "table" for flaw in flaws)

    def _spec(self, table: str) -> CollectionSpec | None:
        return table_spec(self._connection, table)

    def collections(self) -> Sequence[CollectionSpec]:
        """Return all tables, shadow tables of virtual ones included, in the order of the schema."""
        return self._specs

    def estimated_bytes(self) -> int | None:
        """Return the size of the database without its free pages; indexes and what is left out are in it, too."""
        with translated(self._path, "cannot measure"), self._lock:
            size, pages, free = (
                self._connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_size", "page_count", "freelist_count")
            )
        return int(size * (pages - free))

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of the rowid, or of the primary key of a WITHOUT ROWID table."""
        if self._order_unknown(collection):
            return [{"after": None, "upto": None}]
        with translated(self._path, f"cannot partition table {collection.name!r} of"):
            cuts = Cuts(self._part_size_bytes)
            if shape_of(collection).without_rowid:
                sql, values = _sizes(collection, where=self._narrowed(collection, ""))
                cuts.add_rows(Rows(self._connection, self._lock, sql, values).batches())
            else:
                self._measure_chunks(collection, cuts)
        return cuts.bounds()

    def _measure_chunks(self, collection: CollectionSpec, cuts: Cuts) -> None:
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
                if last is not None and end <= last:  # it would go round in circles
                    raise SourceUnavailable(
                        f"table {collection.name!r} of {self._path} is damaged: its rows are not in their order",
                        hint="Restore the database, or see what `PRAGMA integrity_check` says of it.",
                    )
                if not cuts.add_chunk(total, last):
                    cuts.add_rows([self._connection.execute(chunk, values).fetchall()])
            last = end

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether the last part, which takes the rows that are appended, has grown much beyond its size."""
        if self._order_unknown(collection):
            return False
        where, values = within(collection, bounds[-1])
        sql = f"SELECT count(*), sum({size_of_row(collection)}) FROM {quoted(collection.name)} {where}"
        with translated(self._path, f"cannot measure table {collection.name!r} of"), self._lock:
            rows, size_bytes = self._connection.execute(sql, values).fetchone()
        # a single row, however large, is a part of its own in any drawing
        return bool(rows > 1 and size_bytes > REPARTITION_FACTOR * self._part_size_bytes)

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> FullRead:
        """Read the rows of one part; `base` is of no use here, since SQLite does not track changes of rows."""
        names = [name for name, _ in collection.columns]
        order = locator_of(collection)
        where, values = within(collection, bounds)
        with translated(self._path, f"cannot read table {collection.name!r} of"):
            broken = self._count_broken(collection, where, values) if self._utf16 else 0
            where = self._narrowed(collection, where) if broken else where
            sql = f"SELECT {quoted_list(names)} FROM {quoted(collection.name)} {where} ORDER BY {quoted_list(order)}"
            rows = arrow_table(names, Rows(self._connection, self._lock, sql, values).batches())
        told = f"{broken} rows of table {collection.name!r} are left out: their text has broken surrogates."
        return FullRead(rows, warnings=(told,) if broken else ())

    def _count_broken(self, collection: CollectionSpec, where: str, values: list[Scalar]) -> int:
        """Count the rows of a part whose text cannot be read.

        Raises:
            UnsupportedState: There are some, and they are not to be left out.
        """
        broken = broken_text(name for name, _ in collection.columns)
        narrowed = f"{where} AND {broken}" if where else f"WHERE {broken}"
        sql = f"SELECT count(*) FROM {quoted(collection.name)} NOT INDEXED {narrowed}"
        with self._lock:
            (rows,) = self._connection.execute(sql, values).fetchone()
        if rows and not self._skips:
            raise UnsupportedState(
                f"{rows} rows of table {collection.name!r} of {self._path} hold text with broken surrogates",
                hint=BROKEN_TEXT_HINT,
            )
        return int(rows)

    def _narrowed(self, collection: CollectionSpec, where: str) -> str:
        """Add to a clause that rows have no broken text, where such rows are left out."""
        if not (self._utf16 and self._skips):
            return where
        sound = f"NOT ({broken_text(name for name, _ in collection.columns)})"
        return f"{where} AND {sound}" if where else f"WHERE {sound}"

    def finish(self) -> None:
        """Nothing to check: all parts were read in one transaction."""

    def close(self) -> None:
        """End the transaction."""
        with self._lock:
            self._connection.close()


def locator_of(collection: CollectionSpec) -> tuple[str, ...]:
    """Return the columns in whose order a table is read."""
    return shape_of(collection).locator


def within(collection: CollectionSpec, bounds: Bounds) -> tuple[str, list[Scalar]]:
    """Write the bounds of a part as a clause of SQL with its parameters."""
    columns = quoted_list(locator_of(collection))
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


def size_of_row(collection: CollectionSpec) -> str:
    """Write the bytes of a row as an expression of SQL."""
    locator = locator_of(collection)
    sized = [name for name, _ in collection.columns if locator != (name,) or len(collection.columns) == 1]
    return f"{8 * len(collection.columns)} + {summed([f'({_size_of(name)})' for name in sized])}"


def _sizes(collection: CollectionSpec, after: int | None = None, where: str = "") -> tuple[str, list[Scalar]]:
    locator, size = locator_of(collection), size_of_row(collection)
    columns = f"{quoted(locator[0])} AS position" if len(locator) == 1 else quoted_list(locator)
    where = f"WHERE {quoted(locator[0])} > ?" if after is not None else where
    sql = f"SELECT {columns}, {size} AS bytes FROM {quoted(collection.name)} {where} ORDER BY {quoted_list(locator)}"
    return sql, [] if after is None else [after]


class Cuts:
    """Fills parts greedily: a part ends before the row that would make it too large."""

    def __init__(self, size_bytes: int) -> None:
        self.made: list[Row] = []
        self._size_bytes, self._filled = size_bytes, 0
        self._last: Row = ()

    def bounds(self) -> list[Bounds]:
        """Return the parts between the cuts that were made."""
        edges = [None, *([value_to_json(value) for value in cut] for cut in self.made), None]
        return [{"after": after, "upto": upto} for after, upto in itertools.pairwise(edges)]

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
