"""Makes a missing database of single tables: under another name, in one transaction, renamed when it is complete."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pyarrow as pa

from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.run_once import RunOnce
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.write.in_place import InPlace
from blocks.sources.postgres.write.scratch import TemporaryDatabase


class Partial:
    """One database in the making.

    Args:
        conninfo: The database that is missing.
        backup: What the manifest says of the database.
        timeout_seconds: How long to wait for a connection.
        write: Opens the restore into a database that is there.
        plan: Name of the plan.
    """

    def __init__(
        self, conninfo: str, backup: Backup, timeout_seconds: float, write: Callable[[str], InPlace], plan: str
    ) -> None:
        self._conninfo, self._backup, self._timeout, self._write = conninfo, backup, timeout_seconds, write
        self._plan, self.changed = plan, False
        self._begin = RunOnce(self._create)
        self._database: TemporaryDatabase | None = None
        self._inside: InPlace | None = None
        self.notes: list[str] = []

    def _create(self) -> None:
        self._database = TemporaryDatabase(self._conninfo, self._timeout, self._plan)
        self.notes += self._database.create(self._backup.encoding, self._backup.collate, self._backup.ctype)
        self._inside = self._write(self._database.conninfo)

    def _begun(self) -> InPlace:
        self._begin()
        assert self._inside is not None
        return self._inside

    def begin(self) -> None:
        """Begin to create the database."""
        self._begin.prefetch()

    def open(self) -> None:
        """See that the database is created, and holds what has to be before the first rows."""
        self._begun().open()

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part; return how many the server took.

        Args:
            collection: A table, or the large objects.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        return self._begun().apply(collection, rows)

    def commit(self) -> None:
        """Complete it and give it its name."""
        inside = self._begun()
        inside.commit()
        self.notes += inside.notes
        assert self._database is not None
        self.changed = True  # also where this process is interrupted before it hears of that
        try:
            self._database.complete()
        except psycopg.Error:
            self.changed = False
            raise
        self._database = None

    def abort(self) -> None:
        """Drop what there is of it."""
        self._begin.settle()
        if self._inside is not None:
            self._inside.abort()
        if self._database is not None:
            database, self._database = self._database, None
            database.drop()
