"""Builds a database that was missing: under another name, with several sessions, renamed when it is complete.

Nobody knows the database before its end, so nothing in it needs one transaction: parts of rows are written side by
side, and so are indexes and constraints made afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from blocks.sources.base import CollectionSpec, RestoreScope
from blocks.sources.postgres.backup import Backup
from blocks.sources.postgres.connect import Session, connect
from blocks.sources.postgres.copy import copy_rows
from blocks.sources.postgres.entries import split
from blocks.sources.postgres.finish import run_side_by_side
from blocks.sources.postgres.once import Once
from blocks.sources.postgres.rows import LargeObjects
from blocks.sources.postgres.scratch import Temporary
from blocks.sources.postgres.sequences import set_sequences
from blocks.sources.postgres.sessions import Sessions, enlarge_memory
from blocks.sources.postgres.tables import LARGE_OBJECTS, TableShape

CONNECTIONS = 4
"""Sessions that make indexes and constraints; of parts, only a window of two is written at a time."""

_SETTINGS = """
SET synchronous_commit = off;
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout';
"""


class Build:
    """One database in the making.

    Args:
        conninfo: The database that is missing.
        scope: What is restored.
        backup: What the manifest says of the database.
        timeout_seconds: How long to wait for a connection.
        keep: Takes the database where it stays a temporary one: that of a verification.
    """

    def __init__(
        self,
        conninfo: str,
        scope: RestoreScope,
        backup: Backup,
        timeout_seconds: float,
        keep: Callable[[Temporary], None],
    ) -> None:
        self._conninfo, self._scope, self._backup, self._timeout = conninfo, scope, backup, timeout_seconds
        self._keep = keep
        self._totals = {spec.name: rows for spec, rows in scope.collections}
        self._begin = Once(self._create)
        self._database: Temporary | None = None
        self._preamble, self._entries = split(backup.after)
        self._sessions = Sessions(self._open, CONNECTIONS)
        self.notes: list[str] = []

    def _open(self) -> Session:
        assert self._database is not None
        session = connect(self._database.conninfo, self._timeout)
        session.execute((self._preamble + _SETTINGS).encode())
        enlarge_memory(session)
        return session

    def _create(self) -> None:
        self._database = Temporary(self._conninfo, self._timeout)
        self.notes += self._database.create(self._backup.encoding, self._backup.collate, self._backup.ctype)
        with self._sessions.lend() as session:
            session.execute(self._backup.before.encode())

    def begin(self) -> None:
        """Begin to create the database."""
        self._begin.ahead()

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> None:
        """Write the rows of one part; several at a time."""
        self._begin()
        with self._sessions.lend() as session, session.transaction():
            if collection.name == LARGE_OBJECTS:
                LargeObjects(session, self._scope, self._backup.before, fresh=True).write(rows)
                return
            shape = TableShape.of(collection)
            alone = rows.num_rows == self._totals.get(collection.name)
            # rows can be written as frozen ones only into a table that the same transaction has emptied
            frozen = alone and _empty(session, shape.quoted)
            copy_rows(session, shape.quoted, shape.columns, rows, freeze=frozen)

    def commit(self) -> None:
        """Set sequences, make indexes, constraints and triggers, fill materialised views; then give it its name."""
        self._begin()
        assert self._database is not None
        with self._sessions.lend() as session, session.transaction():
            self.notes += set_sequences(session, self._backup.sequences, None, set())
        run_side_by_side(self._sessions, self._entries, CONNECTIONS)
        self._sessions.close()
        if not self._database.complete():
            self._keep(self._database)
        self._database = None

    def abort(self) -> None:
        """Drop what there is of it."""
        self._begin.settle()
        self._sessions.close()
        if self._database is not None:
            database, self._database = self._database, None
            database.drop()


def _empty(session: Session, table: str) -> bool:
    """Empty a table, if its owner has not taken that privilege away; there is nothing in it."""
    may = session.execute("SELECT pg_catalog.has_table_privilege(%s, 'TRUNCATE')", (table,)).fetchone()
    if not (may and may[0]):
        return False
    session.execute(f"TRUNCATE ONLY {table}".encode())
    return True
