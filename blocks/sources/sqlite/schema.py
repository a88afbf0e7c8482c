"""The schema of an SQLite database: read it, carry it in a manifest, and build it again from one.

A manifest is not trusted: each statement must be the one CREATE that its kind says and runs under an authorizer, so
that it can neither attach a file nor load code. Virtual tables are never created through their module: as `.dump`
does, their row goes into `sqlite_schema` and their shadow tables are ordinary collections, which keeps them exact
even where the module is not installed.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from blocks.errors import RestoreRefused
from blocks.sources.sqlite.rows import Rows, quoted, value_from_json, value_to_json

_CREATE = {
    "table": re.compile(r"CREATE\s+(VIRTUAL\s+)?TABLE\s", re.IGNORECASE),
    "index": re.compile(r"CREATE\s+(UNIQUE\s+)?INDEX\s", re.IGNORECASE),
    "view": re.compile(r"CREATE\s+VIEW\s", re.IGNORECASE),
    "trigger": re.compile(r"CREATE\s+TRIGGER\s", re.IGNORECASE),
}
_VIRTUAL = re.compile(r"CREATE\s+VIRTUAL\s+TABLE\s", re.IGNORECASE)
_STATISTICS = re.compile(r"sqlite_stat[1-4]")
_ALLOWED = frozenset(
    {
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VTABLE,
        sqlite3.SQLITE_REINDEX,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_RECURSIVE,
    }
)
_OWN_TABLES_ONLY = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_REFUSED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_manifest(cls, value: dict[str, JsonValue]) -> Self:
        """Read it back from a manifest.

        Raises:
            RestoreRefused: The manifest does not describe an SQLite source.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as exc:
            raise RestoreRefused(f"the manifest does not describe an SQLite database: {exc}") from exc

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


class TableShape(_Described):
    """What a restore needs to know of one table besides its columns."""

    locator: tuple[str, ...]
    """The columns by whose order the table is stored, and its parts are drawn."""
    rowid: str | None
    """Name under which the rowid is carried as an extra column."""
    without_rowid: bool


def read_objects(connection: sqlite3.Connection) -> tuple[SchemaObject, ...]:
    """Read `sqlite_schema` in its stored order."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")
    return tuple(SchemaObject(type=t, name=n, table=on, sql=sql) for t, n, on, sql in rows)


def read_database(
    connection: sqlite3.Connection, objects: tuple[SchemaObject, ...], shadows: dict[str, tuple[str, ...]]
) -> Database:
    """Read the definition of a database.

    Args:
        connection: With the snapshot open.
        objects: Those of its objects that are backed up.
        shadows: The shadow tables of each virtual table.
    """
    tables = {thing.name for thing in objects if thing.type == "table"}
    statistics = sorted(name for name in tables if _STATISTICS.fullmatch(name))

    def pragma(name: str) -> int | str:
        value: int | str = connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def kept(table: str) -> tuple[tuple[JsonValue, ...], ...]:
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


def _judge(action: int, first: str | None, second: str | None, schema: str | None, _: str | None) -> int:
    """Answer SQLite's authorizer while a statement of a manifest is prepared."""
    if schema not in (None, "main"):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION:
        refused = (second or "").lower() in _REFUSED_FUNCTIONS
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK
    if action in _OWN_TABLES_ONLY:
        own = first in ("sqlite_master", "sqlite_schema", "sqlite_sequence")
        return sqlite3.SQLITE_OK if own else sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


@contextmanager
def _guarded(connection: sqlite3.Connection) -> Iterator[None]:
    connection.set_authorizer(_judge)
    try:
        yield
    finally:
        connection.set_authorizer(None)


def create(connection: sqlite3.Connection, thing: SchemaObject) -> None:
    """Create one object from its statement in a manifest.

    Raises:
        RestoreRefused: The statement is not the one harmless CREATE that it should be, or fails here.
    """
    if not thing.sql or not _CREATE[thing.type].match(thing.sql):
        raise RestoreRefused(f"the manifest's statement for {thing.type} {thing.name!r} is not a CREATE of it")
    if "\0" in thing.sql or not sqlite3.complete_statement(f"{thing.sql}\n;"):
        raise RestoreRefused(f"the manifest's statement for {thing.type} {thing.name!r} is not complete")
    try:
        with _guarded(connection):
            # a virtual table's statement is only prepared: EXPLAIN does not run it
            connection.execute(f"EXPLAIN {thing.sql}" if thing.virtual else thing.sql).fetchall()
        if thing.virtual:
            _insert_virtual(connection, thing)
    except sqlite3.Error as exc:
        raise RestoreRefused(
            f"{thing.type} {thing.name!r} cannot be created here: {exc}",
            hint="A function, collation or module that the application adds may be missing here.",
        ) from exc
    named = connection.execute(
        "SELECT count(*) FROM sqlite_schema WHERE type = ? AND name = ?", (thing.type, thing.name)
    )
    if named.fetchone() != (1,):
        raise RestoreRefused(f"the manifest's statement for {thing.type} {thing.name!r} creates something else")


def _insert_virtual(connection: sqlite3.Connection, thing: SchemaObject) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)",
        (thing.name, thing.sql),
    )
    connection.execute("PRAGMA writable_schema = RESET")


def rehearse(objects: Iterable[SchemaObject]) -> list[str]:
    """Create all objects in an empty database in memory; say, as sentences, what cannot be created here."""
    problems = []
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for thing in in_building_order(objects):
            try:
                create(connection, thing)
            except RestoreRefused as exc:
                problems.append(f"{exc.message}.")
    finally:
        connection.close()
    return problems


def in_building_order(objects: Iterable[SchemaObject]) -> list[SchemaObject]:
    """Return what has to be created: tables first, then virtual tables, then all else in its own order."""
    named = [thing for thing in objects if not thing.internal]
    return sorted(named, key=lambda thing: 2 if thing.type != "table" else int(thing.virtual))


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
