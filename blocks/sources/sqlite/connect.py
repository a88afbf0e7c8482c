"""Connections to SQLite database files, and their errors in our words.

The file of a database is never opened here but by SQLite: closing any other descriptor of it would drop the POSIX
locks that SQLite holds in this process.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from blocks.errors import ConfigurationError, RestoreRefused, SourceFull, SourceUnavailable
from blocks.host.leftovers import is_full

_OLDEST_SQLITE = (3, 37, 0)
_SMALLEST_BYTES = 512
"""The smallest page that SQLite knows."""
_HINTS = {
    "SQLITE_BUSY": "The database is locked; try again, or raise `busy_timeout_seconds`.",
    "SQLITE_NOTADB": "The file is not an SQLite database, or it is encrypted or damaged. Is the path right?",
    "SQLITE_CORRUPT": "The database is damaged; restore it from its last backup.",
    "SQLITE_CANTOPEN": "Check the rights of the file and its folder; a database in WAL mode needs a writable folder.",
    "SQLITE_FULL": "The disk is full, or the one of the folder that TMPDIR names, where indexes are sorted.",
}


class Condition(Enum):
    """What is found at the place of a database."""

    ABSENT = "absent"
    UNREADABLE = "unreadable"
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
        kind = SourceFull if error_family(exc) == "SQLITE_FULL" else SourceUnavailable
        raise kind(f"{doing} {path}: {exc}", hint=_HINTS.get(error_family(exc), "")) from exc
    except OSError as exc:
        kind = SourceFull if is_full(exc) else SourceUnavailable
        raise kind(f"{doing} {path}: {exc}", hint="Look at the disk and the rights of its folder.") from exc


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


def open_salvaging(path: Path, timeout_seconds: float) -> sqlite3.Connection:
    """Open a database as `open_reading` does, past a damaged schema and a file that was cut short.

    Raises:
        sqlite3.Error: Nothing of it can be read.
    """
    connection = _connect(path, "ro", timeout_seconds)
    # a read-only connection cannot write it, but takes the schema as far as it goes
    connection.execute("PRAGMA writable_schema = ON")
    return _begin_reading(connection)


def is_damage(exc: BaseException) -> bool:
    """Whether an error of SQLite says that stored bytes are wrong or cannot be read, not that it was used wrongly."""
    return error_family(exc) in ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR")


@dataclass(frozen=True)
class Found:
    """What is at a place where a database is to be restored.

    Attributes:
        condition: Whether it can be read.
        reason: Why it cannot, as a clause.
    """

    condition: Condition
    reason: str = ""


def look(path: Path, timeout_seconds: float) -> Found:
    """Return what is at a place where a database is to be restored.

    Raises:
        RestoreRefused: Something is there that is no file, or that may not be read.
    """
    if not os.path.lexists(path):
        return Found(Condition.ABSENT)
    if not path.is_file():
        raise RestoreRefused(f"{path} is not a file", hint="Name a database file with --to.")
    if too_short(path):
        return Found(Condition.UNREADABLE, "it is too short to be a database")
    try:
        open_reading(path, timeout_seconds).close()
    except sqlite3.DatabaseError as exc:
        if error_family(exc) == "SQLITE_BUSY":
            return Found(Condition.READABLE)
        if is_damage(exc) or _closed_to_its_owner(path):
            return Found(Condition.UNREADABLE, str(exc))
        raise RestoreRefused(f"{path} cannot be opened: {exc}", hint=_HINTS.get(error_family(exc), "")) from exc
    return Found(Condition.READABLE)


def too_short(path: Path) -> bool:
    """Whether a file is shorter than any database but not empty: SQLite takes such a one for an empty database."""
    return 0 < path.stat().st_size < _SMALLEST_BYTES


def _closed_to_its_owner(path: Path) -> bool:
    """Whether a file may not be read by this user, who owns it: then it is his to move."""
    return not os.access(path, os.R_OK) and path.stat().st_uid == os.geteuid()
