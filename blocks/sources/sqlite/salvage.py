"""A look at a damaged database that goes on past what cannot be read, and says what that is.

SQLite finds a row by walking down from the root page of its table. A damaged page hides the rows on it, and nothing
else: rows before it are read in order, and from a rowid beyond it the next readable page is found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from blocks.errors import SourceUnavailable, UnsupportedState
from blocks.rows.variant import Scalar
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, FullRead
from blocks.sources.sqlite.connect import error_family, is_damage, open_reading, open_salvaging
from blocks.sources.sqlite.rows import Row, Rows, arrow_table, decoded, quoted, quoted_list, value_from_json
from blocks.sources.sqlite.schema import Database, SchemaObject, read_database
from blocks.sources.sqlite.tables import holds_null, shape_of, table_spec
from blocks.sources.sqlite.utf16 import failing_at_broken_text, is_broken_text
from blocks.sources.sqlite.view import Cuts, SQLiteView, locator_of, size_of_row, within
from blocks.sources.view import Unread

_ATTEMPTS = 3
_MOST_GAPS = 1000
"""After so many the rest of a part is given up: each costs a few hundred looks."""
_UNREADABLE = (sqlite3.DatabaseError, SourceUnavailable, UnsupportedState)
_LAST = 2**63 - 1


def opened_for_salvage(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """Open a database, tolerantly where that is needed, with its read transaction begun.

    Raises:
        sqlite3.Error: Nothing of it can be read.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return open_reading(path, timeout_seconds)
        except sqlite3.DatabaseError as exc:
            passing = error_family(exc) in ("SQLITE_IOERR", "SQLITE_BUSY")
            if passing and attempt + 1 < _ATTEMPTS:
                continue
            if not is_damage(exc):
                raise
            break
    return open_salvaging(path, timeout_seconds)


