"""The schema of an SQLite database: read it, carry it in a manifest, and build it again from one.

A manifest is not trusted: each statement must be the one CREATE that its kind says and runs under an authorizer, so
that it can neither attach a file nor load code. Virtual tables are never created through their module: as `.dump`
does, their row goes into `sqlite_schema` and their shadow tables are ordinary collections, which keeps them exact
even where the module is not installed.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from threading import RLock
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from blocks.errors import CorruptionDetected
from blocks.records import first_wrong
from blocks.sources.sqlite.rows import Rows, quoted, value_from_json, value_to_json

_VIRTUAL = re.compile(r"CREATE\s+VIRTUAL\s+TABLE\s", re.IGNORECASE)
_STATISTICS = re.compile(r"sqlite_stat[1-4]")


def fold(name: str) -> str:
    """Write a name so that two which SQLite takes for one are equal."""
    return "".join(c.lower() if c.isascii() else c for c in name)


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_manifest(cls, value: dict[str, JsonValue]) -> Self:
        """Read it back from a manifest.

        Raises:
            CorruptionDetected: The manifest does not describe an SQLite source.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            message = f"the manifest does not describe an SQLite database: {first_wrong(exc)}"
            raise CorruptionDetected(message) from exc

    def to_manifest(self) -> dict[str, JsonValue]:
        """Render it for a manifest."""
        value: dict[str, JsonValue] = self.model_dump(mode="json")
        return value


class SchemaObject(_Described):
    """One row of `sqlite_schema`; automatic indexes have no statement and are kept for the order."""

    type: Literal["table", "index", "view", "trigger"]
    name: str
    table: str
    sql: str | None

    def __str__(self) -> str:
        """Name it, with its kind, and with the table that it is on."""
        return f"{self.type} {self.label}"

    @property
    def label(self) -> str:
        """Its name, with that of the table that it is on."""
        return repr(self.name) if self.table == self.name else f"{self.name!r} of table {self.table!r}"

    @property
    def internal(self) -> bool:
        """Whether SQLite makes it by itself (counters, statistics, automatic indexes)."""
        return self.sql is None or self.name.lower().startswith("sqlite_")

    @property
    def virtual(self) -> bool:
        """Whether it is a virtual table."""
        return bool(self.sql and _VIRTUAL.match(self.sql))


class Database(_Described):
    """What a restore of a database needs besides the rows of its collections."""

    objects: tuple[SchemaObject, ...]
    sequence: tuple[tuple[JsonValue, JsonValue], ...]
    """`sqlite_sequence`: table and last used AUTOINCREMENT value."""
    statistics: dict[str, tuple[tuple[JsonValue, ...], ...]]
    """Rows of the tables that ANALYZE makes."""
    shadows: dict[str, tuple[str, ...]]
    """The shadow tables of each virtual table."""
    user_version: int
    application_id: int
    encoding: Literal["UTF-8", "UTF-16le", "UTF-16be"]
    page_size: int
    auto_vacuum: Literal[0, 1, 2]
    journal_mode: str
    narrowed: bool
    """Whether tables of the database were left out of the backup."""

    def owner(self, table: str) -> str:
        """Name the virtual table that a table is a shadow of; a table of its own is its own owner."""
        owners = {fold(shadow): name for name, shadows in self.shadows.items() for shadow in shadows}
        return owners.get(fold(table), table)

    @property
    def tables(self) -> list[str]:
        """The tables whose rows a backup of everything holds."""
        return [thing.name for thing in self.objects if thing.type == "table" and not (thing.internal or thing.virtual)]


class TableShape(_Described):
    """What a restore needs to know of one table besides its columns."""

    locator: tuple[str, ...]
    """The columns by whose order the table is stored and partitioned."""
    rowid: str | None
    """Name under which the rowid is carried as an extra column."""
    without_rowid: bool


