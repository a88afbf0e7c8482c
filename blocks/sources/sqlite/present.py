"""What a live database holds before a restore: counted, and copied aside where no emergency backup is made of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from blocks.host.folders import sync_folder
from blocks.host.leftovers import aside_path
from blocks.sources.sqlite.connect import open_reading, open_writing, translated
from blocks.sources.sqlite.rows import quoted
from blocks.sources.sqlite.schema import SchemaObject, read_objects
from blocks.storage.fsync import sync_file

_COUNTED_ROWS = 1_000_000


def count_contents(path: Path, timeout_seconds: float) -> str | None:
    """Count the tables and rows of a database, for people; None where there is nothing.

    Args:
        path: Path of the database file.
        timeout_seconds: How long to wait for locks.

    Raises:
        SourceUnavailable: It cannot be read.
    """
    with translated(path, "cannot read"):
        connection = open_reading(path, timeout_seconds)
        try:
            return _described(connection)
        finally:
            connection.close()


def holds_rows(path: Path, tables: Iterable[str], timeout_seconds: float) -> bool:
    """Whether any of some tables of a database is there and holds a row.

    Args:
        path: Path of the database file.
        tables: Names of the tables.
        timeout_seconds: How long to wait for locks.

    Raises:
        SourceUnavailable: It cannot be read.
    """
    with translated(path, "cannot read"):
        connection = open_reading(path, timeout_seconds)
        try:
            there = {thing.name for thing in read_objects(connection) if thing.type == "table"}
            some = (connection.execute(f"SELECT 1 FROM {quoted(t)} LIMIT 1") for t in tables if t in there)
            return any(rows.fetchone() is not None for rows in some)
        finally:
            connection.close()


def copy_aside(path: Path, timeout_seconds: float) -> Path | None:
    """Copy a database beside itself, durably; return the copy's path, None where there is nothing to copy.

    Args:
        path: Path of the database file.
        timeout_seconds: How long to wait for locks.

    Raises:
        OSError: There is no room, or the folder cannot be written to; no copy is left.
    """
    source = open_reading(path, timeout_seconds)
    try:
        if _described(source) is None:
            return None
        copy = aside_path(path)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, path.stat().st_mode & 0o777))
        try:
            _copy(source, copy, timeout_seconds)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
    finally:
        source.close()
    return copy


def _copy(source: sqlite3.Connection, copy: Path, timeout_seconds: float) -> None:
    written = open_writing(copy, timeout_seconds)
    try:
        source.backup(written)
    finally:
        written.close()
    sync_file(copy)  # which nobody but this restore has ever opened
    sync_folder(copy.parent)


def _described(connection: sqlite3.Connection) -> str | None:
    objects: Sequence[SchemaObject] = read_objects(connection)
    tables = [thing.name for thing in objects if thing.type == "table" and not (thing.internal or thing.virtual)]
    if not objects:
        return None
    rows = 0
    for table in tables:
        some = f"SELECT 1 FROM {quoted(table)} LIMIT {_COUNTED_ROWS + 1 - rows}"
        rows += connection.execute(f"SELECT count(*) FROM ({some})").fetchone()[0]
        if rows > _COUNTED_ROWS:
            return f"a database with {len(tables)} tables and more than {_COUNTED_ROWS} rows"
    return f"a database with {len(tables)} tables and {rows} rows"
