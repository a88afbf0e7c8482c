"""Full-text indexes after rows were restored: triggers did not fire, so the indexes know nothing of them."""

from __future__ import annotations

import re
import sqlite3

from blocks.sources.sqlite.rows import quoted
from blocks.sources.sqlite.schema import read_objects

_FULL_TEXT = re.compile(r"\bUSING\s+[\"'`\[]?fts[345]\b", re.IGNORECASE)
_CONTENT = re.compile(r"\bcontent\s*=\s*[\"'`\[]?([^\"'`\],)]+)", re.IGNORECASE)


def rebuild_full_text(connection: sqlite3.Connection, replaced: set[str], written: set[str]) -> list[str]:
    """Index restored rows again; return notes of the indexes that stay as they are.

    Args:
        connection: A connection with a write transaction open.
        replaced: Virtual tables whose shadow tables were restored.
        written: Tables whose rows were written, which may be the content of a full-text index.
    """
    notes = []
    for thing in read_objects(connection):
        if not (thing.virtual and thing.sql and _FULL_TEXT.search(thing.sql)):
            continue
        content = _CONTENT.search(thing.sql)
        if thing.name not in replaced and not (content and content[1].strip() in written):
            continue
        name = quoted(thing.name)
        try:
            connection.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")
        except sqlite3.OperationalError as exc:
            notes.append(f"Virtual table {thing.name!r} keeps its index as it is: {exc}.")
    return notes
