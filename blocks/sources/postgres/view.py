"""One consistent look at a database: an exported snapshot that every connection of the backup sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from threading import RLock

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import SourceChanged
from blocks.sources.base import Bounds, CollectionSpec, Known, Reading
from blocks.sources.postgres.changes import Token, may_have_changed, row_places, written_since
from blocks.sources.postgres.connect import Readers, Session, identifier, literal, translated
from blocks.sources.postgres.parts import draw, outgrown, select, within
from blocks.sources.postgres.tables import Table

_FEW = 0.1
"""The share of a part's rows up to which changed ones are fetched one by one."""


class PostgresView:
    """One consistent look at a database.

    Args:
        session: With the transaction open whose snapshot was exported.
        readers: Connections that see the same snapshot.
        place: For messages.
        taken_at: When the snapshot was taken.
        tables: What is backed up.
        definition: For the manifest.
        token: Of this snapshot; None where changes cannot be tracked.
        system: Product, version and place.
        warnings: What this backup does not cover.
        part_size_bytes: Arrow bytes to draw parts for.
    """

    def __init__(
        self,
        session: Session,
        readers: Readers,
        *,
        place: str,
        taken_at: datetime,
        tables: Sequence[Table],
        definition: dict[str, JsonValue],
        token: Token | None,
        system: str,
        warnings: Sequence[str],
        part_size_bytes: int,
    ) -> None:
        self.taken_at, self.definition, self.system = taken_at, definition, system
        self.token = token.to_text() if token else None
        self.warnings = tuple(warnings)
        self._session, self._readers, self._place, self._lock = session, readers, place, RLock()
        self._now, self._part_size_bytes = token, part_size_bytes
        self._tables = {table.spec.name: table for table in tables}

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the tables that hold rows (of a partitioned one, its partitions), by name."""
        return [table.spec for table in self._tables.values()]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of the primary key, or as shares by a hash."""
        with translated(self._place, f"cannot draw the parts of {collection.name} in"), self._lock:
            return draw(self._session, self._table(collection), self._part_size_bytes)

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether the last part, or all parts together, have grown much beyond their size; sampled."""
        with translated(self._place, f"cannot measure {collection.name} in"), self._lock:
            return outgrown(self._session, self._table(collection), bounds, self._part_size_bytes)

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the rows of one part: all, or those that transactions since the base's snapshot may have written."""
        table = self._table(collection)
        if known is not None and self._now is not None and table.shape.row is None:
            oldest = self._now.since(Token.parse(known.token), collection.name)
            if oldest is not None:
                return self._changes(table, bounds, known, oldest)
        return Reading(self._rows(table, select(table.shape, bounds)))

    def _changes(self, table: Table, bounds: Bounds, known: Known, oldest: int) -> Reading:
        """Read the rows that may have changed, and find out by counting whether others are gone.

        All other rows are as they were when the base was made, so if they are as many as those of the base whose keys
        are not among the changed, they are the same, and no key has to be read.
        """
        shape = table.shape
        rows = f"ONLY {shape.quoted} {within(shape, bounds)}"
        found = self._rows(table, written_since(rows, oldest, self._upcoming))
        total, count, places = (found.column(n)[0].as_py() for n in range(3))
        if not count and total == known.rows:
            return Reading(self._picked(table, "{}"), whole_part_unchanged=True)
        if count > _FEW * total:
            return Reading(self._rows(table, select(shape, bounds)))
        changed = self._picked(table, places)
        if changed.num_rows != count:
            raise SourceChanged(f"{table.spec.name} in {self._place}: {count} rows, {changed.num_rows} found")
        if total - count == known.rows - known.holds(changed.select(shape.key)).true_count:
            return Reading(changed, rest_unchanged=True)
        return self._changes_by_key(table, bounds, known, oldest)

    def _changes_by_key(self, table: Table, bounds: Bounds, known: Known, oldest: int) -> Reading:
        """Read the keys of all rows, and the rows that may have changed."""
        shape = table.shape
        keys = ", ".join(f"{shape.column(name).read} AS {identifier(name)}" for name in shape.key)
        found = self._rows(table, f"SELECT {keys}, xmin, ctid FROM ONLY {shape.quoted} {within(shape, bounds)}")
        places, key = found.column(len(shape.key) + 1), found.select(list(range(len(shape.key))))
        changed = may_have_changed(found.column(len(shape.key)), oldest, self._upcoming)
        # a key that the base holds in another part is new to this one, however old its row is
        changed |= ~known.holds(key).to_numpy(zero_copy_only=False)
        if np.count_nonzero(changed) > _FEW * len(changed):
            return Reading(self._rows(table, select(shape, bounds)))
        unchanged = known.encode(key.filter(pa.array(~changed)))
        wanted = row_places(places.filter(pa.array(changed)))
        rows = self._picked(table, "{" + ",".join(f'"{place}"' for place in wanted) + "}")
        if rows.num_rows != len(wanted):
            raise SourceChanged(f"{table.spec.name} in {self._place}: {len(wanted)} rows, {rows.num_rows} found")
        return Reading(rows, unchanged)

    def _picked(self, table: Table, places: str) -> pa.Table:
        """Read rows by their places, which are those of this snapshot for as long as it is held."""
        columns = ", ".join(f"{column.read} AS {identifier(column.name)}" for column in table.shape.columns)
        query = (
            f"SELECT {columns} FROM ONLY {table.shape.quoted} WHERE ctid = ANY ({literal(places)}::pg_catalog.tid[])"
        )
        return self._rows(table, query)

    @property
    def _upcoming(self) -> int:
        assert self._now is not None
        return self._now.next

    def _rows(self, table: Table, query: str) -> pa.Table:
        return self._readers.fetch(query, f"cannot read {table.spec.name} in")

    def _table(self, collection: CollectionSpec) -> Table:
        table = self._tables.get(collection.name)
        if table is None:
            raise SourceChanged(f"{self._place} has no table {collection.name}")
        return table

    def finish(self) -> None:
        """Nothing to check: all parts were read in one snapshot."""