def read_objects(connection: sqlite3.Connection) -> tuple[SchemaObject, ...]:
    """Read `sqlite_schema` in its stored order."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")
    return tuple(SchemaObject(type=t, name=n, table=on, sql=sql) for t, n, on, sql in rows)


def read_database(
    connection: sqlite3.Connection,
    objects: tuple[SchemaObject, ...],
    shadows: dict[str, tuple[str, ...]],
    unreadable: frozenset[str] = frozenset(),
) -> Database:
    """Read the definition of a database.

    Args:
        connection: A connection with a read transaction open.
        objects: Those of its objects that are backed up.
        shadows: The shadow tables of each virtual table.
        unreadable: Tables of SQLite's own whose rows are not asked for.
    """
    tables = {thing.name for thing in objects if thing.type == "table"}
    statistics = sorted(name for name in tables if _STATISTICS.fullmatch(name))

    def pragma(name: str) -> int | str:
        value: int | str = connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def kept(table: str) -> tuple[tuple[JsonValue, ...], ...]:
        if table in unreadable:
            return ()
        rows = Rows(connection, RLock(), f"SELECT * FROM {quoted(table)} ORDER BY rowid").all()
        return tuple(tuple(map(value_to_json, row)) for row in rows if row[0] in tables)

    return Database.model_validate(
        {
            "objects": objects,
            "sequence": kept("sqlite_sequence") if "sqlite_sequence" in tables else (),
            "statistics": {name: kept(name) for name in statistics},
            "shadows": shadows,
            "narrowed": len(objects) < len(read_objects(connection)),
            **{
                name: pragma(name)
                for name in ("user_version", "application_id", "encoding", "page_size", "auto_vacuum")
            },
            "journal_mode": pragma("journal_mode"),
        }
    )


def in_building_order(objects: Iterable[SchemaObject]) -> list[SchemaObject]:
    """Return what has to be created: tables first, then virtual tables, then all else in its own order."""
    named = [thing for thing in objects if not thing.internal]
    return sorted(named, key=lambda thing: 2 if thing.type != "table" else int(thing.virtual))


def belonging(database: Database, tables: set[str]) -> list[SchemaObject]:
    """Return the objects of some tables: themselves, their indexes and triggers, virtual tables they are shadows of."""
    owners = {owner for owner, shadows in database.shadows.items() if tables.issuperset(shadows) and shadows}
    return [thing for thing in database.objects if thing.table in tables or thing.table in owners]


def forget_virtual(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Take virtual tables out of the schema, which needs no module; their shadow tables stay as ordinary ones."""
    names = list(names)
    if not names:
        return
    connection.execute("PRAGMA writable_schema = ON")
    connection.executemany("DELETE FROM sqlite_schema WHERE type = 'table' AND name = ?", [(name,) for name in names])
    connection.execute("PRAGMA writable_schema = RESET")


def restore_statistics(connection: sqlite3.Connection, database: Database) -> None:
    """Fill the tables of ANALYZE as they were, as far as this build of SQLite has them."""
    if not database.statistics:
        return
    connection.execute("ANALYZE sqlite_schema")
    present = {thing.name for thing in read_objects(connection)}
    for table in sorted(present):
        if not _STATISTICS.fullmatch(table):
            continue
        connection.execute(f"DELETE FROM {table}")
        for row in database.statistics.get(table, ()):
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(map(value_from_json, row)))


def restore_order(connection: sqlite3.Connection, objects: Iterable[SchemaObject]) -> None:
    """Give `sqlite_schema` the order of `objects`; what is not among them comes after."""
    wanted = {(thing.type, thing.name): i for i, thing in enumerate(objects)}
    rows = connection.execute("SELECT rowid, type, name FROM sqlite_schema ORDER BY rowid").fetchall()
    ordered = sorted(rows, key=lambda row: wanted.get((row[1], row[2]), len(wanted)))
    if ordered == rows:
        return
    connection.execute("PRAGMA writable_schema = ON")
    moves = [(-new, old) for new, (old, _, _) in enumerate(ordered, 1)]
    connection.executemany("UPDATE sqlite_schema SET rowid = ? WHERE rowid = ?", moves)
    connection.execute("UPDATE sqlite_schema SET rowid = -rowid")
    connection.execute("PRAGMA writable_schema = RESET")
