"""What SQLite's own check finds in a database, asked on the snapshot that is backed up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from blocks.sources.sqlite.rows import quoted
from blocks.sources.sqlite.survey import Survey

_SHOWN_FINDINGS = 10


def findings(connection: sqlite3.Connection, kind: str, tables: Iterable[str], found: Survey) -> list[str]:
    """Return what a check finds, as sentences; nothing of it stops a backup.

    Args:
        connection: With its read transaction begun.
        kind: `quick` or `full`.
        tables: The ordinary tables of the database.
        found: What of the schema an application adds: an order that is not known here cannot be checked.
    """
    pragma = "quick_check" if kind == "quick" else "integrity_check"
    connection.execute("PRAGMA ignore_check_constraints = ON")
    foreign = {flaw.thing.table for flaw in found.flaws if flaw.outside}
    if not foreign:
        return _said(connection, pragma, f"{pragma}({_SHOWN_FINDINGS})")
    said: list[str] = []
    for table in tables:
        if table not in foreign and len(said) < _SHOWN_FINDINGS:
            said += _said(connection, pragma, f"{pragma}({quoted(table)})")
    return said[:_SHOWN_FINDINGS]


def _said(connection: sqlite3.Connection, pragma: str, call: str) -> list[str]:
    try:
        rows = connection.execute(f"PRAGMA {call}").fetchmany(_SHOWN_FINDINGS)
    except sqlite3.Error as exc:
        rows = [(str(exc),)]
    lines = [line.strip() for row in rows for line in str(row[0]).splitlines() if line.strip() != "ok"]
    return [
        f"The database is damaged: its {pragma} says {line!r}. What could be read of it is in this backup."
        for line in lines[:_SHOWN_FINDINGS]
        if not line.startswith("***")
    ]
