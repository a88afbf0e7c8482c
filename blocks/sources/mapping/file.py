"""A file that stands in for a state object: restores to another place, and scratch restores, are written to it.

It is an SQLite database with one table, `state(key, value)`, whose values are in the canonical text.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import encode


class StateFile:
    """Offers what a state object offers; every key matches every pattern, since it holds what was restored.

    Args:
        connection: Open, in a transaction where it is written to.
        types: Enums and dataclasses that values may name.
    """

    def __init__(self, connection: sqlite3.Connection, types: Types) -> None:
        self._connection, self._types, self._lock = connection, types, Lock()

    def keys(self, patterns: Sequence[str]) -> list[str]:
        """List all keys."""
        with self._lock:
            return [key for (key,) in self._connection.execute("SELECT key FROM state")]

    def read(self, keys: Sequence[str], keep: Callable[[str, object], None]) -> list[str]:
        """Read values one after another; return the keys that are not there."""
        missing = []
        for key in keys:
            with self._lock:
                row = self._connection.execute("SELECT value FROM state WHERE key = ?", [key]).fetchone()
            if row is None:
                missing.append(key)
            else:
                keep(key, decode(row[0], key, self._types))
        return missing

    def write(self, values: dict[str, object], wrote: Callable[[int], None]) -> None:
        """Set values; nothing counts as written before the one commit at the end."""
        rows = [(key, encode(value, key, self._types)) for key, value in values.items()]
        with self._lock:
            self._connection.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", rows)

    def delete(self, keys: Sequence[str], wrote: Callable[[int], None]) -> None:
        """Delete keys."""
        with self._lock:
            self._connection.executemany("DELETE FROM state WHERE key = ?", [[key] for key in keys])


def check_file(path: Path) -> None:
    """Check that a file of state can be written at a place, without writing anything.

    Raises:
        RestoreRefused: It cannot.
    """
    if path.is_file():
        try:
            with open_file(path, Types("", ())):
                pass
        except SourceUnavailable as exc:
            raise RestoreRefused(exc.message, hint="Restore to another file.") from exc
    if not path.parent.is_dir() or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RestoreRefused(
            f"no file of state can be written at {path}",
            hint="Name a file in a folder that is there, or an import path (package.module:attribute).",
        )


@contextmanager
def open_file(path: Path, types: Types, writing: bool = False) -> Iterator[StateFile]:
    """Open such a file; one transaction spans the whole, and is committed at the end where it was written to.

    Raises:
        SourceUnavailable: There is no such file, or it is something else.
        RestoreRefused: It cannot be written.
    """
    if not writing and not path.is_file():
        raise SourceUnavailable(f"there is no file of state at {path}")
    try:
        connection = _connect(path, writing)
        try:
            yield StateFile(connection, types)
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as exc:
        kind = RestoreRefused if writing else SourceUnavailable
        raise kind(f"{path} cannot be used as a file of state: {exc}") from exc


def _connect(path: Path, writing: bool) -> sqlite3.Connection:
    if writing and not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
        if writing:
            connection.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)")
        connection.execute("SELECT key, value FROM state LIMIT 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
