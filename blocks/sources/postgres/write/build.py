"""Builds a database that was missing: under another name, with several sessions, renamed when it is complete.

Nobody knows the database before its end, so nothing in it needs one transaction: parts of rows are written side by
side, and so are indexes and constraints made afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pyarrow as pa

from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import Session, connect, place_of, settings_of
from blocks.sources.postgres.run_once import RunOnce
from blocks.sources.postgres.schema.checks import put_checks_aside
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.schema.entries import Entry, split
from blocks.sources.postgres.schema.sequences import set_sequences
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, TableShape
from blocks.sources.postgres.sessions import Sessions, enlarge_memory
from blocks.sources.postgres.write.aside import aside_name, stamp
from blocks.sources.postgres.write.copy import copy_rows
from blocks.sources.postgres.write.finish import run_side_by_side
from blocks.sources.postgres.write.large_objects import LargeObjects
from blocks.sources.postgres.write.pieces import in_pieces
from blocks.sources.postgres.write.rebuild import Rebuild, lose_missing
from blocks.sources.postgres.write.scratch import TemporaryDatabase
from blocks.sources.target import RestoreScope

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
        scope: The collections, rows and mode of the restore.
        backup: What the manifest says of the database.
        timeout_seconds: How long to wait for a connection.
        keep: Takes the database where it stays a temporary one: that of a verification.
        aside: Whether the database is there, and is renamed at the end.
    """

    def __init__(
        self,
        conninfo: str,
        scope: RestoreScope,
        backup: Backup,
        timeout_seconds: float,
        keep: Callable[[TemporaryDatabase], None],
        *,
        aside: bool = False,
    ) -> None:
        self._conninfo, self._scope, self._backup, self._timeout = conninfo, scope, backup, timeout_seconds
        self._keep, self._name = keep, settings_of(conninfo).get("dbname", "")
        self.rebuild, self._checks = Rebuild(place_of(conninfo), self._name, scope.keep_going), list[Entry]()
        self._aside = aside_name(self._name, stamp()) if aside else None
        self._totals = {spec.name: rows for spec, rows in scope.collections}
        self._begin = RunOnce(self._create)
        self._database: TemporaryDatabase | None = None
        self._preamble, self._entries = split(backup.after)
        self._sessions = Sessions(self._open, CONNECTIONS)
        self.changed = False
        self.notes: list[str] = []

    def _open(self) -> Session:
        assert self._database is not None
        session = connect(self._database.conninfo, self._timeout)
        session.execute((self._preamble + _SETTINGS).encode())
        enlarge_memory(session)
        return session

    def _create(self) -> None:
        self._database = TemporaryDatabase(self._conninfo, self._timeout, self._scope.plan, self._aside)
        self.notes += self._database.create(self._backup.encoding, self._backup.collate, self._backup.ctype)
        with self._sessions.lend() as session:
            self.rebuild.make(session, self._backup.before)
            lose_missing(session, self.rebuild, [spec for spec, _ in self._scope.collections])
            self._checks = put_checks_aside(session, None)

    def begin(self) -> None:
        """Begin to create the database."""
        self._begin.prefetch()

    def open(self) -> None:
        """See that the database is created."""
        self._begin()

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part, several at a time; return how many the server took.

        Args:
            collection: A table, or the large objects.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        self._begin()
        with self._sessions.lend() as session:
            return self.rebuild.write(session, collection, rows, lambda some: self._write(session, collection, some))

    def _write(self, session: Session, collection: CollectionSpec, rows: pa.Table) -> None:
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
        with self._sessions.lend() as session:
            for piece in in_pieces(self._backup.sequences):
                with session.transaction():
                    self.notes += set_sequences(session, piece, None, set())
        run_side_by_side(
            self._sessions, [*self._checks, *self.rebuild.put_aside, *self._entries], CONNECTIONS, self.rebuild
        )
        self._sessions.close()
        self.changed = True  # also where this process is interrupted before it hears of that
        try:
            self._complete(self._database)
        except psycopg.Error:
            self.changed = False
            raise
        self._database = None

    def _complete(self, database: TemporaryDatabase) -> None:
        if not database.complete():
            self._keep(database)
        if self._aside is not None:
            self.notes.append(
                f"The database {self._name} is now {self._aside}, with its own settings and privileges; drop it when"
                " you need it no more."
            )

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
