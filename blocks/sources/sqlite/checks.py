"""What can be known before the first write: folders, flags, room, locks, and what the schema needs of this process."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path

from blocks.errors import PlaceUnfit, RestoreRefused
from blocks.host.leftovers import temporary_folder
from blocks.host.room import TEMPORARY, Need, check_room
from blocks.sources.sqlite.connect import error_family, open_writing
from blocks.sources.sqlite.creating import create
from blocks.sources.sqlite.files import users_of
from blocks.sources.sqlite.rows import quoted, quoted_list
from blocks.sources.sqlite.schema import Database, SchemaObject, fold
from blocks.sources.sqlite.survey import survey
from blocks.sources.target import RestoreScope

_PATIENCE_SECONDS = 2.0
"""How long a look may wait for a lock; the restore itself waits as long as the plan says."""
_DAC_OVERRIDE = 1 << 1
_GET_FLAGS, _IMMUTABLE, _APPEND_ONLY = 0x80086601, 0x10, 0x20
_SORTED_IN_MEMORY_BYTES = 64 * 1024 * 1024
"""What an index is sorted in before it goes to temporary files: the cache of the writing connection."""


def check_folder(path: Path, needed_bytes: int) -> None:
    """Check that files can be made, renamed and removed beside a database.

    Raises:
        RestoreRefused: There is no such folder, or not enough space or right.
    """
    folder = path.parent
    if not folder.is_dir():
        raise PlaceUnfit(f"there is no folder {folder}", hint="Create it, or name another place with --to.")
    if not os.access(folder, os.W_OK | os.X_OK):
        why, hint = _unwritable(folder)
        raise PlaceUnfit(f"{folder} may not be written{why}", hint=hint)
    if _flags(folder) & _APPEND_ONLY:
        raise PlaceUnfit(f"{folder} is append-only", hint=f"Take the flag away first: chattr -a {folder}.")
    check_room(Need(folder, needed_bytes))


def _unwritable(folder: Path) -> tuple[str, str]:
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return ": its file system is mounted read-only", "Mount it for writing, or name another place with --to."
    if _flags(folder) & _IMMUTABLE:
        return ": it is immutable", f"Take the flag away first: chattr -i {folder}."
    return "", "Run as the owner of the folder."


def _flags(folder: Path) -> int:
    """Return the flags that chattr sets; 0 where the file system has none. For folders: nobody locks those."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return 0
    try:
        return int(struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8)))[0])
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def check_movable(path: Path) -> None:
    """Check that a file can be renamed within its folder, which can be written.

    Raises:
        RestoreRefused: It is somebody else's in a folder with the sticky bit, or immutable.
    """
    folder, found, user = path.parent.stat(), path.lstat(), os.geteuid()
    if folder.st_mode & 0o1000 and user not in (0, found.st_uid, folder.st_uid):
        raise RestoreRefused(f"{path} belongs to another user and cannot be moved aside", hint="Run as its owner.")
    may_write = _overrides_modes() or (user == found.st_uid and found.st_mode & 0o200)
    if may_write and not os.access(path, os.W_OK):
        raise RestoreRefused(
            f"{path} cannot be moved aside: it is immutable", hint=f"Take the flag away first: chattr -i {path}."
        )


def _overrides_modes() -> bool:
    """Whether modes mean nothing to this process: root, unless a container took that away."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return os.geteuid() == 0
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) & _DAC_OVERRIDE)


def check_writable(path: Path, timeout_seconds: float) -> None:
    """Check that a live database can be written now.

    Raises:
        RestoreRefused: It is locked or read-only.
    """
    try:
        connection = open_writing(path, min(timeout_seconds, _PATIENCE_SECONDS))
        try:
            connection.execute("BEGIN IMMEDIATE")
            # of a file that can only be read, SQLite takes that for a transaction that reads; this one has to write
            connection.execute("PRAGMA incremental_vacuum(1)").fetchall()
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as exc:
        raise unwritable(path, exc) from exc


def unwritable(path: Path, exc: sqlite3.Error) -> RestoreRefused:
    """Say why a transaction that writes cannot begin, and who holds the lock where that is it."""
    if error_family(exc) != "SQLITE_BUSY":
        hint = "Check its mode and owner, and whether it is immutable or on a read-only file system."
        return RestoreRefused(f"{path} cannot be written: {exc}", hint=hint)
    users = users_of(path)
    by = f"; it is in use by {users}" if users else ""
    return RestoreRefused(
        f"{path} cannot be written: {exc}{by}",
        hint="Stop what writes to it, or raise `busy_timeout_seconds`.",
    )


def check_described(scope: RestoreScope, tables: set[str]) -> None:
    """Check that each table to be restored is there or can be created.

    Raises:
        RestoreRefused: The manifest lists a table that its definition does not create.
    """
    known = {fold(table) for table in tables}
    for spec, _ in scope.collections:
        if fold(spec.name) not in known:
            raise RestoreRefused(f"the manifest does not say how table {spec.name!r} is created")


def check_sorting(scope: RestoreScope) -> None:
    """Check that there is a temporary folder, with room for sorting the largest index.

    Raises:
        ConfigurationError: TMPDIR names no folder that can be written.
        RestoreRefused: It has not enough room.
    """
    folder = temporary_folder()
    needed_bytes = _largest_sort_bytes(scope)
    if needed_bytes > _SORTED_IN_MEMORY_BYTES:
        check_room(Need(folder, needed_bytes, "sorting an index", "the folder for temporary data", TEMPORARY))


def _largest_sort_bytes(scope: RestoreScope) -> int:
    objects = Database.from_manifest(scope.definition).objects
    indexed = {fold(thing.table) for thing in objects if thing.type == "index"}
    all_rows = sum(rows for _, rows in scope.collections) or 1
    # an index holds some columns of its table, so half of the table is a guess that seldom refuses in vain
    sizes = [scope.size_bytes * rows // all_rows // 2 for spec, rows in scope.collections if fold(spec.name) in indexed]
    return max(sizes, default=0)


def rehearse_rows(objects: Iterable[SchemaObject], table: str, columns: Iterable[str]) -> str | None:
    """Compile in an empty database in memory what writing rows of a live table takes; say why that is impossible.

    Args:
        objects: Those of the live database.
        table: Name of the table.
        columns: Names of the columns that are written.
    """
    columns = list(columns)
    own = [thing for thing in objects if fold(thing.table) == fold(table) and not thing.internal]
    if foreign := survey(own).foreign(table):
        names = " and ".join(flaw.told.name for flaw in foreign)
        return f"rows of table {table!r} are sorted or computed by what only the application has ({names})"
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for kind in ("table", "index"):
            for thing in own:
                if thing.type == kind:
                    create(connection, thing)
        marks = ", ".join("?" * len(columns))
        connection.execute(
            f"EXPLAIN INSERT INTO {quoted(table)} ({quoted_list(columns)}) VALUES ({marks})", [None] * len(columns)
        )
        connection.execute(f"EXPLAIN DELETE FROM {quoted(table)}")
    except RestoreRefused as exc:
        return exc.message
    except sqlite3.Error as exc:
        return f"rows of table {table!r} cannot be written here: {exc}"
    finally:
        connection.close()
    return None
