"""Replace the whole content of a live database, in one transaction of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.build import BuildTarget
from blocks.sources.sqlite.checks import check_described, unwritable
from blocks.sources.sqlite.connect import Condition, Found, is_damage, translated
from blocks.sources.sqlite.counters import drop_everything, restore_counters
from blocks.sources.sqlite.live import LiveTarget
from blocks.sources.sqlite.schema import (
    SchemaObject,
    read_objects,
    restore_order,
    restore_statistics,
)
from blocks.sources.sqlite.write import examine, insert_rows
from blocks.sources.target import NotRebuilt, RestoreScope
from blocks.sources.view import Unread


class RewriteTarget(LiveTarget):
    """A live database whose tables, views, indexes and triggers all go, and those of the backup come.

    Where a part of it turns out to be damaged, it is renamed instead, with its side files, and a new database takes its
    place.
    """

    def __init__(
        self, path: Path, scope: RestoreScope, timeout_seconds: float, included: Callable[[str], bool]
    ) -> None:
        super().__init__(path, scope, timeout_seconds, included)
        self._instead: BuildTarget | None = None
        self._surveyed = False

    def _inspect(self, connection: sqlite3.Connection) -> list[str]:
        check_described(self._scope, set(self._database.tables))
        self._look()
        left_out = self._rebuild.survey.sentences
        (encoding,) = connection.execute("PRAGMA encoding").fetchone()
        if encoding != self._database.encoding and read_objects(connection):
            raise RestoreRefused(
                f"{self._path} is encoded in {encoding}, the backup in {self._database.encoding}",
                hint="Move the database away first, or restore to another file with --to.",
            )
        return [f"The whole content of {self._path} is replaced in one transaction.", *left_out]

    def _look(self) -> None:
        if not self._surveyed:
            self._rebuild.look_at(self._database.objects)
            self._surveyed = True

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """What is not as it was in the backup."""
        return super().not_rebuilt if self._instead is None else self._instead.not_rebuilt

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows of a table it did not take so far: all where there is no such table."""
        return super().left_out(collection, rows) if self._instead is None else self._instead.left_out(collection, rows)

    def _buildable(self) -> list[SchemaObject]:
        return self._rebuild.buildable(self._database.objects)

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Rename the database when the restore is committed, where it is damaged.

        Raises:
            RestoreRefused: It is healthy, and what cannot be read is no fault of its file.
        """
        with self._lock:
            concerned = self._concerned(unread)
            if not concerned:
                return ()
            if _sound(self._held()):
                raise RestoreRefused(
                    f"there would be no backup of all that is in {self._path}: {concerned[0].reason}",
                    hint="Leave the table out with `exclude`, or move the database away yourself.",
                )
            return self._build_instead(concerned[0].reason).keep_aside(unread)

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Insert rows under the rowids they had."""
        with self._lock:
            self._make_room()
            if self._instead:
                return self._instead.apply(collection, rows)
            absent = collection.name in self._rebuild.absent_tables
            return 0 if absent else super().apply(collection, rows)

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Nothing is left that could be removed."""
        return 0

    def commit(self) -> None:
        """Complete the schema, count the rows, commit."""
        with self._lock:
            self._make_room()
            if self._instead is None:
                super().commit()
                return
            self.check_unwritten()
            self._instead.commit()
            self.notes += self._instead.notes
            self.examination = self._instead.examination
            super().abort()  # lets the lock on the old file go

    def abort(self) -> None:
        """Roll back; after a part of a commit, bring the old file back."""
        if self._instead is not None:
            self._instead.abort()
        super().abort()

    @property
    def changed(self) -> bool:
        """Whether anything that others see was changed."""
        return super().changed if self._instead is None else self._instead.changed

    def _touched(self) -> set[str]:
        with_live = {thing.name for thing in read_objects(self._held()) if thing.type == "table"}
        return with_live | set(self._specs)

    def _make_room(self) -> None:
        """Prepare the database, or give it up if it is damaged where only writing finds it."""
        if self._instead is not None or self._prepared:
            return
        try:
            self._ready()
        except sqlite3.DatabaseError as exc:
            if not is_damage(exc) or not self._scope.in_place:
                with translated(self._path, "nothing was changed: cannot restore"):
                    raise
            self._start_again()
            self._build_instead(str(exc))

    def _start_again(self) -> None:
        """Roll back before files are moved, since a journal belongs to its name, and make sure that nobody wrote."""
        connection = self._held()
        try:
            before = connection.execute("PRAGMA data_version").fetchone()
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            after = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as exc:
            raise unwritable(self._path, exc) from exc
        if before != after:
            raise RestoreRefused(f"{self._path} was written meanwhile; nothing was changed", hint="Restore again.")

    def _build_instead(self, reason: str) -> BuildTarget:
        found = Found(Condition.UNREADABLE, reason)
        self._instead = BuildTarget(self._path, found, self._scope, self._timeout)
        self._instead.hold()
        return self._instead

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._look()
        keep = any(thing.name == "sqlite_sequence" for thing in self._database.objects)
        drop_everything(connection, keep_counters=keep)
        self._rebuild.create_tables(connection, self._buildable())
        self._rows = dict.fromkeys(self._specs.keys() - self._rebuild.absent_tables, 0)

    def _put(self, connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> int:
        return insert_rows(connection, collection, rows)

    def _finish(self, connection: sqlite3.Connection) -> None:
        self._rebuild.create_rest(connection, self._buildable())
        restore_statistics(connection, self._database)
        restore_counters(connection, self._database)
        restore_order(connection, self._database.objects)
        connection.execute(f"PRAGMA user_version = {self._database.user_version}")
        connection.execute(f"PRAGMA application_id = {self._database.application_id}")
        self.examination = examine(connection, checks=not self._rebuild.survey.functions)
        self.notes += self.examination.sentences

    def _afterwards(self, connection: sqlite3.Connection) -> None:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if self._database.journal_mode == "wal" and mode != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            (vacuum,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        except sqlite3.Error as exc:
            self.notes.append(f"{self._path} stays in its journal mode: {exc}.")
        else:
            wanted = self._database.auto_vacuum
            if vacuum != wanted:
                self.notes.append(f"{self._path} keeps its auto_vacuum of {vacuum}; that of the backup was {wanted}.")
        super()._afterwards(connection)


def _sound(connection: sqlite3.Connection) -> bool:
    """Whether SQLite finds nothing wrong with the pages of a database."""
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)])
    except sqlite3.DatabaseError:
        return False
