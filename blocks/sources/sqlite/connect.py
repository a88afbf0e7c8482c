"""Connections to SQLite database files, their errors in our words, and the state of the file itself.

The file of a database is never opened here but by SQLite: closing any other descriptor of it would drop the POSIX
locks that SQLite holds in this process.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable

_OLDEST_SQLITE = (3, 37, 0)
_RACY_NS = 2_000_000_000
"""A file touched less than this ago may be touched again without its times showing it."""
_WAL_HEADER_BYTES = 32
_HINTS = {
    "SQLITE_BUSY": "The database is locked; try again, or raise `busy_timeout_seconds`.",
    "SQLITE_NOTADB": "The file is not an SQLite database, or it is encrypted or damaged.",
    "SQLITE_CORRUPT": "The database is damaged; restore it from its last backup.",
    "SQLITE_CANTOPEN": "Check the rights of the file and its folder; a database in WAL mode needs a writable folder.",
    "SQLITE_FULL": "The disk is full.",
}


class Condition(Enum):
    """What is found at the place of a database."""

    ABSENT = "absent"
    DAMAGED = "damaged"
    READABLE = "readable"


def error_family(exc: BaseException) -> str:
    """Name the primary result code of an error of SQLite, e.g. `SQLITE_BUSY` also for its extended codes."""
    name = str(getattr(exc, "sqlite_errorname", ""))
    return "_".join(name.split("_")[:2])


@contextmanager
def translated(path: Path, doing: str) -> Iterator[None]:
    """Translate SQLite's errors.

    Raises:
        SourceUnavailable: Naming the database and what was being done.
    """
    try:
        yield
    except sqlite3.Error as exc:
        raise SourceUnavailable(f"{doing} {path}: {exc}", hint=_HINTS.get(error_family(exc), "")) from exc


def _connect(path: Path, mode: str, timeout_seconds: float) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise ConfigurationError(
            f"SQLite {sqlite3.sqlite_version} is too old",
            hint="Use a Python that is built with SQLite 3.37 or newer.",
        )
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}",
        uri=True,
        timeout=timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
    )


def open_reading(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """Open a database read-only and begin a read transaction; its snapshot is taken when this returns.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    try:
        return _begin_reading(_connect(path, "ro", timeout_seconds))
    except sqlite3.OperationalError as exc:
        # the journal of a writer that died has to be rolled back first, which a read-only connection may not do
        if error_family(exc) not in ("SQLITE_READONLY", "SQLITE_CANTOPEN") or not path.exists():
            raise
    return _begin_reading(_connect(path, "rw", timeout_seconds))


def _begin_reading(connection: sqlite3.Connection) -> sqlite3.Connection:
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def open_writing(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """Open an existing database for restoring: no constraint or foreign key is acted on, rows come as they were.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    connection = _connect(path, "rw", timeout_seconds)
    try:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def condition(path: Path, timeout_seconds: float) -> Condition:
    """Tell what is at a place where a database is to be restored.

    Raises:
        RestoreRefused: Something is there that is no file, or that may not be read.
    """
    if not os.path.lexists(path):
        return Condition.ABSENT
    if not path.is_file():
        raise RestoreRefused(f"{path} is not a file", hint="Name a database file with --to.")
    try:
        open_reading(path, timeout_seconds).close()
    except sqlite3.DatabaseError as exc:
        if error_family(exc) in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return Condition.DAMAGED
        if error_family(exc) == "SQLITE_BUSY":
            return Condition.READABLE
        raise RestoreRefused(f"{path} cannot be opened: {exc}", hint=_HINTS.get(error_family(exc), "")) from exc
    return Condition.READABLE


def _facts(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    # an empty -wal or -journal says no more than a missing one, and looking at a database may leave one behind
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns] if found.st_size else None


def change_token(path: Path) -> str | None:
    """Describe the database's files so that equal descriptions mean an unchanged database.

    To be taken before a snapshot begins. None where a file was touched so lately that its times cannot tell.
    """
    wal = Path(f"{path}-wal")
    facts = [_facts(path), _facts(Path(f"{path}-journal")), _facts(wal)]
    now = time.time_ns()
    if any(fact and now - fact[2] < _RACY_NS for fact in facts):
        return None
    header = b""
    if facts[2]:
        # run by root, SQLite gives the -wal to the database's owner whenever it opens it, which moves its ctime
        facts[2] = facts[2][:3]
        try:
            with wal.open("rb") as file:
                header = file.read(_WAL_HEADER_BYTES)
        except FileNotFoundError:
            return None
    return json.dumps([*facts, header.hex()], separators=(",", ":"))