class SalvageView(SQLiteView):
    """One consistent look at a database of which a part may be unreadable."""

    @property
    def unread(self) -> Sequence[Unread]:
        """What could not be read so far; complete once all parts were read."""
        with self._lock:
            return tuple(self._unread)

    def lost(self, reason: object, collection: str | None = None, key: str | None = None) -> None:
        """Remember what could not be read, once."""
        with self._lock:
            each = Unread(str(reason), collection, key)
            if each not in self._unread:
                self._unread.append(each)

    def _objects(self) -> tuple[SchemaObject, ...]:
        self._unread: list[Unread] = []
        found: list[SchemaObject] = []
        cursor = self._connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")
        try:
            for kind, name, table, sql in cursor:
                try:
                    found.append(SchemaObject(type=kind, name=name, table=table, sql=sql))
                except ValidationError:
                    self.lost(f"the schema has an entry that says nothing ({name!r})")
        except sqlite3.DatabaseError as exc:
            self.lost(f"the schema cannot be read to its end: {exc}")
        return tuple(found)

    def _database(self, objects: tuple[SchemaObject, ...], shadows: dict[str, tuple[str, ...]]) -> Database:
        own = {t.name for t in objects if t.type == "table" and t.name.startswith("sqlite_")}
        unreadable = set()
        for name in own:
            try:
                Rows(self._connection, self._lock, f"SELECT * FROM {quoted(name)} ORDER BY rowid").all()
            except _UNREADABLE as exc:
                unreadable.add(name)
                if name == "sqlite_sequence":  # statistics can be rebuilt, counters cannot
                    self.lost(f"the counters of AUTOINCREMENT cannot be read: {exc}")
        return read_database(self._connection, objects, shadows, frozenset(unreadable))

    def _spec(self, table: str) -> CollectionSpec | None:
        try:
            return table_spec(self._connection, table, _may_hold_null)
        except (*_UNREADABLE, TypeError) as exc:  # what the schema does not know gives no row
            self.lost(exc, table)
            return None

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ever; around what cannot be read, by looking at each row."""
        try:
            return super().partition(collection)
        except (SourceUnavailable, UnsupportedState):
            if shape_of(collection).without_rowid:
                return [{"after": None, "upto": None}]
        cuts = Cuts(self._part_size_bytes)
        around = _Around(self, collection, size_of_row(collection), {"after": None, "upto": None})
        for rows in around.batches(tell=False):
            cuts.add_rows([[(position, size) for size, position in rows]])
        return cuts.bounds()

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> FullRead:
        """Read the rows of one part that can be read."""
        try:
            return super().read(collection, bounds, base)
        except (SourceUnavailable, UnsupportedState):
            names = [name for name, _ in collection.columns]
            if shape_of(collection).without_rowid:
                return FullRead(arrow_table(names, self._both_ends(collection, bounds)))
            around = _Around(self, collection, quoted_list(names), bounds)
            width = len(names)
            return FullRead(arrow_table(names, ([row[:width] for row in rows] for rows in around.batches(tell=True))))

    def _both_ends(self, collection: CollectionSpec, bounds: Bounds) -> Iterator[list[Row]]:
        """Yield rows from the beginning up to the first damage, and from the end down to the last."""
        columns = quoted_list(name for name, _ in collection.columns)
        where, values = within(collection, bounds)
        if sound := self.sound(collection):
            where = f"{where} AND {sound}" if where else f"WHERE {sound}"
        for direction in ("", " DESC"):
            order = ", ".join(f"{quoted(name)}{direction}" for name in locator_of(collection))
            sql = f"SELECT {columns} FROM {quoted(collection.name)} NOT INDEXED {where} ORDER BY {order}"
            rows: list[Row] = []
            try:
                for row in self.singly(sql, values):
                    rows.append(row)
            except _UNREADABLE as exc:
                rows += self.one_more(f"{sql} LIMIT 1 OFFSET {len(rows)}", values)
                if not direction:
                    self.lost(f"rows in its middle cannot be read: {exc}", collection.name)
                if rows:
                    yield rows
            else:
                if rows:
                    yield rows
                return

    def sound(self, collection: CollectionSpec) -> str:
        """Write a condition that fails at a row whose text would come as another one; empty where none can be."""
        return failing_at_broken_text(name for name, _ in collection.columns) if self._utf16 else ""

    def one_more(self, sql: str, values: Sequence[Scalar]) -> list[Row]:
        """Return a last row before the damage: the driver looks one ahead, and loses it."""
        try:
            return list(self.singly(sql, values))
        except _UNREADABLE:
            return []

    def singly(self, sql: str, values: Sequence[Scalar]) -> Iterator[Row]:
        """Yield rows one by one, up to the last but one before a damaged one.

        Raises:
            sqlite3.DatabaseError: The next one cannot be read.
        """
        with self._lock:
            (encoding,) = self._connection.execute("PRAGMA encoding").fetchone()
            factory: type = bytearray if encoding == "UTF-8" else str
            cursor = self._connection.execute(sql, values)
        while True:
            with self._lock:
                self._connection.text_factory = factory
                try:
                    row = cursor.fetchone()
                finally:
                    self._connection.text_factory = str
            if row is None:
                return
            yield tuple(map(decoded, row))

    def bulk(self, sql: str, values: Sequence[Scalar]) -> Iterator[list[Row]]:
        """Yield rows as fast as they come."""
        return Rows(self._connection, self._lock, sql, values).batches()


class _Around:
    """Reads a range of a table with rowids, past what cannot be read.

    Args:
        view: Reads the rows.
        collection: The table as a collection.
        columns: What to read, as SQL; the rowid is put after it.
        bounds: The bounds of the part.
    """

    def __init__(self, view: SalvageView, collection: CollectionSpec, columns: str, bounds: Bounds) -> None:
        self._view, self._collection = view, collection
        (self._rowid,) = locator_of(collection)
        self._table = quoted(collection.name)
        self._columns = f"{columns}, {quoted(self._rowid)}"
        self._after, self._upto = _edge(bounds.get("after")), _edge(bounds.get("upto"))

    def batches(self, *, tell: bool) -> Iterator[list[Row]]:
        """Yield batches of rows; `tell` is whether gaps are reported to the view."""
        at = self._after
        for _ in range(_MOST_GAPS):
            try:
                for rows in self._view.bulk(*self._query(self._columns, at)):
                    at = _integer(rows[-1][-1])
                    yield rows
            except _UNREADABLE:
                pass
            else:
                return
            rows = []
            reason: Exception | str | None = None
            try:
                for row in self._view.singly(*self._query(self._columns, at)):
                    rows.append(row)
                    at = _integer(row[-1])
            except _UNREADABLE as exc:
                reason = "its text has broken surrogates" if is_broken_text(exc) else exc
            if reason is not None:
                sql, values = self._query(self._columns, at)
                rows += self._view.one_more(f"{sql} LIMIT 1", values)
                at = _integer(rows[-1][-1]) if rows else at
            if rows:
                yield rows
            if reason is None:
                return
            beyond = self._skip(at, reason, tell)
            if beyond is None:
                return
            at = beyond
        if tell:
            self._view.lost(f"rows after rowid {at} were given up: too many cannot be read", self._collection.name)

    def _skip(self, at: int | None, reason: Exception | str, tell: bool) -> int | None:
        """Return a rowid after which the next readable row comes; None where there is none."""
        name = self._collection.name
        try:
            bad = self._next(at)
        except _UNREADABLE:
            bad = None
        else:
            if bad is None:
                return None
            if tell:
                key = str(bad) if self._collection.label == (self._rowid,) else None
                self._view.lost(f"the row with rowid {bad} cannot be read: {reason}", name, key)
            return bad
        found = self._beyond(at)
        if tell:
            start = "the first one" if at is None else f"after rowid {at}"
            end = "the last one" if found is None else f"before rowid {found}"
            self._view.lost(f"rows from {start} to {end} cannot be read: {reason}", name)
        return None if found is None else found - 1

    def _beyond(self, at: int | None) -> int | None:
        """Find the next rowid that can be read."""
        bad = start = -1 if at is None else at
        step = 1
        while not self._works(start + step):
            bad = start + step
            step = max(step + 1, step * 5 // 4)
            if start + step > _LAST:
                return None
        good = start + step
        while good - bad > 1:
            middle = (good + bad) // 2
            if self._works(middle):
                good = middle
            else:
                bad = middle
        return self._next(good)

    def _works(self, at: int) -> bool:
        try:
            self._next(at)
        except _UNREADABLE:
            return False
        return True

    def _next(self, at: int | None) -> int | None:
        sql, values = self._query(quoted(self._rowid), at)
        for (found,) in self._view.singly(f"{sql} LIMIT 1", values):
            return _integer(found)
        return None

    def _query(self, columns: str, at: int | None) -> tuple[str, list[Scalar]]:
        tests, values = [], []
        for edge, comparison in ((at, ">"), (self._upto, "<=")):
            if edge is not None:
                tests.append(f"{quoted(self._rowid)} {comparison} ?")
                values.append(edge)
        if columns == self._columns and (sound := self._view.sound(self._collection)):
            tests.append(sound)
        where = f"WHERE {' AND '.join(tests)}" if tests else ""
        sql = f"SELECT {columns} FROM {self._table} NOT INDEXED {where} ORDER BY {quoted(self._rowid)}"
        return sql, list(values)


def _may_hold_null(connection: sqlite3.Connection, name: str, columns: tuple[str, ...]) -> bool:
    """Ask with an index that is damaged, a table that is damaged, or neither; True where that is not known."""
    for by_index in (True, False):
        try:
            return holds_null(connection, name, columns, by_index=by_index)
        except sqlite3.DatabaseError:
            continue
    return True


def _integer(value: Scalar) -> int:
    assert isinstance(value, int), value
    return value


def _edge(edge: object) -> int | None:
    return _integer(value_from_json(edge[0])) if isinstance(edge, list) else None
