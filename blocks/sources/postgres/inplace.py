"""Writes into a database that is there, in one transaction that nobody sees before its end.

An empty one is built, one whose definitions differ is dropped inside and built again, and any other gets its rows, and
the tables that it lacks.
"""

from __future__ import annotations

from threading import Lock

import pyarrow as pa

from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.postgres.backup import Backup
from blocks.sources.postgres.connect import Session, connect
from blocks.sources.postgres.live import drop_everything
from blocks.sources.postgres.missing import Missing
from blocks.sources.postgres.once import Once
from blocks.sources.postgres.rows import LargeObjects, RowWriter
from blocks.sources.postgres.sequences import materialized_views, set_sequences
from blocks.sources.postgres.sessions import enlarge_memory
from blocks.sources.postgres.tables import LARGE_OBJECTS, TableShape


class InPlace:
    """One transaction in a database that is there.

    Args:
        conninfo: The database.
        scope: What is restored.
        backup: What the manifest says of the database.
        timeout_seconds: How long to wait for a connection.
        lock_timeout_seconds: How long to wait for a lock.
        build: Whether all is made from the backup's definitions.
        replace: Whether what is there is dropped first.
        missing: The tables that it lacks.
    """

    def __init__(
        self,
        conninfo: str,
        scope: RestoreScope,
        backup: Backup,
        timeout_seconds: float,
        lock_timeout_seconds: float,
        *,
        build: bool = False,
        replace: bool = False,
        missing: Missing | None = None,
    ) -> None:
        self._conninfo, self._scope, self._backup = conninfo, scope, backup
        self._timeout, self._lock_timeout = timeout_seconds, lock_timeout_seconds
        self._build, self._replace, self._missing = build or replace, replace, missing
        self._lock, self._begin = Lock(), Once(self._open)
        self._session: Session | None = None
        self._rows: RowWriter | None = None
        self._large: LargeObjects | None = None
        self.notes: list[str] = []

    def begin(self) -> None:
        """Nothing: what is locked and emptied is held for no longer than it takes to write."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> None:
        """Write the rows of one part; one at a time, because one transaction is one session."""
        with self._lock:
            self._begin()
            assert self._rows is not None
            assert self._large is not None
            if collection.name == LARGE_OBJECTS:
                self._large.write(rows)
            else:
                self._rows.write(collection, rows)

    def _open(self) -> None:
        self._session = session = connect(self._conninfo, self._timeout)
        session.execute("BEGIN")
        session.execute(f"SET LOCAL lock_timeout = {round(self._lock_timeout * 1000)}".encode())
        enlarge_memory(session)
        if self._replace:
            drop_everything(session)
        if self._build:
            session.execute(self._backup.before.encode())
        made = {spec.name for spec, _ in self._scope.collections} if self._build else set()
        if self._missing is not None:
            self._missing.create(session)
            made = set(self._missing.collections)
        self._rows = RowWriter(session, self._scope, made)
        if not self._build:
            self._rows.clear()
        self._large = LargeObjects(session, self._scope, self._backup.before, self._build)

    def commit(self) -> None:
        """Bring indexes, constraints and triggers back, set sequences, refresh materialised views, commit."""
        with self._lock:
            self._begin()
            session, rows, large = self._session, self._rows, self._large
            assert session is not None
            assert rows is not None
            assert large is not None
            large.finish()
            made = self._missing.sequences if self._missing is not None else set()
            self.notes += set_sequences(
                session, self._backup.sequences, self._exact_tables(), set(self._tables().values()), made
            )
            if self._build:
                session.execute(self._backup.after.encode())
            else:
                self._finish(session, rows)
            session.execute("COMMIT")
            session.close()

    def _finish(self, session: Session, rows: RowWriter) -> None:
        if self._missing is not None:
            self._missing.finish(session)
            self.notes += self._missing.notes
        rows.finish()
        for view in materialized_views(session, self._backup.after):
            session.execute(f"REFRESH MATERIALIZED VIEW {view}".encode())

    def _exact_tables(self) -> set[tuple[str, str]] | None:
        """Return the tables whose sequences are set as they were; None for all sequences."""
        whole = self._scope.selection.everything and not self._scope.narrowed
        if self._build or (whole and self._scope.mode is RestoreMode.EXACT):
            return None
        if self._scope.mode is RestoreMode.MERGE:
            return set()
        return {at for name, at in self._tables().items() if not self._scope.selection_of(name).narrows_keys}

    def _tables(self) -> dict[str, tuple[str, str]]:
        shapes = {spec.name: TableShape.of(spec) for spec, _ in self._scope.collections}
        return {name: (shape.schema, shape.table) for name, shape in shapes.items()}

    def abort(self) -> None:
        """Roll back."""
        with self._lock:
            if self._session is not None:
                # an open transaction is rolled back by closing
                self._session.close()
