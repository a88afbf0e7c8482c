"""Restore rows into an existing database, in one transaction of its own."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from threading import Lock, RLock

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.sqlite.build import belonging, check_described, check_folder, check_writable, insert_rows
from blocks.sources.sqlite.connect import open_reading, open_writing, translated
from blocks.sources.sqlite.rows import Rows, arrow_table, placeholder, quoted, quoted_list, value_from_json, write_rows
from blocks.sources.sqlite.schema import (
    Database,
    SchemaObject,
    create,
    in_building_order,
    read_objects,
    rehearse,
    restore_order,
)
from blocks.sources.sqlite.tables import shape_of, table_spec

_FULL_TEXT = re.compile(r"\bUSING\s+[\"'`\[]?fts[345]\b", re.IGNORECASE)
_CONTENT = re.compile(r"\bcontent\s*=\s*[\"'`\[]?([^\"'`\],)]+)", re.IGNORECASE)
_DOOMED = "temp.lastgood_doomed"


class MergeTarget:
    """A live database, written row by row in one transaction that nobody sees before its end.

    Triggers do not fire for restored rows and foreign keys are not acted on: rows come back as they were. A restored
    row replaces the live row of the same key; a rowid that only serves the order is given up where another row has it.

    Args:
        path: The database.
        scope: What is restored.
        timeout_seconds: How long to wait for locks.
    """

    def __init__(self, path: Path, scope: RestoreScope, timeout_seconds: float) -> None:
        self.notes: list[str] = []
        self._path, self._scope, self._timeout = path, scope, timeout_seconds
        self._database = Database.from_manifest(scope.definition)
        self._specs = {spec.name: spec for spec, _ in scope.collections}
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._before: tuple[SchemaObject, ...] = ()
        self._created: list[SchemaObject] = []

    def preflight(self) -> tuple[str, ...]:
        """Check the folder, the space, the lock, and that live tables are as they were when they were backed up."""
        check_folder(self._path, self._scope.size_bytes * 2)
        check_writable(self._path, self._timeout)
        with translated(self._path, "cannot read"):
            connection = open_reading(self._path, self._timeout)
            try:
                self._compare(connection)
                live = {thing.name for thing in read_objects(connection)}
            finally:
                connection.close()
        missing = self._missing(live)
        check_described(self._scope, live | {thing.name for thing in missing if thing.type == "table"})
        if problems := rehearse(missing):
            raise RestoreRefused(f"{self._path} cannot be completed: {' '.join(problems)}")
        return (
            f"Rows are written into {self._path} in one transaction.",
            *(f"Table {thing.name!r} is missing there and is created." for thing in missing if thing.type == "table"),
            *(f"Virtual table {name!r} is replaced as a whole." for name in self._virtual_tables()),
        )

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Put rows in the place of those with the same key."""
        with self._lock, translated(self._path, f"cannot write table {collection.name!r} of"):
            connection = self._begun()
            if self._emptied(collection.name):
                insert_rows(connection, collection, rows)
            else:
                _upsert(connection, collection, rows)
        return int(rows.num_rows)

    def commit(self) -> None:
        """Set counters, give the triggers back, commit."""
        with self._lock, translated(self._path, "cannot restore"):
            connection = self._begun()
            self._set_counters(connection)
            for thing in self._own_triggers():
                create(connection, thing)
            for thing in self._created:
                if thing.type != "table" or thing.virtual:
                    create(connection, thing)
            restore_order(connection, self._before)
            self._rebuild_full_text(connection)
            connection.execute("COMMIT")
            connection.close()

    def abort(self) -> None:
        """Roll back."""
        with self._lock:
            if self._connection is not None:
                # an open transaction is rolled back by closing
                self._connection.close()

    def _virtual_tables(self) -> list[str]:
        return [name for name, shadows in self._database.shadows.items() if self._specs.keys() & set(shadows)]

    def _emptied(self, table: str) -> bool:
        """Whether all live rows of a table go before its rows come."""
        shadow = any(table in self._database.shadows[name] for name in self._virtual_tables())
        whole = not self._scope.selection_of(table).narrows_keys
        return shadow or (self._scope.mode is RestoreMode.EXACT and whole)

    def _missing(self, live: set[str]) -> list[SchemaObject]:
        """Return what has to be created: missing tables with all that is theirs; missing views if all is restored."""
        wanted = belonging(self._database, set(self._specs))
        tables = {thing.name for thing in wanted if thing.type == "table"} - live
        views: set[str] = set()
        if self._scope.selection.everything:
            views = {thing.name for thing in self._database.objects if thing.type == "view"} - live
        owned = tables | views
        return [thing for thing in self._database.objects if thing.table in owned and thing.name not in live]

    def _compare(self, connection: sqlite3.Connection) -> None:
        live = {thing.name: thing for thing in read_objects(connection)}
        for name, spec in self._specs.items():
            if name not in live:
                continue
            if live[name].type != "table" or live[name].virtual:
                raise RestoreRefused(f"{name!r} of {self._path} is not the table it was")
            there, here = dict(table_spec(connection, name).columns), dict(spec.columns)
            if there != here:
                raise RestoreRefused(
                    f"table {name!r} of {self._path} has other columns than the backup: "
                    f"live {_listed(there)}, backup {_listed(here)}",
                    hint="Restore to another file with --to and copy what you need from there.",
                )
        (encoding,) = connection.execute("PRAGMA encoding").fetchone()
        if encoding != self._database.encoding:
            raise RestoreRefused(f"{self._path} is encoded in {encoding}, the backup in {self._database.encoding}")
        self._compare_virtual(live)

    def _compare_virtual(self, live: dict[str, SchemaObject]) -> None:
        statements = {thing.name: thing.sql for thing in self._database.objects if thing.virtual}
        for name in self._virtual_tables():
            shadows = self._database.shadows[name]
            narrowed = any(self._scope.selection_of(table).narrows_keys for table in shadows)
            if narrowed or not self._specs.keys() >= set(shadows):
                raise RestoreRefused(
                    f"virtual table {name!r} can only be restored as a whole, with {', '.join(shadows)}",
                    hint=f"Select the collections {name}_* without keys, or leave them out.",
                )
            if name in live and live[name].sql != statements.get(name):
                raise RestoreRefused(f"virtual table {name!r} of {self._path} is defined otherwise than in the backup")

    def _begun(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connection = open_writing(self._path, self._timeout)
            connection.execute("BEGIN IMMEDIATE")
            self._before = read_objects(connection)
            for thing in self._own_triggers():
                connection.execute(f"DROP TRIGGER {quoted(thing.name)}")
            self._created = in_building_order(self._missing({thing.name for thing in self._before}))
            for thing in self._created:
                if thing.type == "table" and not thing.virtual:
                    create(connection, thing)
            for spec in self._specs.values():
                self._clear(connection, spec)
        return self._connection

    def _own_triggers(self) -> list[SchemaObject]:
        return [thing for thing in self._before if thing.type == "trigger" and thing.table in self._specs]

    def _clear(self, connection: sqlite3.Connection, spec: CollectionSpec) -> None:
        if self._emptied(spec.name):
            connection.execute(f"DELETE FROM {quoted(spec.name)}")
        elif self._scope.mode is RestoreMode.EXACT:
            self._clear_selected(connection, spec)

    def _clear_selected(self, connection: sqlite3.Connection, spec: CollectionSpec) -> None:
        """Delete the live rows whose keys are selected; those that the backup holds come again."""
        locator = shape_of(spec).locator
        names = list(dict.fromkeys((*locator, *spec.label)))
        sql = f"SELECT {quoted_list(names)} FROM {quoted(spec.name)} ORDER BY {quoted_list(locator)}"
        connection.execute(f"CREATE TABLE {_DOOMED} ({quoted_list(locator)})")

        def statement(as_text: frozenset[int]) -> str:
            return f"INSERT INTO {_DOOMED} VALUES ({_marks(len(locator), as_text)})"

        for batch in Rows(connection, RLock(), sql).batches():
            doomed = self._scope.selection_of(spec.name).rows(arrow_table(names, [batch]), spec.label)
            write_rows(connection, statement, doomed.select(list(locator)))
        connection.execute(
            f"DELETE FROM {quoted(spec.name)} WHERE ({quoted_list(locator)}) IN (SELECT * FROM {_DOOMED})"
        )
        connection.execute(f"DROP TABLE {_DOOMED}")

    def _set_counters(self, connection: sqlite3.Connection) -> None:
        if not any(thing.name == "sqlite_sequence" for thing in read_objects(connection)):
            return
        for row in self._database.sequence:
            table, counter = map(value_from_json, row)
            if table not in self._specs:
                continue
            exact = isinstance(table, str) and self._emptied(table)
            live = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()[0]
            if exact or live is None or (isinstance(counter, int) and counter > live):
                connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
                connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, counter))

    def _rebuild_full_text(self, connection: sqlite3.Connection) -> None:
        """Index restored rows again: triggers did not, and an index from the backup knows nothing of later rows."""
        replaced = set(self._virtual_tables())
        for thing in read_objects(connection):
            if not (thing.virtual and thing.sql and _FULL_TEXT.search(thing.sql)):
                continue
            content = _CONTENT.search(thing.sql)
            if thing.name not in replaced and not (content and content[1].strip() in self._specs):
                continue
            name = quoted(thing.name)
            try:
                connection.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")
            except sqlite3.OperationalError as exc:
                self.notes.append(f"Virtual table {thing.name!r} keeps its index as it is: {exc}.")


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}".strip() for name, kind in columns.items())


