"""Makes a missing database of single tables: under another name, in one transaction, renamed when it is complete."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from blocks.sources.base import CollectionSpec
from blocks.sources.postgres.backup import Backup
from blocks.sources.postgres.inplace import InPlace
from blocks.sources.postgres.once import Once
from blocks.sources.postgres.scratch import Temporary


class Partial:
    """One database in the making.

    Args:
        conninfo: The database that is missing.
        backup: What the manifest says of the database.
        timeout_seconds: How long to wait for a connection.
        write: Opens the restore into a database that is there.
    """

    def __init__(self, conninfo: str, backup: Backup, timeout_seconds: float, write: Callable[[str], InPlace]) -> None:
        self._conninfo, self._backup, self._timeout, self._write = conninfo, backup, timeout_seconds, write
        self._begin = Once(self._create)
        self._database: Temporary | None = None
        self._inside: InPlace | None = None
        self.notes: list[str] = []

    def _create(self) -> None:
        self._database = Temporary(self._conninfo, self._timeout)
        self.notes += self._database.create(self._backup.encoding, self._backup.collate, self._backup.ctype)
        self._inside = self._write(self._database.conninfo)

    def _begun(self) -> InPlace:
        self._begin()
        assert self._inside is not None
        return self._inside

    def begin(self) -> None:
        """Begin to create the database."""
        self._begin.ahead()

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> None:
        """Write the rows of one part."""
        self._begun().apply(collection, rows)

    def commit(self) -> None:
        """Complete it and give it its name."""
        inside = self._begun()
        inside.commit()
        self.notes += inside.notes
        assert self._database is not None
        self._database.complete()
        self._database = None

    def abort(self) -> None:
        """Drop what there is of it."""
        self._begin.settle()
        if self._inside is not None:
            self._inside.abort()
        if self._database is not None:
            database, self._database = self._database, None
            database.drop()
