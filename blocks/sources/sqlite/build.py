"""Restore into a new database file that takes the place of the live one when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.sources.base import CollectionSpec, RestoreScope
from blocks.sources.sqlite.connect import Condition, error_family, open_reading, open_writing, translated
from blocks.sources.sqlite.rows import placeholder, quoted, quoted_list, write_rows
from blocks.sources.sqlite.schema import (
    Database,
    SchemaObject,
    create,
    in_building_order,
    rehearse,
    restore_counters,
    restore_order,
    restore_statistics,
)
from blocks.sources.sqlite.tables import shape_of

_SIDE_FILES = ("-journal", "-wal", "-shm")
_PAUSE_SECONDS = 0.05


class BuildTarget:
    """A new database, built beside its destination and put there at once.

    A readable live database gets the new one's pages in one transaction of its own, so that applications which have
    it open are safe; a missing or damaged one is replaced by renaming.

    Args:
        path: The destination.
        found: What is there now.
        scope: What is restored.
        timeout_seconds: How long to wait for locks.
    """

    def __init__(self, path: Path, found: Condition, scope: RestoreScope, timeout_seconds: float) -> None:
        if found is Condition.DAMAGED and not scope.selection.everything:
            raise RestoreRefused(
                f"{path} is damaged, so that a part of it cannot be restored",
                hint="Restore everything, or name another file with --to.",
            )
        self.notes: list[str] = []
        """What was noticed about the finished database, as sentences."""
        self._path, self._found, self._scope, self._timeout = path, found, scope, timeout_seconds
        self._database = Database.from_manifest(scope.definition)
        self._new = path.with_name(f"{_building(path)}{secrets.token_hex(4)}")
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None

    def preflight(self) -> tuple[str, ...]:
        """Check the folder, the space, the lock and every statement of the manifest."""
        check_folder(self._path, self._scope.size_bytes * (2 if self._found is Condition.READABLE else 1))
        check_described(self._scope, {thing.name for thing in self._objects() if thing.type == "table"})
        if problems := rehearse(self._objects()):
            raise RestoreRefused(
                f"{self._path} cannot be built: {' '.join(problems)}",
                hint="A function, collation or module that the application adds may be missing here.",
            )
        if self._found is Condition.READABLE:
            check_writable(self._path, self._timeout)
            said = f"The whole content of {self._path} is replaced in one transaction."
        elif self._found is Condition.DAMAGED:
            said = f"{self._path} is damaged; it is kept under another name beside the restored one."
        else:
            said = f"{self._path} is made new."
        return (said, *left_behind(self._path))

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Insert rows under the rowids they had."""
        with self._lock, translated(self._path, f"cannot write table {collection.name!r} for"):
            insert_rows(self._begun(), collection, rows)
        return int(rows.num_rows)

    def commit(self) -> None:
        """Complete the new database and make it live."""
        with self._lock, translated(self._path, "cannot restore"):
            self._complete(self._begun())
            if self._found is Condition.READABLE:
                self._copy_over()
                self._remove_new()
            else:
                self._replace()

    def abort(self) -> None:
        """Remove the new database."""
        with self._lock:
            self._remove_new()

    def _objects(self) -> list[SchemaObject]:
        if self._scope.selection.everything:
            return list(self._database.objects)
        return belonging(self._database, {spec.name for spec, _ in self._scope.collections})

    def _begun(self) -> sqlite3.Connection:
        if self._connection is None:
            os.close(os.open(self._new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            self._connection = open_writing(self._new, self._timeout)
            for name, value in self._settings().items():
                self._connection.execute(f"PRAGMA {name} = {value}")
            self._connection.execute("BEGIN")
            for thing in in_building_order(self._objects()):
                if thing.type == "table" and not thing.virtual:
                    create(self._connection, thing)
        return self._connection

    def _settings(self) -> dict[str, int | str]:
        database = self._database
        return {
            "journal_mode": "OFF",
            "synchronous": "OFF",
            "cache_size": -65536,
            "page_size": self._live_page_size() if self._found is Condition.READABLE else database.page_size,
            "encoding": f"'{database.encoding}'",
            "auto_vacuum": database.auto_vacuum,
            "user_version": database.user_version,
            "application_id": database.application_id,
        }

    def _live_page_size(self) -> int:
        # pages can be copied over a database in WAL mode only where they are of one size
        live = open_reading(self._path, self._timeout)
        try:
            return int(live.execute("PRAGMA page_size").fetchone()[0])
        finally:
            live.close()

    def _complete(self, connection: sqlite3.Connection) -> None:
        for thing in in_building_order(self._objects()):
            if thing.type != "table" or thing.virtual:
                create(connection, thing)
        if self._scope.selection.everything:
            restore_statistics(connection, self._database)
            restore_counters(connection, self._database)
        restore_order(connection, self._database.objects)
        connection.execute("COMMIT")
        self.notes += examine(connection)
        if self._found is not Condition.READABLE and self._database.journal_mode == "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.close()

    def _copy_over(self) -> None:
        deadline = time.monotonic() + self._timeout

        def waited(status: int, remaining: int, total: int) -> None:
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > deadline:
                raise SourceUnavailable(
                    f"{self._path} is locked by another connection; nothing was changed",
                    hint="Stop what uses the database, or raise `busy_timeout_seconds`.",
                )

        live = open_writing(self._path, self._timeout)
        try:
            mode = live.execute("PRAGMA journal_mode").fetchone()[0]
            if self._database.journal_mode == "wal" and mode != "wal":
                live.execute("PRAGMA journal_mode = WAL")
            source = open_reading(self._new, self._timeout)
            source.execute("ROLLBACK")
            try:
                source.backup(live, pages=-1, progress=waited, sleep=_PAUSE_SECONDS)
            finally:
                source.close()
        finally:
            live.close()

    def _replace(self) -> None:
        stamp = f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        try:
            if self._found is Condition.DAMAGED:
                old = os.stat(self._path)
                os.chmod(self._new, old.st_mode & 0o7777)
                with suppress(PermissionError):  # only root may give files away; anyone else keeps his own
                    os.chown(self._new, old.st_uid, old.st_gid)
            _sync(self._new)
            for suffix in ("", *_SIDE_FILES):
                with suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{self._path}.{stamp}{suffix}")
            os.replace(self._new, self._path)
            _sync(self._path.parent)
        except OSError as exc:
            raise SourceUnavailable(f"cannot put the restored database at {self._path}: {exc}") from exc

    def _remove_new(self) -> None:
        if self._connection is not None:
            self._connection.close()
        for suffix in ("", *_SIDE_FILES):
            Path(f"{self._new}{suffix}").unlink(missing_ok=True)


def left_behind(path: Path) -> list[str]:
    """Name the unfinished databases beside a destination: they are whole copies, and nobody else would notice."""
    found = sorted(entry for entry in os.listdir(path.parent) if entry.startswith(_building(path)))
    return [
        f"{path.parent / name} was left by an interrupted restore, or another one is at work; remove it if none is."
        for name in found
        if not name.endswith(_SIDE_FILES)
    ]


def _building(path: Path) -> str:
    return f".{path.name}.lastgood-"


def belonging(database: Database, tables: set[str]) -> list[SchemaObject]:
    """Return the objects of some tables: themselves, their indexes and triggers, virtual tables they are shadows of."""
    owners = {owner for owner, shadows in database.shadows.items() if tables.issuperset(shadows) and shadows}
    return [thing for thing in database.objects if thing.table in tables or thing.table in owners]


def insert_rows(connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> None:
    """Insert rows into a table that holds none of them."""
    rowid = shape_of(collection).rowid
    if rowid is not None and rows.num_rows:
        # in the order of the rowids a table is filled from left to right, whatever its key is
        rows = rows.take(pc.sort_indices(rows.column(rowid)))
    names = rows.column_names

    def statement(as_text: frozenset[int]) -> str:
        marks = ", ".join(placeholder(i + 1, i in as_text) for i in range(len(names)))
        return f"INSERT INTO {quoted(collection.name)} ({quoted_list(names)}) VALUES ({marks})"

    try:
        write_rows(connection, statement, rows)
    except sqlite3.IntegrityError as exc:
        raise RestoreRefused(f"rows of table {collection.name!r} contradict each other: {exc}") from exc


def examine(connection: sqlite3.Connection) -> list[str]:
    """Check a finished database; what the original may have had as well (a broken foreign key) is only noted."""
    notes = []
    connection.execute("PRAGMA ignore_check_constraints = OFF")
    for pragma, words in (("integrity_check(10)", "integrity check"), ("foreign_key_check", "foreign key check")):
        try:
            found = connection.execute(f"PRAGMA {pragma}").fetchmany(10)
        except sqlite3.Error as exc:
            found = [(str(exc),)]
        notes += [f"The {words} says: {' '.join(map(str, row))}." for row in found if row != ("ok",)]
    return notes


def check_folder(path: Path, needed_bytes: int) -> None:
    """Check that files can be made beside a database.

    Raises:
        RestoreRefused: There is no such folder, or not enough space or right.
    """
    folder = path.parent
    if not folder.is_dir():
        raise RestoreRefused(f"there is no folder {folder}", hint="Create it, or name another place with --to.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RestoreRefused(f"{folder} may not be written", hint="Run as the owner of the folder.")
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise RestoreRefused(
            f"{folder} has {free_bytes} bytes free, the restore needs about {needed_bytes}",
            hint="Make room, or name another place with --to.",
        )


def check_described(scope: RestoreScope, tables: set[str]) -> None:
    """Check that each table to be restored is there or can be created.

    Raises:
        RestoreRefused: The manifest lists a table that its definition does not create.
    """
    for spec, _ in scope.collections:
        if spec.name not in tables:
            raise RestoreRefused(f"the manifest does not say how table {spec.name!r} is created")


def check_writable(path: Path, timeout_seconds: float) -> None:
    """Check that a live database can be written now.

    Raises:
        RestoreRefused: It is locked or read-only.
    """
    try:
        connection = open_writing(path, timeout_seconds)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as exc:
        locked = error_family(exc) == "SQLITE_BUSY"
        raise RestoreRefused(
            f"{path} cannot be written: {exc}",
            hint="Stop what writes to it, or raise `busy_timeout_seconds`." if locked else "Check its mode and owner.",
        ) from exc


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
