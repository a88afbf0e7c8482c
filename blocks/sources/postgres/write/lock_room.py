"""How many locks the one transaction of a restore takes, and for how many a server has room.

A server keeps room for all sessions together, `max_locks_per_transaction` for each that there can be, and what is left
of its memory beside; so what exceeds that number by little may still do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blocks.errors import PlaceUnfit
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.schema.contents import FIRST_OF_USERS
from blocks.sources.postgres.schema.entries import Entry

_ROOM = """
SELECT pg_catalog.current_setting('max_locks_per_transaction')::pg_catalog.int4,
       pg_catalog.sum(setting::pg_catalog.int4)::pg_catalog.int4 FROM pg_catalog.pg_settings WHERE name IN
       ('max_connections', 'max_prepared_transactions', 'max_worker_processes', 'max_wal_senders',
        CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name = 'autovacuum_worker_slots')
             THEN 'autovacuum_worker_slots' ELSE 'autovacuum_max_workers' END)
"""
_TABLES = """
WITH wanted (oid) AS (
    SELECT pg_catalog.to_regclass(t)::pg_catalog.oid FROM pg_catalog.unnest(%(of)s::text[]) t
), tables (oid, toast) AS (
    SELECT c.oid, c.reltoastrelid FROM pg_catalog.pg_class c JOIN wanted USING (oid)
)
SELECT pg_catalog.count(*)::pg_catalog.int4, pg_catalog.count(nullif(toast, 0))::pg_catalog.int4,
       (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM pg_catalog.pg_index JOIN tables ON oid = indrelid)
FROM tables
"""
_ALL = f"""
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class WHERE oid >= {FIRST_OF_USERS})
     + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_type WHERE oid >= {FIRST_OF_USERS})
     + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint WHERE oid >= {FIRST_OF_USERS})
     + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata)
"""
_MADE = {"TABLE": 5, "MATERIALIZED VIEW": 5, "SEQUENCE": 1, "VIEW": 1, "INDEX": 1, "CONSTRAINT": 1}
"""Locks that the entries of definitions take, by type; those of a table for its type and what is out of line, too."""

_SURELY_MORE = 2
_BESIDE = 1500
"""Up to so many times its room, and so many more, a server was seen to give."""


@dataclass(frozen=True)
class LockRoom:
    """What one transaction needs, and what there is.

    Attributes:
        needed: How many locks it takes at least, about.
        truncating: How many more it takes where tables are emptied in the fastest way.
        setting: The server's `max_locks_per_transaction`.
        sessions: How many sessions it keeps room for.
    """

    needed: int
    truncating: int
    setting: int
    sessions: int

    @property
    def scarce(self) -> bool:
        """Whether the server may have too few."""
        return self.needed + self.truncating > self.setting * self.sessions

    @property
    def said(self) -> str:
        """A clause that says how many, and of how many."""
        return (
            f"one transaction takes some {self.needed} locks for all that is restored there, and the server has room"
            f" for some {self.setting * self.sessions} (max_locks_per_transaction is {self.setting})"
        )

    @property
    def hint(self) -> str:
        """What can be done."""
        wanted = math.ceil(self.needed * 1.2 / self.sessions)
        return (
            f"Set max_locks_per_transaction to {max(wanted, self.setting + 1)} or more and restart the server; or"
            " restore all of it to a missing database with --to, which is built in many transactions."
        )

    def refuse(self, place: str) -> None:
        """Refuse what surely does not fit.

        Raises:
            PlaceUnfit: It does not.
        """
        if self.needed > _SURELY_MORE * self.setting * self.sessions + _BESIDE:
            raise PlaceUnfit(f"cannot restore to {place}: {self.said}", hint=self.hint)


def lock_room(session: Session, needed: int, truncating: int = 0) -> LockRoom:
    """Compare a number of locks with the room of a server."""
    row = session.execute(_ROOM.encode()).fetchone()
    assert row is not None
    setting, sessions = (int(str(value)) for value in row)
    return LockRoom(needed, truncating, setting, sessions)


def locks_of_rows(session: Session, tables: Sequence[str]) -> tuple[int, int]:
    """Count the locks for rows of tables (quoted) that are there, and how many more it takes to truncate them."""
    row = session.execute(_TABLES, {"of": list(tables)}).fetchone()
    assert row is not None
    found, toasts, indexes = (int(str(value)) for value in row)
    return found + indexes, 2 * toasts


def locks_of_all(session: Session) -> int:
    """Count the locks for dropping all that a database holds."""
    row = session.execute(_ALL.encode()).fetchone()
    assert row is not None
    return int(str(row[0]))


def locks_of_entries(entries: Iterable[Entry]) -> int:
    """Count the locks for running definitions."""
    return sum(_MADE.get(entry.type, 0) for entry in entries)
