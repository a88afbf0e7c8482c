"""One consistent look at a database: an exported snapshot that every connection of the backup sees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from threading import RLock

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import SourceChanged, SourceUnavailable, UnsupportedState
from blocks.sources.base import Bounds, CollectionSpec, Known, Reading
from blocks.sources.postgres.changes import FEW, Token
from blocks.sources.postgres.connect import Session, identifier, literal, translated
from blocks.sources.postgres.following import Following, Found
from blocks.sources.postgres.parts import correlation, draw, outgrown
from blocks.sources.postgres.readers import Readers
from blocks.sources.postgres.reading import PartByPart, Reads
from blocks.sources.postgres.rowversions import may_have_changed, row_places
from blocks.sources.postgres.scattered import PAGES_ARE_FOUND, Scattered
from blocks.sources.postgres.tables import Table
from blocks.sources.postgres.touched import SESSIONS, TouchedRows
from blocks.sources.runs import Allowance, RunFolder

logger = logging.getLogger(__name__)

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
        following: How a replication slot is followed, where the plan names one.

    Attributes:
        since: The token of the base's view, to be set before `token` is asked for.
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
        following: Following | None = None,
    ) -> None:
        self.taken_at, self.definition, self.system = taken_at, definition, system
        self.warnings = tuple(warnings)
        self._session, self._readers, self._place, self._lock = session, readers, place, RLock()
        self._now, self._part_size_bytes = token, part_size_bytes
        self._tables = {table.spec.name: table for table in tables}
        self._folder, self._room = folder, Allowance(_WAITING_BYTES)
        self._drawn: dict[str, Sequence[Bounds]] = {}
        self._scattered: dict[str, Scattered | None] = {}
        self._following = following
        self.since: Token | None = None
        self._found: Found | None = None
        self._touched: dict[str, TouchedRows | None] = {}
        self._pool = ThreadPoolExecutor(SESSIONS, thread_name_prefix="lastgood-touched")

    @property
    def token(self) -> str | None:
        """What the next incremental goes on from. Where the plan names a replication slot, that is asked, or made."""
        if self._following is None or self._now is None:
            return self._now.to_text() if self._now else None
        with self._lock:
            if self._found is None:
                with translated(self._place, "cannot read the catalogue of"):
                    found = self._following.find(self._session, self._now, self.since)
                if found.because:
                    self._warn(found.because)
                self._found = found
            return self._found.token.to_text()

    def _warn(self, because: str) -> None:
        said = "Changes were looked for" if self.since else "The next incremental will look for changes"
        self.warnings = tuple(dict.fromkeys((*self.warnings, f"{said} in all rows of {self._place}: {because}.")))

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
        if known is not None and (touched := self._read_touched(table, bounds, known)) is not None:
            return touched
        reading = self._read(table, bounds, known)
        if isinstance(reads := self._reads(table, bounds), Scattered):
            reads.passed(bounds)
        return reading

    def _read_touched(self, table: Table, bounds: Bounds, known: Known) -> Reading | None:
        """Read the rows that the replication slot named; None where it does not tell all since the base."""
        name = table.spec.name
        with self._lock:
            if name not in self._touched:
                self._touched[name] = self._touched_rows(table, known)
            touched = self._touched[name]
        if touched is None or not touched.holds(bounds):
            return None
        try:
            return touched.read(bounds, known, lambda: self._picked(table, "{}"))
        except UnsupportedState:
            raise
        except SourceUnavailable as exc:
            logger.debug("keys of %s cannot be looked for: %s", name, exc.message)
            # a label that was renamed after the snapshot, say, cannot be asked for any more
            with self._lock:
                self._touched[name] = None
            said = f"Changes of {name} were looked for in all rows: those of the keys that were written cannot be read."
            return replace(self._read(table, bounds, known), warnings=(said,))

    def _touched_rows(self, table: Table, known: Known) -> TouchedRows | None:
        name, found = table.spec.name, self._found
        keys, parts = found.keys.get(name) if found else None, self._drawn.get(name)
        if found is None or keys is None or not parts or self._following is None:
            return None
        if Token.parse(known.token) != self.since:
            return None
        key = self._following.tables[name].key
        return TouchedRows(table, key, keys, parts, self._readers, self._folder, self._room, self._pool)

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
        if (touched := self._touched.pop(collection.name, None)) is not None:
            touched.discard()
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
            for touched in filter(None, self._touched.values()):
                touched.stop()

    def close(self) -> None:
        """End the threads that read."""
        self.stop()
        self._pool.shutdown(cancel_futures=True)

    def committed(self) -> None:
        """Let the replication slot forget what this backup stands for.

        Raises:
            SourceUnavailable: The server refused.
        """
        if self._following is not None:
            self._following.committed(self._session)

    def finish(self) -> None:
        """Nothing to check: all parts were read in one snapshot."""
