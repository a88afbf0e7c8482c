"""What all restores into an existing database share: one transaction, from before the emergency backup to the end."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import RLock

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.host.leftovers import aside_path
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.build import WRITING
from blocks.sources.sqlite.checks import check_folder, check_sorting, check_writable, unwritable
from blocks.sources.sqlite.connect import error_family, open_reading, open_writing, translated
from blocks.sources.sqlite.files import clear_leftovers, leftovers, users_of
from blocks.sources.sqlite.present import copy_aside, count_contents, holds_rows
from blocks.sources.sqlite.rebuild import Rebuild
from blocks.sources.sqlite.schema import Database
from blocks.sources.sqlite.write import check_counts
from blocks.sources.target import Examination, NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View


class LiveTarget(ABC):
    """A live database, written in one transaction that nobody sees before its end.

    `hold` begins the transaction, so that others wait before they write; they can read until rows are written, and in
    WAL mode all the time. The lock is never let go before the end: a write is either in the emergency backup, which is
    made meanwhile, or comes after the restore.

    Args:
        path: Path of the live database file.
        scope: The collections, rows and mode of the restore.
        timeout_seconds: How long to wait for locks.
        included: Returns by its name whether the plan covers a table now.
    """

    def __init__(
        self, path: Path, scope: RestoreScope, timeout_seconds: float, included: Callable[[str], bool]
    ) -> None:
        self.notes: list[str] = []
        self._path, self._scope, self._timeout = path, scope, timeout_seconds
        self._included = included if scope.in_place else lambda _: True
        self._database = Database.from_manifest(scope.definition)
        self._specs = {
            spec.name: spec for spec, _ in scope.collections if self._included(self._database.owner(spec.name))
        }
        self._rebuild = Rebuild(path, keep_going=scope.keep_going)
        self.examination = Examination()
        """What was found in the restored database."""
        self._rows: dict[str, int] = {}
        """How many rows each table must hold by now, as far as they are counted."""
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._watch: sqlite3.Connection | None = None
        self._version: int | None = None
        self._prepared = self._committing = self._aborted = False
        self._copy: Path | None = None

    # what kinds of restore differ in

    @abstractmethod
    def _inspect(self, connection: sqlite3.Connection) -> list[str]:
        """Look at the live schema before anything is written; return sentences worth showing."""

    @abstractmethod
    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make room for the rows, within the transaction."""

    def _compare_with(self, connection: sqlite3.Connection, collection: CollectionSpec) -> None:  # noqa: B027
        """Note the live rows of a table that those to come are compared with, where they are."""

    @abstractmethod
    def _put(self, connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> int:
        """Put rows into a table; return by how many it has grown."""

    @abstractmethod
    def _finish(self, connection: sqlite3.Connection) -> None:
        """Complete the schema after the last rows."""

    # the target

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """What is not as it was in the backup."""
        return self._rebuild.not_rebuilt

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows of a table it did not take so far: all where there is no such table."""
        return self._rebuild.left_out(collection, rows)

    def preflight(self) -> tuple[str, ...]:
        """Check the folder, the space, the lock, and what the live schema says."""
        copied_bytes = self._path.stat().st_size if self._copies() else 0
        check_folder(self._path, self._scope.size_bytes * 2 + copied_bytes)
        check_sorting(self._scope)
        if self._connection is None:
            check_writable(self._path, self._timeout)
        clear_leftovers(self._path)
        if not self._scope.in_place and not self._scope.overwrite and self._scope.mode is RestoreMode.EXACT:
            self._refuse_deleting()
        with translated(self._path, "cannot read"):
            connection = open_reading(self._path, self._timeout)
            try:
                said = self._inspect(connection)
            finally:
                connection.close()
        if self._copies():
            said.append(f"{self._path} is copied to {aside_path(self._path).name} before.")
        return (*said, *leftovers(self._path))

    def occupied(self) -> str | None:
        """Count the tables and rows that are there."""
        return count_contents(self._path, self._timeout)

    def hold(self) -> None:
        """Begin the transaction.

        Raises:
            RestoreRefused: Another connection does not give its lock up in time.
        """
        with self._lock:
            self._held()

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Refuse what concerns the tables to be written: rows of a database cannot be moved one by one."""
        concerned = self._concerned(unread)
        if not concerned:
            return ()
        raise RestoreRefused(
            f"{concerned[0].collection or 'a part'} of {self._path} cannot be read ({concerned[0].reason}), and "
            "only a whole database can be kept aside",
            hint="Restore everything with --mode exact, or move the database away yourself, or restore with --to.",
        )

    def guard(self, view: View) -> None:
        """Let a second connection see whether anybody writes in spite of the lock."""
        with self._lock, translated(self._path, "cannot read"):
            self._held()
            self._watch = open_reading(self._path, self._timeout)
            self._watch.execute("ROLLBACK")
            self._watch.execute("PRAGMA busy_timeout = 0")
            self._version = _data_version(self._watch)

    def begin(self) -> None:  # noqa: B027  what could be begun would keep readers away
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write rows of a table; none of one that the plan leaves out.

        Args:
            collection: A table.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        if collection.name not in self._specs:
            return 0
        with self._lock, translated(self._path, f"cannot write table {collection.name!r} of"):
            connection = self._ready()
            self._compare_with(connection, collection)

            def put(some: pa.Table) -> int:
                return self._put(connection, collection, some)

            grown, left = self._rebuild.write(connection, collection, rows, put)
            self._rows[collection.name] += grown
        return int(rows.num_rows) - left

    def check_unwritten(self) -> None:
        """Make sure that the lock has held.

        Raises:
            RestoreRefused: Somebody has written all the same.
        """
        with self._lock:
            if self._watch is None:
                return
            try:
                version = _data_version(self._watch)
            except sqlite3.OperationalError as exc:
                if error_family(exc) == "SQLITE_BUSY":  # locked against readers too, so nobody can have written
                    return
                raise
            if version != self._version:
                users = users_of(self._path)
                by = f" by {users}" if users else ""
                raise RestoreRefused(
                    f"{self._path} was written{by} in spite of its lock; nothing was changed",
                    hint="Something in this process opens and closes the file; restore from a process of its own.",
                )

    def commit(self) -> None:
        """Complete the schema, count the rows, commit."""
        with self._lock:
            with translated(self._path, "nothing was changed: cannot restore"):
                connection = self._ready()
                # before full-text indexes are rebuilt, since those are rows as well
                check_counts(connection, self._rows)
                self._finish(connection)
                self.check_unwritten()
                self._commit(connection)
            self._afterwards(connection)

    def abort(self) -> None:
        """Roll back, by closing."""
        with self._lock, suppress(sqlite3.Error, OSError):
            changed = self.changed
            for connection in (self._watch, self._connection):
                if connection is not None:
                    connection.close()
            self._watch, self._aborted = None, True
            self._committing = changed
            if self._copy is not None and not changed:
                self._copy.unlink(missing_ok=True)

    @property
    def changed(self) -> bool:
        """Whether the transaction was committed."""
        if not self._committing or self._connection is None:
            return False
        # an interruption can come after the statement has done its work
        return self._aborted or not _in_transaction(self._connection)

    def _held(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                connection = open_writing(self._path, self._timeout)
                try:
                    self._settle(connection)
                    if not _logs_ahead(connection):
                        # the lock is then kept where one transaction follows another
                        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                    connection.execute("BEGIN IMMEDIATE")
                except BaseException:
                    connection.close()
                    raise
            except sqlite3.Error as exc:
                raise unwritable(self._path, exc) from exc
            self._connection = connection
        return self._connection

    def _settle(self, connection: sqlite3.Connection) -> None:
        if self._path.stat().st_size == 0:
            # an empty file is still to become a database, and takes what only a new one can; nothing must read it first
            database = self._database
            for name, setting in (("page_size", database.page_size), ("auto_vacuum", database.auto_vacuum)):
                connection.execute(f"PRAGMA {name} = {setting}")
            connection.execute(f"PRAGMA encoding = '{database.encoding}'")
        for name, value in WRITING.items():
            connection.execute(f"PRAGMA {name} = {value}")

    def _ready(self) -> sqlite3.Connection:
        connection = self._held()
        if not self._prepared:
            if self._copies():
                try:
                    self._copy = copy_aside(self._path, self._timeout)
                except OSError as exc:
                    raise RestoreRefused(
                        f"{self._path} cannot be copied before it is overwritten: {exc}; nothing was changed",
                        hint="Look at its disk and the rights of its folder, or name another place with --to.",
                    ) from exc
            self._shut_readers_out(connection)
            self._prepare(connection)
            self._prepared = True
        return connection

    def _shut_readers_out(self, connection: sqlite3.Connection) -> None:
        """Take the lock that a rollback journal needs before pages are written to the file.

        Otherwise a full cache would ask for it again and again, and wait each time, as long as anybody reads.
        """
        if _logs_ahead(connection):
            return
        try:
            connection.execute("ROLLBACK")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as exc:
            raise unwritable(self._path, exc) from exc
        connection.execute("PRAGMA locking_mode = NORMAL")

    def _commit(self, connection: sqlite3.Connection) -> None:
        self._committing = True
        try:
            connection.execute("COMMIT")
        except sqlite3.Error:
            self._committing = False
            raise

    def _afterwards(self, connection: sqlite3.Connection) -> None:
        """Do what needs no undoing and cannot be done within the transaction."""
        if self._copy is not None:
            self.notes.append(f"What was at {self._path} is kept as {self._copy}.")
        with suppress(sqlite3.Error):
            connection.close()
        self._aborted = True
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _concerned(self, unread: Sequence[Unread]) -> list[Unread]:
        """Return what the restore would write to or delete."""
        owners = {self._database.owner(name) for name in self._touched()}
        return [
            each
            for each in unread
            if each.collection is None
            or (self._database.owner(each.collection) in owners and self._selects(each.collection, each.key))
        ]

    def _touched(self) -> set[str]:
        return set(self._specs)

    def _selects(self, table: str, key: str | None) -> bool:
        selection = self._scope.selection_of(table)
        if key is None or not selection.narrows_keys:
            return True
        mask = selection.mask(pa.table({"key": pa.array([key], pa.large_string())}), ("key",))
        return mask is None or bool(mask[0].as_py())

    def _copies(self) -> bool:
        """Whether what is there has to be kept although it can be read: no emergency backup is made elsewhere."""
        if self._scope.in_place:
            return False
        return self._scope.overwrite if self._scope.mode is RestoreMode.EXACT else self._meets_rows

    @cached_property
    def _meets_rows(self) -> bool:
        """Whether any table that rows are put into holds some, which may have the same keys."""
        return holds_rows(self._path, self._specs, self._timeout)

    def _refuse_deleting(self) -> None:
        there = self.occupied()
        if there is not None:
            raise RestoreRefused(
                f"{self._path} holds {there}, which an exact restore would delete",
                hint="Name another file with --to, or use --mode merge or --overwrite.",
            )


def _logs_ahead(connection: sqlite3.Connection) -> bool:
    """Whether a database has a write-ahead log, so that reading and writing do not wait for each other."""
    return bool(connection.execute("PRAGMA journal_mode").fetchone() == ("wal",))


def _data_version(connection: sqlite3.Connection) -> int:
    """Read a number that changes whenever another connection commits."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _in_transaction(connection: sqlite3.Connection) -> bool:
    try:
        return connection.in_transaction
    except sqlite3.ProgrammingError:  # closed
        return False
