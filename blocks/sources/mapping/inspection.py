"""Looks into a file that may be a file of state; run as a program of its own, which prints what it found as JSON.

A process that opens and closes a file drops all the locks that it holds on it, also those that another library, or the
application that this runs in, has set. So a file that is not known to be ours is only opened by a child.
Nothing but the standard library is imported here.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing

SCHEMA = "CREATE TABLE state (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL)"
_MAGIC = b"SQLite format 3\0"
_WAIT_SECONDS = 1.0


def inspect(path: str, writing: bool) -> dict[str, object]:
    """Report what a file is: whether it is one of state and of how many keys, or why it is not or cannot be used."""
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return {"ours": False, "why": "it is no SQLite database"}
    try:
        with closing(sqlite3.connect(path, _WAIT_SECONDS, isolation_level=None)) as database:
            if not _is_ours(database):
                return {"ours": False, "why": "it is a database of something else"}
            (keys,) = database.execute("SELECT count(*) FROM state").fetchone()
            if writing:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            return {"ours": True, "keys": keys}
    except sqlite3.Error as exc:
        return {"ours": False, "why": f"it cannot be used: {exc}"}


def _is_ours(database: sqlite3.Connection) -> bool:
    schema = database.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    marks = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return schema == [("table", "state", SCHEMA)] and marks == [0, 0]


if __name__ == "__main__":
    try:
        found = inspect(sys.argv[1], sys.argv[2] == "writing")
    except OSError as error:
        found = {"ours": False, "why": f"it cannot be read: {error.strerror}"}
    sys.stdout.write(json.dumps(found))
