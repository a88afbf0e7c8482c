"""What of a restored database is compared beside its rows: its schema, its settings, and its counters."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from blocks.sources.proving import DefinedObject, StoreFinding, counted
from blocks.sources.sqlite.rows import quoted
from blocks.sources.sqlite.schema import SchemaObject, read_objects
from blocks.verification import Axis, CheckOutcome

_SETTINGS = ("user_version", "application_id", "encoding", "page_size", "auto_vacuum", "journal_mode")


def check_counters(connection: sqlite3.Connection) -> Iterator[StoreFinding]:
    """Look for AUTOINCREMENT counters that are behind their tables, which SQLite goes on from all the same.

    Args:
        connection: A connection to the restored database.
    """
    tables = {thing.name for thing in read_objects(connection) if thing.type == "table"}
    if "sqlite_sequence" not in tables:
        return
    for name, last in connection.execute("SELECT name, seq FROM sqlite_sequence ORDER BY rowid").fetchall():
        if name not in tables or not isinstance(last, int):
            continue
        count = f"SELECT count(*) FROM {quoted(name)} WHERE rowid > ?"
        (rows,) = connection.execute(count, (last,)).fetchone()
        if rows:
            said = f"The AUTOINCREMENT counter of table {name!r} is behind {counted(rows)} of it."
            yield StoreFinding(Axis.QUALITY, said, CheckOutcome.GOOD)


def defined_objects(definition: Mapping[str, JsonValue]) -> Iterator[DefinedObject]:
    """Yield the objects of a schema, and what else the file of a database keeps.

    What SQLite makes by itself is left out (automatic indexes), and what it keeps of ANALYZE, which not all builds do.

    Args:
        definition: From a manifest or a view; entries of it may be left out.
    """
    objects = definition.get("objects")
    for raw in objects if isinstance(objects, list) else ():
        thing = SchemaObject.model_validate(raw)
        if not thing.internal and thing.sql is not None:
            yield DefinedObject(thing.type, thing.label, thing.sql, guards=thing.type in ("index", "trigger"))
    for name in _SETTINGS:
        if name in definition:
            yield DefinedObject("setting", name, str(definition[name]))
    counters = definition.get("sequence")
    for row in counters if isinstance(counters, list) else ():
        if isinstance(row, list):
            yield DefinedObject("counter", f"of table {row[0]!r}", str(row[1]), moves=True)
