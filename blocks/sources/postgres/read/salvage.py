"""A view that goes on past tables that cannot be read: for the backup that is made before a restore.

Whole tables are left out, because a row of a table that is damaged may be anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import psycopg
import pyarrow as pa

from blocks.errors import SourceUnavailable, TemporaryFolderUnusable, UnsupportedState
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.postgres.connect import identifier, translated
from blocks.sources.postgres.read.view import PostgresView
from blocks.sources.reading import BaseLookup, FullRead, Reading
from blocks.sources.view import Unread

_ATTEMPTS = 2


class SalvageView(PostgresView):
    """One consistent look at what can be read of a database; `unread` is complete when all parts were read."""

    _unread: dict[str, Unread]
    _guard: Lock

    def set_unread(self, unread: Sequence[Unread]) -> None:
        """Begin with the tables that the role may not read."""
        self._unread, self._guard = {str(one.collection): one for one in unread}, Lock()

    @property
    def unread(self) -> Sequence[Unread]:
        """What could not be read so far."""
        with self._guard:
            return tuple(self._unread.values())

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition a table; one part where it cannot even be looked at."""
        try:
            doing = f"cannot partition {collection.name} in"
            with self._lock, translated(self._place, doing), self._session.transaction():
                return super().partition(collection)
        except (SourceUnavailable, UnsupportedState) as exc:
            self._leave_out(collection, exc)
            shape = self._table(collection).shape
            return [{"after": None, "upto": None}] if shape.ordered else [{"share": 0, "of": 1}]

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> Reading:
        """Read the rows of one part, once more where it fails; nothing of a table that cannot be read."""
        for attempt in range(1, _ATTEMPTS + 1):
            if collection.name in self._unread:
                break
            try:
                return super().read(collection, bounds, base)
            except TemporaryFolderUnusable:
                self._read_part_by_part(collection)
                if attempt == _ATTEMPTS:
                    raise
            except (SourceUnavailable, UnsupportedState) as exc:
                if attempt == _ATTEMPTS:
                    self._leave_out(collection, exc)
        return FullRead(self._nothing(collection))

    def _read_part_by_part(self, collection: CollectionSpec) -> None:
        """Let no rows wait for other parts: that takes longer, and no room."""
        with self._lock:
            before, self._heap_scans[collection.name] = self._heap_scans.get(collection.name), None
        if before is not None:
            before.discard()

    def _leave_out(self, collection: CollectionSpec, error: SourceUnavailable | UnsupportedState) -> None:
        """Note a table, if it is the table that cannot be read, and not the server.

        Raises:
            SourceUnavailable: The server went away.
        """
        with self._lock:
            try:
                self._session.execute("SELECT 1")
            except psycopg.Error:
                raise error from None
        with self._guard:
            self._unread.setdefault(collection.name, Unread(error.message, collection.name))

    def _nothing(self, collection: CollectionSpec) -> pa.Table:
        """Return no rows, with the columns and types that the table's rows have; the table is not looked at."""
        table = self._table(collection)
        shape = table.shape
        columns = [(f"NULL::{c.type}", c.read, identifier(c.name)) for c in shape.columns]
        if shape.row is not None:
            columns += [(empty, identifier(n), identifier(n)) for empty, n in zip(_ROW, shape.row, strict=True)]
        made = ", ".join(f"{empty} AS {name}" for empty, _, name in columns)
        read = ", ".join(f"{expression} AS {name}" for _, expression, name in columns)
        return self._rows(table, f"SELECT {read} FROM (SELECT {made}) none WHERE false")


_ROW = ("''::text", "0::int8")
"""What the hash and the number of a row without a key are like."""
