"""Creating objects from the statements of a manifest, none of which is trusted.

Collations and functions that an application adds are not here. What does not sort or compute by them is created with
stand-ins for them; `survey.py` says what does.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from blocks.errors import PlaceUnfit, RestoreRefused
from blocks.sources.sqlite.connect import error_family
from blocks.sources.sqlite.schema import SchemaObject

_CREATE = {
    "table": re.compile(r"CREATE\s+(VIRTUAL\s+)?TABLE\s", re.IGNORECASE),
    "index": re.compile(r"CREATE\s+(UNIQUE\s+)?INDEX\s", re.IGNORECASE),
    "view": re.compile(r"CREATE\s+VIEW\s", re.IGNORECASE),
    "trigger": re.compile(r"CREATE\s+TRIGGER\s", re.IGNORECASE),
}
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
_MISSING = re.compile(r"no such (collation sequence|function): (.+)")
_MOST_STAND_INS = 1000

StandIn = tuple[str, str]
"""`collation` or `function`, and the name."""


def _by_bytes(one: str, other: str) -> int:
    # the order of BINARY, which tells apart all that any collation does
    left, right = one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    return (left > right) - (left < right)


def add_stand_in(connection: sqlite3.Connection, stand_in: StandIn) -> None:
    """Add a collation that sorts as BINARY does, or a function whose value is NULL."""
    kind, name = stand_in
    if kind == "collation":
        connection.create_collation(name, _by_bytes)
    else:
        connection.create_function(name, -1, lambda *_: None, deterministic=True)


def with_stand_ins(connection: sqlite3.Connection, statement: str) -> list[StandIn]:
    """Execute a statement, adding what SQLite says is missing; return what was added.

    Raises:
        sqlite3.Error: It fails for another reason.
    """
    added: list[StandIn] = []
    while True:
        try:
            connection.execute(statement).fetchall()
        except sqlite3.OperationalError as exc:
            missing = _MISSING.fullmatch(str(exc))
            if missing is None or len(added) >= _MOST_STAND_INS:
                raise
            stand_in = (missing[1].split()[0], missing[2])
            if stand_in in added:
                raise
            add_stand_in(connection, stand_in)
            added.append(stand_in)
        else:
            return added


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


def create(connection: sqlite3.Connection, thing: SchemaObject) -> list[StandIn]:
    """Create one object from its statement in a manifest; return the stand-ins that were added to the connection.

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
            added = with_stand_ins(connection, f"EXPLAIN {thing.sql}" if thing.virtual else thing.sql)
        if thing.virtual:
            _insert_virtual(connection, thing)
    except sqlite3.Error as exc:
        kind = PlaceUnfit if error_family(exc) == "SQLITE_FULL" else RestoreRefused
        raise kind(f"{thing.type} {thing.name!r} cannot be created here: {exc}") from exc
    named = connection.execute(
        "SELECT count(*) FROM sqlite_schema WHERE type = ? AND name = ?", (thing.type, thing.name)
    )
    if named.fetchone() != (1,):
        raise RestoreRefused(f"the manifest's statement for {thing.type} {thing.name!r} creates something else")
    return added


def _insert_virtual(connection: sqlite3.Connection, thing: SchemaObject) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, sql) VALUES ('table', ?1, ?1, 0, ?2)",
        (thing.name, thing.sql),
    )
    connection.execute("PRAGMA writable_schema = RESET")
