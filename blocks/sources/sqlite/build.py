"""Restore into a new database file, for a place where there is none, or none that can be read."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock

import pyarrow as pa

from blocks.errors import Partial, RestoreRefused, SourceUnavailable
from blocks.host.folders import sync_folder
from blocks.host.leftovers import aside_path
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.checks import check_described, check_folder, check_movable, check_sorting
from blocks.sources.sqlite.connect import Condition, Found, open_writing, translated
from blocks.sources.sqlite.counters import restore_counters
from blocks.sources.sqlite.files import (
    building_name,
    clear_leftovers,
    family,
    leftovers,
    move_aside,
    move_back,
    put_in_place,
    stamps,
    users_of,
)
from blocks.sources.sqlite.rebuild import Rebuild
from blocks.sources.sqlite.schema import (
    Database,
    SchemaObject,
    belonging,
    restore_order,
    restore_statistics,
)
from blocks.sources.sqlite.write import check_counts, examine, insert_rows
from blocks.sources.target import Examination, NotRebuilt, RestoreScope
from blocks.sources.view import Unread, View
from blocks.storage.fsync import sync_file

_SHARED = 0o2020
"""Of a folder: its group may write in it, and what is made in it is the group's."""
WRITING = {"cache_size": -65536}


class BuildTarget:
    """A new database, built beside its destination and given its name when it is complete.

    What is at the destination and cannot be read is renamed before, with its side files, and never removed.

    Args:
        path: Path of the database file that is built.
        found: What is there now; readable only where a caller that holds its lock has found a part of it damaged.
        scope: The collections, rows and mode of the restore.
        timeout_seconds: How long to wait for locks.

    Raises:
        RestoreRefused: What is there is not ours to move, or only a part of it is to be restored.
    """

    def __init__(self, path: Path, found: Found, scope: RestoreScope, timeout_seconds: float) -> None:
        if found.condition is not Condition.ABSENT:
            _refuse_moving(path, found, scope)
        self.notes: list[str] = []
        """What was noticed about the finished database, as sentences."""
        self.examination = Examination()
        self._path, self._found, self._scope, self._timeout = path, found, scope, timeout_seconds
        self._database = Database.from_manifest(scope.definition)
        self._new, self._aside = building_name(path, scope.plan), aside_path(path)
        self._rebuild = Rebuild(path, keep_going=scope.keep_going)
        self._surveyed = False
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._applied: Counter[str] = Counter()
        self._seen: tuple[object, ...] | None = None
        self._moving = False
        self._inode: int | None = None

    def preflight(self) -> tuple[str, ...]:
        """Check the folder, the space, and every statement of the manifest."""
        check_folder(self._path, self._scope.size_bytes)
        check_sorting(self._scope)
        clear_leftovers(self._path)
        check_described(self._scope, {thing.name for thing in self._objects() if thing.type == "table"})
        self._look()
        said = (*self._rebuild.survey.sentences, *leftovers(self._path))
        if self._found.condition is Condition.ABSENT:
            return (f"{self._path} is made new.", *said)
        check_movable(self._path)
        return (*self._said(), *said)

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """What is not as it was in the backup."""
        return self._rebuild.not_rebuilt

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows of a table it did not take so far: all where there is no such table."""
        return self._rebuild.left_out(collection, rows)

    def occupied(self) -> str | None:
        """Say that something is there which is no database that can be read."""
        return None if self._found.condition is Condition.ABSENT else f"a file that cannot be read ({self._reason()})"

    def hold(self) -> None:
        """Remember what is there: a file that cannot be read cannot be locked."""
        self._seen = stamps(self._path)

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Say what will be renamed."""
        return () if self._found.condition is Condition.ABSENT else self._said()

    def guard(self, view: View) -> None:
        """Nothing more than `hold` remembers."""

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Insert rows under the rowids they had.

        Args:
            collection: A table.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        with self._lock, translated(self._path, f"cannot write table {collection.name!r} for"):
            connection = self._begun()
            if collection.name in self._rebuild.absent_tables:
                return 0

            def insert(some: pa.Table) -> int:
                return insert_rows(connection, collection, some)

            written, _ = self._rebuild.write(connection, collection, rows, insert)
            self._applied[collection.name] += written
        return written

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Nothing is there."""
        return 0

    def check_unwritten(self) -> None:
        """Compare the times of the files that are there with those at `hold`."""
        if self._seen is None or stamps(self._path) == self._seen:
            return
        users = users_of(self._path)
        by = f" by {users}" if users else ""
        raise RestoreRefused(
            f"{self._path} was written{by} since the backup before this restore; nothing was changed",
            hint="Stop what writes to it, and restore again.",
        )

    def commit(self) -> None:
        """Complete the new database and make it live."""
        with self._lock:
            with translated(self._path, "cannot restore"):
                self._complete(self._begun())
            self.check_unwritten()
            self._replace()

    def abort(self) -> None:
        """Remove the new database, and bring back what was moved aside for one that did not come."""
        with self._lock, suppress(sqlite3.Error, OSError):
            if self._connection is not None:
                self._connection.close()
            if self._moving and not self._placed():
                self._moving = not move_back(self._path, self._aside)
            for file in family(self._new):
                file.unlink(missing_ok=True)

    @property
    def changed(self) -> bool:
        """Whether anything at the destination has another name by now."""
        return self._placed() or (self._moving and os.path.lexists(self._aside))

    def _placed(self) -> bool:
        """Whether the new database has its name; asked of the disk, since an interruption can come at any moment."""
        with suppress(OSError):
            return self._inode is not None and os.stat(self._path).st_ino == self._inode
        return False

    def _reason(self) -> str:
        return self._found.reason or "damaged"

    def _said(self) -> tuple[str, ...]:
        return (f"{self._path} cannot be read ({self._reason()}); it is kept as {self._aside}, with its side files.",)

    def _objects(self) -> list[SchemaObject]:
        if self._scope.selection.everything:
            return list(self._database.objects)
        return belonging(self._database, {spec.name for spec, _ in self._scope.collections})

    def _look(self) -> None:
        if not self._surveyed:
            self._rebuild.look_at(self._objects())
            self._surveyed = True

    def _buildable(self) -> list[SchemaObject]:
        return self._rebuild.buildable(self._objects())

    def _begun(self) -> sqlite3.Connection:
        if self._connection is None:
            self._look()
            # of nobody else's making: its descriptor can carry no lock
            os.close(os.open(self._new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._connection = open_writing(self._new, self._timeout)
            for name, value in self._settings().items():
                self._connection.execute(f"PRAGMA {name} = {value}")
            self._connection.execute("BEGIN")
            self._rebuild.create_tables(self._connection, self._buildable())
        return self._connection

    def _settings(self) -> dict[str, int | str]:
        database = self._database
        return {
            # what breaks a rule is taken back by a journal, which holds little of a database that is new
            "journal_mode": "MEMORY" if self._scope.keep_going else "OFF",
            "synchronous": "OFF",
            **WRITING,
            "page_size": database.page_size,
            "encoding": f"'{database.encoding}'",
            "auto_vacuum": database.auto_vacuum,
            "user_version": database.user_version,
            "application_id": database.application_id,
        }

    def _complete(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:
            return  # by an earlier call of `commit`
        self._rebuild.create_rest(connection, self._buildable())
        absent = self._rebuild.absent_tables
        names = {spec.name for spec, _ in self._scope.collections} - absent
        check_counts(connection, {name: self._applied[name] for name in names})
        if self._scope.selection.everything:
            restore_statistics(connection, self._database)
            restore_counters(connection, self._database)
        restore_order(connection, self._database.objects)
        connection.execute("COMMIT")
        self.examination = examine(connection, checks=not self._rebuild.survey.functions)
        self.notes += self.examination.sentences
        if self._database.journal_mode == "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.close()

    def _replace(self) -> None:
        there = [file for file in family(self._path) if os.path.lexists(file)]
        if self._found.condition is Condition.ABSENT and self._path in there:
            raise RestoreRefused(f"{self._path} was made by another program meanwhile; nothing was changed")
        users = users_of(self._path)
        try:
            self._take_rights()
            sync_file(self._new)  # which nobody but this restore has ever opened
            self._inode = os.stat(self._new).st_ino
            self._moving = bool(there)
            move_aside(self._path, self._aside)
            put_in_place(self._new, self._path)
            sync_folder(self._path.parent)
        except OSError as exc:
            raise self._stopped(exc) from exc
        if there:
            self.notes.append(f"What was at {self._path} is kept as {self._aside}.")
        elif self._scope.in_place:
            self.notes.append(f"{self._path} was missing, and no backup knows whose it was: {_owned(self._path)}.")
        if users:
            self.notes.append(
                f"{self._aside.name} is still open in {users}: restart it, so that it opens {self._path}."
            )

    def _take_rights(self) -> None:
        try:
            old = os.stat(self._path)
        except FileNotFoundError:
            if not self._scope.in_place:  # it is for who restores
                return
            # nobody knows whose it was: it is for those who may make files beside it
            old = os.stat(self._path.parent)
            mode = 0o660 if old.st_mode & _SHARED == _SHARED else 0o600
        else:
            mode = old.st_mode & 0o7777 | 0o600
        with suppress(PermissionError):  # only root may give files away; anyone else keeps his own
            os.chown(self._new, old.st_uid, old.st_gid)
        os.chmod(self._new, mode)

    def _stopped(self, exc: OSError) -> SourceUnavailable | Partial:
        if self._placed():
            return Partial(f"{self._path} is restored, but may not be durable: {exc}", hint="Look at the disk.")
        if self._moving and not move_back(self._path, self._aside):
            return Partial(
                f"the restored database cannot be put at {self._path}: {exc}; what was there is at {self._aside}",
                hint="Stop the programs that use it, and restore again.",
            )
        self._moving = False
        return SourceUnavailable(f"the restored database cannot be put at {self._path}: {exc}; nothing was changed")


def _owned(path: Path) -> str:
    status = os.stat(path)
    return f"it belongs to user {status.st_uid} and group {status.st_gid} now, with mode {status.st_mode & 0o7777:04o}"


def _refuse_moving(path: Path, found: Found, scope: RestoreScope) -> None:
    if not scope.in_place:
        raise RestoreRefused(
            f"{path} is there, and is not an SQLite database that can be read ({found.reason}); it is left as it is",
            hint="Name another file with --to.",
        )
    if not scope.selection.everything:
        raise RestoreRefused(
            f"{path} is damaged, so that a part of it cannot be restored ({found.reason})",
            hint="Restore everything, or name another file with --to.",
        )
