"""Restore rows into an existing database, and leave alone what is not restored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import RLock

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.checks import check_described, rehearse_rows
from blocks.sources.sqlite.connect import translated
from blocks.sources.sqlite.counters import drop_counters, go_on_counting
from blocks.sources.sqlite.creating import create
from blocks.sources.sqlite.fulltext import rebuild_full_text
from blocks.sources.sqlite.live import LiveTarget
from blocks.sources.sqlite.rows import Rows, arrow_table, quoted, quoted_list, write_rows
from blocks.sources.sqlite.schema import (
    SchemaObject,
    belonging,
    fold,
    forget_virtual,
    read_objects,
    restore_order,
)
from blocks.sources.sqlite.tables import shadow_tables, shape_of, table_spec
from blocks.sources.sqlite.unkeyed import UnkeyedRows, is_unkeyed
from blocks.sources.sqlite.write import (
    count_rows,
    delete_rows,
    examine_references,
    excluding,
    insert_rows,
    marks,
    put_rows,
)
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope

_COUNTING = "SELECT 1 FROM sqlite_schema WHERE name != 'sqlite_sequence' AND sql LIKE '%autoincrement%'"
_FOREIGN_HINT = (
    "Only the application can write such rows in place: restore to another file with --to, or with --keep-going all "
    "other tables."
)
_DOOMED = "temp.lastgood_doomed"


class MergeTarget(LiveTarget):
    """A live database, written row by row.

    Triggers do not fire for restored rows and foreign keys are not acted on: rows come back as they were. A restored
    row replaces the live row of the same key; a rowid that only serves the order is given up where another row has it.
    To a table without a primary key the rows that it lacks are added, and no live row is replaced.
    """

    def __init__(
        self, path: Path, scope: RestoreScope, timeout_seconds: float, included: Callable[[str], bool]
    ) -> None:
        super().__init__(path, scope, timeout_seconds, included)
        self._before: tuple[SchemaObject, ...] = ()
        self._created: list[SchemaObject] = []
        self._removed: set[str] = set()
        self._silenced: list[SchemaObject] = []
        self._unkeyed: dict[str, UnkeyedRows] = {}

    def _inspect(self, connection: sqlite3.Connection) -> list[str]:
        self._compare(connection)
        live = read_objects(connection)
        missing = self._missing(live)
        tables = {thing.name for thing in (*live, *missing) if thing.type == "table"}
        check_described(self._scope, tables)
        self._rebuild.look_at(missing)
        for table in self._rebuild.absent_tables:
            self._specs.pop(table, None)
        return [
            *(f"{told.name}: {told.reason}." for told in self.not_rebuilt),
            f"Rows are written into {self._path} in one transaction.",
            *(f"Table {thing.name!r} is missing there and is created." for thing in missing if thing.type == "table"),
            *(f"Virtual table {name!r} is replaced as a whole." for name in self._virtual_tables()),
            *(
                f"Table {spec.name!r} has no primary key: rows that it lacks as a whole are added, none is replaced."
                for spec in self._compared()
            ),
            *(f"Table {name!r} is not in the backup and goes." for name in self._doomed(connection)),
            *(f"Table {spec.name!r} is left as it is: the plan leaves it out." for spec in self._left_out()),
        ]

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Delete rows by their keys; return how many were there."""
        with self._lock, translated(self._path, f"cannot delete rows of table {collection.name!r} of"):
            connection = self._ready()
            if not self._included(self._database.owner(collection.name)):
                return 0
            if collection.name not in {thing.name for thing in read_objects(connection) if thing.type == "table"}:
                return 0
            self._silence(connection, {collection.name})
            self._rows.setdefault(collection.name, count_rows(connection, collection.name))
            gone = self._delete(connection, collection, keys)
            self._rows[collection.name] -= gone
            self._removed.add(collection.name)
            return gone

    def _compare_with(self, connection: sqlite3.Connection, collection: CollectionSpec) -> None:
        if is_unkeyed(collection) and not self._emptied(collection.name):
            self._rows_of(connection, collection)

    def _put(self, connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> int:
        if self._emptied(collection.name):
            return insert_rows(connection, collection, rows)
        if is_unkeyed(collection):
            live = self._rows_of(connection, collection)
            with excluding(collection):
                return live.put(rows)
        narrowed = self._scope.selection_of(collection.name).narrows_keys
        return put_rows(connection, collection, rows, narrowed=narrowed)

    def _delete(self, connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> int:
        if is_unkeyed(collection):
            # of a table that was emptied before, all that is there is to stay
            return 0 if self._emptied(collection.name) else self._rows_of(connection, collection).remove(rows)
        return delete_rows(connection, collection, rows, identical=True)

    def _rows_of(self, connection: sqlite3.Connection, collection: CollectionSpec) -> UnkeyedRows:
        """Return the live rows of an unkeyed table, as they were before this restore wrote to it."""
        if collection.name not in self._unkeyed:
            self._unkeyed[collection.name] = UnkeyedRows(connection, collection)
        return self._unkeyed[collection.name]

    def _finish(self, connection: sqlite3.Connection) -> None:
        self._check_unkeyed(connection)
        emptied = set(filter(self._emptied, self._specs))
        go_on_counting(connection, self._database, set(self._specs), emptied, self._removed)
        self._drop_created(connection)
        there = {fold(thing.name) for thing in read_objects(connection)}
        for thing in self._silenced:
            if fold(thing.table) in there:
                create(connection, thing)
        self._rebuild.create_rest(connection, self._created)
        restore_order(connection, self._before)
        self.notes += rebuild_full_text(connection, set(self._virtual_tables()), set(self._specs) | self._removed)
        self.examination = examine_references(connection)
        self.notes += self.examination.sentences

    def _touched(self) -> set[str]:
        return set(self._specs) | set(self._doomed(self._held()))

    def _left_out(self) -> list[CollectionSpec]:
        return [spec for spec, _ in self._scope.collections if spec.name not in self._specs]

    def _virtual_tables(self) -> list[str]:
        return [name for name, shadows in self._database.shadows.items() if self._specs.keys() & set(shadows)]

    def _emptied(self, table: str) -> bool:
        """Whether all live rows of a table go before its rows come."""
        shadow = any(table in self._database.shadows[name] for name in self._virtual_tables())
        whole = not self._scope.selection_of(table).narrows_keys
        return shadow or (self._scope.mode is RestoreMode.EXACT and whole)

    def _doomed(self, connection: sqlite3.Connection) -> list[str]:
        """Name the live tables that an exact restore of everything removes: both the plan and the backup cover them."""
        scope, database = self._scope, self._database
        held = {spec.name for spec, _ in scope.collections}
        # a backup of some tables, or of some keys, knows nothing of the others
        complete = all(table in held or not self._included(database.owner(table)) for table in database.tables)
        if not complete or database.narrowed or scope.narrowed or not scope.selection.everything:
            return []
        if scope.mode is not RestoreMode.EXACT:
            return []
        live = read_objects(connection)
        shadows, _ = shadow_tables(connection, live)
        owned = {fold(table) for tables in shadows.values() for table in tables}
        known = {fold(thing.name) for thing in database.objects}
        return [
            thing.name
            for thing in live
            if thing.type == "table"
            and not thing.internal
            and fold(thing.name) not in known | owned
            and self._included(thing.name)
        ]

    def _compared(self) -> list[CollectionSpec]:
        """Return the tables whose rows are compared as wholes."""
        return [spec for spec in self._specs.values() if is_unkeyed(spec) and not self._emptied(spec.name)]

    def _replaces_by_rowid(self, table: str) -> bool:
        """Whether all rows that are selected by their rowids go: all there are, or those of a restore taken back."""
        selection = self._scope.selection_of(table)
        everything = all("*" in globs for globs in (selection.keys, selection.within) if globs)
        return everything or bool(self._scope.taken_back)

    def _check_unkeyed(self, connection: sqlite3.Connection) -> None:
        """Refuse to delete single rows by their rowids, which may be those of other rows by now."""
        if self._scope.mode is not RestoreMode.EXACT:
            return
        for spec in self._compared():
            if self._replaces_by_rowid(spec.name) or spec.name not in self._rows:
                continue
            if beside := self._rows_of(connection, spec).beside(self._scope.selection_of(spec.name)):
                raise RestoreRefused(
                    f"{beside} rows of table {spec.name!r} of {self._path} would be replaced by their rowids, but it "
                    "has no primary key: the rowid of a row may be another row's by now",
                    hint="Add the rows that are missing with --mode merge, or restore the table as a whole.",
                )

    def _missing(self, live: tuple[SchemaObject, ...]) -> list[SchemaObject]:
        """Return what has to be created: missing tables with all that is theirs; missing views if all is restored."""
        there = {fold(thing.name) for thing in live}
        wanted = belonging(self._database, set(self._specs))
        owned = {thing.name for thing in wanted if thing.type == "table" and fold(thing.name) not in there}
        if self._scope.selection.everything:
            owned |= {t.name for t in self._database.objects if t.type == "view" and fold(t.name) not in there}
        return [thing for thing in self._database.objects if thing.table in owned and fold(thing.name) not in there]

    def _compare(self, connection: sqlite3.Connection) -> None:
        objects = read_objects(connection)
        live = {fold(thing.name): thing for thing in objects}
        for name, spec in list(self._specs.items()):
            thing = live.get(fold(name))
            if thing is None:
                continue
            if thing.type != "table" or thing.virtual:
                raise RestoreRefused(f"{name!r} of {self._path} is not the table it was")
            if thing.name != name:
                # SQLite takes the one for the other, and the backup before the restore does not
                raise RestoreRefused(
                    f"table {name!r} of the backup is called {thing.name!r} in {self._path} now",
                    hint="Rename it, restore the whole database with --mode exact, or restore to another file with "
                    "--to.",
                )
            there, here = dict(table_spec(connection, thing.name).columns), dict(spec.columns)
            if there != here:
                raise RestoreRefused(
                    f"table {name!r} of {self._path} has other columns than the backup: "
                    f"live {_listed(there)}, backup {_listed(here)}",
                    hint="Restore to another file with --to and copy what you need from there.",
                )
            if problem := rehearse_rows(objects, name, here):
                if not self._scope.keep_going:
                    raise RestoreRefused(f"{self._path} cannot be written: {problem}", hint=_FOREIGN_HINT)
                self._rebuild.leave(NotRebuilt(f"rows of table {name!r}", problem))
                del self._specs[name]
        (encoding,) = connection.execute("PRAGMA encoding").fetchone()
        if encoding != self._database.encoding and objects:
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
            if fold(name) in live and live[fold(name)].sql != statements.get(name):
                raise RestoreRefused(f"virtual table {name!r} of {self._path} is defined otherwise than in the backup")

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._before = read_objects(connection)
        doomed = self._doomed(connection)
        self._created = self._rebuild.buildable(self._missing(self._before))
        self._silence(connection, set(self._specs))
        self._drop(connection, doomed)
        self._rebuild.create_tables(connection, self._created)
        for spec in self._specs.values():
            self._clear(connection, spec)
            self._rows[spec.name] = count_rows(connection, spec.name)

    def _silence(self, connection: sqlite3.Connection, tables: set[str]) -> None:
        """Take the triggers of tables away until the end."""
        folded = {fold(table) for table in tables}
        for thing in read_objects(connection):
            if thing.type == "trigger" and fold(thing.table) in folded:
                connection.execute(f"DROP TRIGGER {quoted(thing.name)}")
                self._silenced.append(thing)

    def _drop(self, connection: sqlite3.Connection, names: list[str]) -> None:
        """Drop tables with what belongs to them; virtual ones with their shadow tables."""
        live = read_objects(connection)
        shadows, _ = shadow_tables(connection, live)
        virtual = [thing.name for thing in live if thing.virtual and thing.name in names]
        forget_virtual(connection, virtual)
        for name in (*(n for n in names if n not in virtual), *(t for v in virtual for t in shadows[v])):
            connection.execute(f"DROP TABLE {quoted(name)}")

    def _drop_created(self, connection: sqlite3.Connection) -> None:
        """Drop what a restore that is taken back has created; where it was not exact, only if no row is left in it."""
        live = {thing.name: thing for thing in read_objects(connection)}
        for name in self._scope.created:
            thing = live.get(name)  # one that differs by its case was renamed, and no backup would have it
            if thing is None or not self._included(self._database.owner(thing.name)):
                continue
            if thing.type == "view":
                connection.execute(f"DROP VIEW {quoted(thing.name)}")
            elif thing.type == "table":
                rows = 0 if thing.virtual else count_rows(connection, thing.name)
                if rows and (self._scope.mode is RestoreMode.MERGE or self._scope.narrowed.get(thing.name)):
                    self.notes.append(f"Table {thing.name!r} stays: {rows} rows were written to it since it came.")
                    continue
                self._drop(connection, [thing.name])
                self._rows.pop(thing.name, None)
        counted = any(thing.name == "sqlite_sequence" for thing in self._database.objects)
        if self._scope.created and not counted and not connection.execute(_COUNTING).fetchone():
            drop_counters(connection)

    def _clear(self, connection: sqlite3.Connection, spec: CollectionSpec) -> None:
        if self._emptied(spec.name):
            connection.execute(f"DELETE FROM {quoted(spec.name)}")
        elif self._scope.mode is RestoreMode.EXACT:
            self._clear_selected(connection, spec)

    def _clear_selected(self, connection: sqlite3.Connection, spec: CollectionSpec) -> None:
        """Delete the live rows whose keys are selected; those that the backup holds come again."""
        if is_unkeyed(spec) and not self._replaces_by_rowid(spec.name):
            return  # when all rows have come it is known which of them are there
        locator = shape_of(spec).locator
        names = list(dict.fromkeys((*locator, *spec.label)))
        sql = f"SELECT {quoted_list(names)} FROM {quoted(spec.name)} ORDER BY {quoted_list(locator)}"
        connection.execute(f"CREATE TABLE {_DOOMED} ({quoted_list(locator)})")

        def statement(as_text: frozenset[int]) -> str:
            return f"INSERT INTO {_DOOMED} VALUES ({marks(locator, as_text)})"

        for batch in Rows(connection, RLock(), sql).batches():
            doomed = self._scope.selection_of(spec.name).rows(arrow_table(names, [batch]), spec.label)
            write_rows(connection, statement, doomed.select(list(locator)))
        # by the column's own collation or as numbers other keys may be equal to these
        own = "".join(f", {quoted(name)} COLLATE BINARY, typeof({quoted(name)})" for name in locator)
        listed = "".join(f", {quoted(name)}, typeof({quoted(name)})" for name in locator)
        connection.execute(f"DELETE FROM {quoted(spec.name)} WHERE ({own[2:]}) IN (SELECT {listed[2:]} FROM {_DOOMED})")
        connection.execute(f"DROP TABLE {_DOOMED}")


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}".strip() for name, kind in columns.items())
