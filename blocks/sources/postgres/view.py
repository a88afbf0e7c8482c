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
from blocks.sources.postgres.changes import Token
from blocks.sources.postgres.connect import Session, identifier, literal, translated
from blocks.sources.postgres.parts import correlation, draw, outgrown
from blocks.sources.postgres.readers import Readers
from blocks.sources.postgres.reading import FEW, PartByPart, Reads
from blocks.sources.postgres.rowversions import may_have_changed, row_places
from blocks.sources.postgres.scattered import PAGES_ARE_FOUND, Scattered
from blocks.sources.postgres.tables import Table
from blocks.sources.runs import Allowance, RunFolder

_SEVERAL = 4
_IN_ORDER = 0.5
"""A table of fewer parts, or whose rows lie in the order of its key more than that, is read part by part."""
_WAITING_BYTES = 64 * 1024 * 1024


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
        folder: Where rows wait that are too many for memory.
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
        folder: RunFolder,
    ) -> None:
        self.taken_at, self.definition, self.system = taken_at, definition, system
        self.token = token.to_text() if token else None
        self.warnings = tuple(warnings)
        self._session, self._readers, self._place, self._lock = session, readers, place, RLock()
        self._now, self._part_size_bytes = token, part_size_bytes
        self._tables = {table.spec.name: table for table in tables}
        self._folder, self._room = folder, Allowance(_WAITING_BYTES)
        self._drawn: dict[str, Sequence[Bounds]] = {}
        self._scattered: dict[str, Scattered | None] = {}

    def sees_all_of(self, before: Token) -> bool:
        """Whether this view is not older than the one of a token."""
        return self._now is not None and self._now.sees_all_of(before)

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the tables that hold rows (of a partitioned one, its partitions), by name."""
        return [table.spec for table in self._tables.values()]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of the primary key, or as shares by a hash."""
        with translated(self._place, f"cannot draw the parts of {collection.name} in"), self._lock:
            return self._remember(collection, draw(self._session, self._table(collection), self._part_size_bytes))

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether the last part, or all parts together, have grown much beyond their size; sampled."""
        with translated(self._place, f"cannot measure {collection.name} in"), self._lock:
            self._remember(collection, bounds)
            return outgrown(self._session, self._table(collection), bounds, self._part_size_bytes)

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the rows of one part: all, or those that transactions since the base's snapshot may have written."""
        table = self._table(collection)
        reading = self._read(table, bounds, known)
        if isinstance(reads := self._reads(table, bounds), Scattered):
            reads.passed(bounds)
        return reading

    def _read(self, table: Table, bounds: Bounds, known: Known | None) -> Reading:
        if known is not None and self._now is not None and table.shape.row is None:
            oldest = self._now.since(Token.parse(known.token), table.spec.name)
            if oldest is not None:
                return self._changes(table, bounds, known, oldest)
        return Reading(self._reads(table, bounds).rows(bounds))

    def _changes(self, table: Table, bounds: Bounds, known: Known, oldest: int) -> Reading:
        """Read the rows that may have changed, and find out by counting whether others are gone.

        All other rows are as they were when the base was made, so if they are as many as those of the base whose keys
        are not among the changed, they are the same, and no key has to be read.
        """
        reads = self._reads(table, bounds)
        look = reads.look(bounds, oldest, self._upcoming)
        if not look.count and look.total == known.rows:
            return Reading(self._picked(table, "{}"), whole_part_unchanged=True)
        if look.places is None:
            return Reading(reads.rows_of_many(bounds))
        changed = self._picked(table, look.places)
        if changed.num_rows != look.count:
            raise SourceChanged(f"{table.spec.name} in {self._place}: {look.count} rows, {changed.num_rows} found")
        if look.total - look.count == known.rows - known.holds(changed.select(table.shape.key)).true_count:
            return Reading(changed, rest_unchanged=True)
        return self._changes_by_key(table, bounds, known, oldest)

    def _changes_by_key(self, table: Table, bounds: Bounds, known: Known, oldest: int) -> Reading:
        """Read the keys of all rows, and the rows that may have changed."""
        shape = table.shape
        found = self._reads(table, bounds).keys(bounds)
        places, key = found.column(len(shape.key) + 1), found.select(list(range(len(shape.key))))
        changed = may_have_changed(found.column(len(shape.key)), oldest, self._upcoming)
        # a key that the base holds in another part is new to this one, however old its row is
        changed |= ~known.holds(key).to_numpy(zero_copy_only=False)
        if np.count_nonzero(changed) > FEW * len(changed):
            return Reading(PartByPart(table, self._readers).rows(bounds))
        unchanged = known.encode(key.filter(pa.array(~changed)))
        wanted = row_places(places.filter(pa.array(changed)))
        rows = self._picked(table, "{" + ",".join(f'"{place}"' for place in wanted) + "}")
        if rows.num_rows != len(wanted):
            raise SourceChanged(f"{table.spec.name} in {self._place}: {len(wanted)} rows, {rows.num_rows} found")
        return Reading(rows, unchanged)

    def _reads(self, table: Table, bounds: Bounds) -> Reads:
        """Tell how a part is read: by itself, or together with all others of its table."""
        name = table.spec.name
        with self._lock:
            if name not in self._scattered:
                parts = self._read_at_once(table, bounds)
                fresh = Scattered(table, parts, self._readers, self._folder, self._room) if parts else None
                self._scattered[name] = fresh
            scattered = self._scattered[name]
        return scattered if scattered and scattered.holds(bounds) else PartByPart(table, self._readers)

    def _read_at_once(self, table: Table, bounds: Bounds) -> Sequence[Bounds]:
        """Return the parts of a table that are to be read at once, if one of them alone would cost as much."""
        if not table.heap or self._session.info.server_version < PAGES_ARE_FOUND:
            return ()
        match bounds:
            case {"of": int(of)}:
                return [bounds] if of > 1 else ()
        parts = self._drawn.get(table.spec.name, ())
        if len(parts) < _SEVERAL:
            return ()
        with translated(self._place, "cannot read the catalogue of"):
            return parts if correlation(self._session, table) < _IN_ORDER else ()

    def _remember(self, collection: CollectionSpec, parts: Sequence[Bounds]) -> Sequence[Bounds]:
        self._drawn[collection.name] = parts
        if (before := self._scattered.pop(collection.name, None)) is not None:
            before.discard()
        return parts

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
        return self._readers.fetch(query, table.doing)

    def _table(self, collection: CollectionSpec) -> Table:
        table = self._tables.get(collection.name)
        if table is None:
            raise SourceChanged(f"{self._place} has no table {collection.name}")
        return table

    def stop(self) -> None:
        """End what is being read of whole tables, soon and with an error."""
        with self._lock:
            for scattered in filter(None, self._scattered.values()):
                scattered.stop()

    def finish(self) -> None:
        """Nothing to check: all parts were read in one snapshot."""
