"""The counters of AUTOINCREMENT, which SQLite keeps in a table of its own; and emptying a database around them."""

from __future__ import annotations

import secrets
import sqlite3

from blocks.rows.variant import Scalar
from blocks.sources.sqlite.rows import quoted, value_from_json
from blocks.sources.sqlite.schema import Database, forget_virtual, read_objects


def drop_everything(connection: sqlite3.Connection, *, keep_counters: bool) -> None:
    """Empty a database within the transaction that is open.

    Args:
        connection: A connection with a write transaction open and foreign keys off.
        keep_counters: Whether `sqlite_sequence` stays, empty.
    """
    objects = read_objects(connection)
    for thing in objects:
        if thing.type == "view":
            connection.execute(f"DROP VIEW {quoted(thing.name)}")
    forget_virtual(connection, (thing.name for thing in objects if thing.virtual))
    for thing in objects:
        if thing.type == "table" and not thing.virtual and thing.name != "sqlite_sequence":
            connection.execute(f"DROP TABLE {quoted(thing.name)}")
    if not keep_counters:
        drop_counters(connection)


def drop_counters(connection: sqlite3.Connection) -> None:
    """Drop `sqlite_sequence`, which SQLite does not do under its own name."""
    if not any(thing.name == "sqlite_sequence" for thing in read_objects(connection)):
        return
    name = f"counted_{secrets.token_hex(8)}"
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET name = ?1, tbl_name = ?1, sql = ?2 WHERE name = 'sqlite_sequence'",
        (name, f"CREATE TABLE {quoted(name)} (name, seq)"),
    )
    connection.execute("PRAGMA writable_schema = RESET")
    connection.execute(f"DROP TABLE {quoted(name)}")


def restore_counters(connection: sqlite3.Connection, database: Database) -> None:
    """Set the AUTOINCREMENT counters exactly as they were."""
    if not any(thing.name == "sqlite_sequence" for thing in database.objects):
        return
    if not any(thing.name == "sqlite_sequence" for thing in read_objects(connection)):
        # the table outlives the last table that counted; SQLite makes it only with such a table
        name = quoted(f"counted_{secrets.token_hex(8)}")
        connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.execute(f"DROP TABLE {name}")
    connection.execute("DELETE FROM sqlite_sequence")
    for row in database.sequence:
        connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", tuple(map(value_from_json, row)))


def go_on_counting(
    connection: sqlite3.Connection, database: Database, written: set[str], emptied: set[str], removed: set[str]
) -> None:
    """Set the counters of tables that rows were written to.

    Args:
        connection: A connection with a write transaction open.
        database: The backup's definition.
        written: The tables that were written.
        emptied: Those of them whose live rows all went.
        removed: Those of which rows were deleted, since a restore is taken back.
    """
    if not any(thing.name == "sqlite_sequence" for thing in read_objects(connection)):
        return
    counters = {value_from_json(table): value_from_json(at) for table, at in database.sequence}
    for table in written & (counters.keys() | emptied):
        before = counters.get(table)
        at = before if table in emptied else _furthest(connection, table, before, by_rows=table in removed)
        connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        if at is not None:
            connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, at))


def _furthest(connection: sqlite3.Connection, table: str, before: Scalar, *, by_rows: bool) -> Scalar:
    """Return where counting goes on: where it was in the backup, but in a merge never behind rows that stay."""
    if by_rows:  # a restore is taken back, with what it had counted
        (live,) = connection.execute(f"SELECT max(rowid) FROM {quoted(table)}").fetchone()
    else:
        (live,) = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    numbers = [number for number in (before, live) if isinstance(number, int)]
    return max(numbers) if numbers else before