def _marks(count: int, as_text: frozenset[int]) -> str:
    return ", ".join(placeholder(i + 1, i in as_text) for i in range(count))


def _upsert(connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> None:
    table, names = quoted(collection.name), rows.column_names
    rowid = shape_of(collection).rowid

    def delete(as_text: frozenset[int]) -> str:
        tests = (f"{quoted(name)} = {placeholder(i + 1, i in as_text)}" for i, name in enumerate(collection.key))
        return f"DELETE FROM {table} WHERE {' AND '.join(tests)}"

    def insert(as_text: frozenset[int]) -> str:
        marks = [placeholder(i + 1, i in as_text) for i in range(len(names))]
        if rowid is not None:
            at, mark = names.index(rowid), f"?{names.index(rowid) + 1}"
            free = f"NOT EXISTS (SELECT 1 FROM {table} WHERE {quoted(rowid)} = {mark})"
            marks[at] = f"(SELECT {mark} WHERE {free})"
        return f"INSERT INTO {table} ({quoted_list(names)}) VALUES ({', '.join(marks)})"

    try:
        write_rows(connection, delete, rows.select(list(collection.key)))
        write_rows(connection, insert, rows)
    except sqlite3.IntegrityError as exc:
        raise RestoreRefused(
            f"a restored row of table {collection.name!r} and a live one exclude each other: {exc}",
            hint="Restore with --mode exact, or change the live row first.",
        ) from exc
