"""Writing rows and looking at what was written, shared by all targets."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.proving import counted
from blocks.sources.sqlite.rows import placeholder, quoted, quoted_list, write_rows
from blocks.sources.sqlite.tables import shape_of
from blocks.sources.target import Examination

_SHOWN_FINDINGS = 10
_LOOKED_AT = 1000
"""How much of what a check says is read, so that little of one kind hides nothing of another."""
_WITH_FOREIGN_KEYS = """
SELECT name FROM sqlite_schema t WHERE type = 'table' AND rootpage > 0
AND EXISTS (SELECT 1 FROM pragma_foreign_key_list(t.name)) ORDER BY rowid
"""
_ORPHANS = """
SELECT k.parent, (SELECT group_concat("from", ', ') FROM pragma_foreign_key_list(?1) f WHERE f.id = k.fkid), count(*)
FROM pragma_foreign_key_check(?1) k GROUP BY k.fkid, k.parent
"""
_OF_ONE_ROW = ("SQLITE_CONSTRAINT_NOTNULL", "SQLITE_CONSTRAINT_DATATYPE")
_UNKNOWN_FUNCTIONS = "CHECK constraints call functions that only the application has, and are not checked."
_BROKEN_CHECK = "CHECK constraint failed"


def insert_rows(connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> int:
    """Insert rows into a table that holds none of them; return how many.

    Args:
        connection: A connection with a write transaction open.
        collection: The table.
        rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.

    Raises:
        RestoreRefused: Two of them have the same key, or one breaks a rule of the table.
    """
    rowid = shape_of(collection).rowid
    if rowid is not None and rows.num_rows:
        # in the order of the rowids a table is filled from left to right, whatever its key is
        rows = rows.take(pc.sort_indices(rows.column(rowid)))
    names = rows.column_names

    def statement(as_text: frozenset[int]) -> str:
        # said aloud, since a table's own ON CONFLICT clause could let rows vanish
        return f"INSERT OR ABORT INTO {quoted(collection.name)} ({quoted_list(names)}) VALUES ({marks(names, as_text)})"

    try:
        write_rows(connection, statement, rows)
    except sqlite3.IntegrityError as exc:
        message = f"table {collection.name!r} does not take all of its rows: {exc}"
        raise RestoreRefused(message) from exc
    return int(rows.num_rows)


def put_rows(
    connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table, *, narrowed: bool = False
) -> int:
    """Put rows in the place of those with the same key; return by how many rows the table has grown.

    Args:
        connection: A connection with a write transaction open.
        collection: The table.
        rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        narrowed: Whether only rows of some keys were selected. A live row of another key that is equal to one of
            theirs, by a collation or as a number, is none of them, and no backup before the restore has it.

    Raises:
        RestoreRefused: A live row of another key excludes one of them.
    """
    with excluding(collection):
        gone = delete_rows(connection, collection, rows, identical=narrowed)
        add_rows(connection, collection, rows)
    return int(rows.num_rows) - gone


@contextmanager
def excluding(collection: CollectionSpec) -> Iterator[None]:
    """Say in our words that a live row excludes a restored one.

    Raises:
        RestoreRefused: It does.
    """
    try:
        yield
    except sqlite3.IntegrityError as exc:
        what = f"a restored row of table {collection.name!r}"
        if getattr(exc, "sqlite_errorname", "") in _OF_ONE_ROW:
            raise RestoreRefused(f"{what} breaks a rule of the table: {exc}") from exc
        raise RestoreRefused(
            f"{what} and a live one exclude each other: {exc}",
            hint="Restore the whole table with --mode exact, or change the live row first.",
        ) from exc


def add_rows(connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table) -> None:
    """Insert rows beside others; a rowid that only serves the order is given up where another row has it.

    Args:
        connection: A connection with a write transaction open.
        collection: The table.
        rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.

    Raises:
        sqlite3.IntegrityError: A row that is there excludes one of them.
    """
    table, names = quoted(collection.name), rows.column_names
    rowid = shape_of(collection).rowid

    def insert(as_text: frozenset[int]) -> str:
        parts = [placeholder(i + 1, i in as_text) for i in range(len(names))]
        if rowid is not None:
            at, mark = names.index(rowid), f"?{names.index(rowid) + 1}"
            free = f"NOT EXISTS (SELECT 1 FROM {table} WHERE {quoted(rowid)} = {mark})"
            parts[at] = f"(SELECT {mark} WHERE {free})"
        return f"INSERT OR ABORT INTO {table} ({quoted_list(names)}) VALUES ({', '.join(parts)})"

    write_rows(connection, insert, rows)


def delete_rows(connection: sqlite3.Connection, collection: CollectionSpec, rows: pa.Table, *, identical: bool) -> int:
    """Delete the rows with the keys of some rows; return how many were there.

    Args:
        connection: A connection with a write transaction open.
        collection: The table.
        rows: One row per record to delete, with at least the collection's key columns.
        identical: Whether rows stay whose keys are only equal to these, by a collation or as numbers.
    """
    test = _is if identical else _equals

    def statement(as_text: frozenset[int]) -> str:
        tests = (test(quoted(name), placeholder(i + 1, i in as_text)) for i, name in enumerate(collection.key))
        return f"DELETE FROM {quoted(collection.name)} WHERE {' AND '.join(tests)}"

    before = connection.total_changes
    write_rows(connection, statement, rows.select(list(collection.key)))
    return connection.total_changes - before


def _equals(column: str, value: str) -> str:
    return f"{column} = {value}"


def _is(column: str, value: str) -> str:
    # the first of them finds the row by its index
    return f"{column} = {value} AND {column} = {value} COLLATE BINARY AND typeof({column}) = typeof({value})"


def marks(names: Iterable[str], as_text: frozenset[int]) -> str:
    """Write the parameters for some columns."""
    return ", ".join(placeholder(i + 1, i in as_text) for i, _ in enumerate(names))


def count_rows(connection: sqlite3.Connection, table: str) -> int:
    """Count the rows of a table without its indexes, which may say otherwise."""
    (rows,) = connection.execute(f"SELECT count(*) FROM {quoted(table)} NOT INDEXED").fetchone()
    return int(rows)


def check_counts(connection: sqlite3.Connection, expected: Mapping[str, int]) -> None:
    """Compare the rows of tables with what they must hold by now.

    Raises:
        RestoreRefused: One holds more or fewer; nothing was committed.
    """
    for table, rows in expected.items():
        found = count_rows(connection, table)
        if found != rows:
            raise RestoreRefused(f"table {table!r} would hold {found} rows where it must hold {rows}")


def examine(connection: sqlite3.Connection, *, checks: bool = True) -> Examination:
    """Check a finished database.

    What the original may have had as well, and what restores bring back as it was (a row that breaks a CHECK, a foreign
    key that leads nowhere), is odd; all else is damage.

    Args:
        connection: A connection to the database, in a transaction or not.
        checks: Whether the CHECK constraints of rows are evaluated, too.
    """
    if checks:  # else they call functions that are not here
        connection.execute("PRAGMA ignore_check_constraints = OFF")
    said = _integrity(connection)
    damage = [f"The integrity check says: {line}." for line in said if _BROKEN_CHECK not in line]
    references = examine_references(connection)
    odd = (*_broken_checks(line for line in said if _BROKEN_CHECK in line), *references.oddities)
    unproven = () if checks else (_UNKNOWN_FUNCTIONS,)
    return Examination(tuple(damage[:_SHOWN_FINDINGS]), odd, (*unproven, *references.unproven))


def _integrity(connection: sqlite3.Connection) -> list[str]:
    try:
        found = connection.execute(f"PRAGMA integrity_check({_LOOKED_AT})").fetchmany(_LOOKED_AT)
    except sqlite3.Error as exc:
        return [str(exc)]
    return [line for (line,) in found if line != "ok"]


def _broken_checks(lines: Iterable[str]) -> Iterator[str]:
    """Count the rows that break CHECK constraints, of which SQLite names the table alone."""
    for line, rows in Counter(lines).items():
        table = line.rpartition(f"{_BROKEN_CHECK} in ")[2]
        least, breaks = "at least " if rows == _LOOKED_AT else "", "breaks" if rows == 1 else "break"
        yield f"{least}{counted(rows)} of table {table!r} {breaks} a CHECK constraint."


def examine_references(connection: sqlite3.Connection) -> Examination:
    """Count the rows whose foreign key leads nowhere, of each foreign key."""
    odd, unproven = list[str](), list[str]()
    for (table,) in connection.execute(_WITH_FOREIGN_KEYS).fetchall():
        try:
            found = connection.execute(_ORPHANS, (table,)).fetchall()
        except sqlite3.Error as exc:
            # it refers to what is no key, as SQLite lets a table be defined
            unproven.append(f"The foreign keys of table {table!r} cannot be checked: {exc}.")
            continue
        for parent, columns, rows in found:
            refer = "refers to a row" if rows == 1 else "refer to rows"
            there = "is" if rows == 1 else "are"
            odd.append(
                f"{counted(rows)} of table {table!r} {refer} of {parent!r} that {there} not there"
                f" (foreign key of {columns})."
            )
    return Examination(oddities=tuple(odd), unproven=tuple(unproven))
