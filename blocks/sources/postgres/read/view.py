"""One consistent look at a database: an exported snapshot that every connection of the backup sees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from threading import RLock

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import SourceChanged, SourceUnavailable, TemporaryFolderUnusable
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.postgres.connect import Session, identifier, literal, translated
from blocks.sources.postgres.read.capture import Captured, ChangeCapture, Means, TableChanges
from blocks.sources.postgres.read.heap_scan import PAGES_ARE_FOUND, HeapScan
from blocks.sources.postgres.read.key_scan import PartByPart, PartReads
from blocks.sources.postgres.read.parts import correlation, needs_repartition, partition
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.read.row_versions import may_have_changed, row_places
from blocks.sources.postgres.read.xmin_tracking import FEW, Token
from blocks.sources.postgres.schema.tables import Table
from blocks.sources.postgres.schema.witness import database_of
from blocks.sources.reading import BaseLookup, Delta, FullRead, Reading, Unchanged
from blocks.sources.runs import Allowance, RunFolder

logger = logging.getLogger(__name__)

_SEVERAL = 4
_IN_ORDER = 0.5
"""A table of fewer parts, or whose rows lie in the order of its key more than that, is read part by part."""
_WAITING_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Contents:
    """What one snapshot of a database shows, except for rows.

    Attributes:
        place: Server and database, for messages.
        taken_at: The moment (aware, UTC) of the snapshot.
        tables: The tables that are backed up.
        definition: What a restore needs besides rows, as recorded in the manifest.
        token: Of this snapshot; None where changes cannot be tracked.
        system: Product, version and place, as recorded in the manifest.
        warnings: What this backup does not cover, each a sentence.
    """

    place: str
    taken_at: datetime
    tables: Sequence[Table]
    definition: dict[str, JsonValue]
    token: Token | None
    system: str
    warnings: tuple[str, ...]


class PostgresView:
    """One consistent look at a database.

    Args:
        session: With the transaction open whose snapshot was exported.
        readers: Connections that see the same snapshot.
        contents: What the snapshot shows.
        part_size_bytes: Size that parts are partitioned for, in bytes of Arrow data.
        folder: Folder for rows that are too many for memory.
        capture: Reports which rows were written, where the plan asks for that.

    Attributes:
        since: The token of the base's view, to be set before `token` is asked for.
    """

    def __init__(
        self,
        session: Session,
        readers: Readers,
        contents: Contents,
        part_size_bytes: int,
        folder: RunFolder,
        capture: ChangeCapture,
    ) -> None:
        self.taken_at, self.definition, self.system = contents.taken_at, contents.definition, contents.system
        self.warnings = contents.warnings
        self._session, self._readers, self._place, self._lock = session, readers, contents.place, RLock()
        self._now, self._part_size_bytes = contents.token, part_size_bytes
        self._tables = {table.spec.name: table for table in contents.tables}
        self._folder, self._room = folder, Allowance(_WAITING_BYTES)
        self._partitions: dict[str, Sequence[Bounds]] = {}
        self._heap_scans: dict[str, HeapScan | None] = {}
        self._capture = capture
        self.since: Token | None = None
        self._found: Captured | None = None
        self._touched: dict[str, TableChanges | None] = {}

    @property
    def token(self) -> str | None:
        """What the next incremental goes on from; with it begins what captures changes for that.

        Raises:
            ConfigurationError: The plan asks for change capture that this installation does not have.
        """
        if self._now is None:
            return None
        with self._lock:
            if self._found is None:
                with translated(self._place, "cannot read the catalogue of"):
                    self._found = self._capture.find(self._session, self._now, self.since)
                if self._found.because:
                    self._warn(self._found.because)
            return self._found.token.to_text()

    def _warn(self, because: str) -> None:
        said = "Changes were looked for" if self.since else "The next incremental will look for changes"
        self.warnings = tuple(dict.fromkeys((*self.warnings, f"{said} in all rows of {self._place}: {because}.")))

    @property
    def database(self) -> tuple[str, str]:
        """What distinguishes the running server and the database from others."""
        with self._lock:
            return database_of(self._session)

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the tables that hold rows (of a partitioned one, its partitions), by name."""
        return [table.spec for table in self._tables.values()]

    def estimated_bytes(self) -> int | None:
        """Return the size of the tables as the catalogue has it, without indexes."""
        return sum(table.size_bytes for table in self._tables.values())

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of the primary key, or as shares by a hash."""
        with translated(self._place, f"cannot partition {collection.name} in"), self._lock:
            return self._remember(collection, partition(self._session, self._table(collection), self._part_size_bytes))

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether the last part, or all parts together, have grown much beyond their size; sampled."""
        with translated(self._place, f"cannot measure {collection.name} in"), self._lock:
            self._remember(collection, bounds)
            return needs_repartition(self._session, self._table(collection), bounds, self._part_size_bytes)

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> Reading:
        """Read the rows of one part: all, or those that transactions since the base's snapshot may have written."""
        table = self._table(collection)
        if base is not None and (touched := self._read_changed(table, bounds, base)) is not None:
            return touched
        reading = self._read(table, bounds, base)
        if isinstance(reads := self._reads(table, bounds), HeapScan):
            reads.passed(bounds)
        return reading

    def _read_changed(self, table: Table, bounds: Bounds, base: BaseLookup) -> Reading | None:
        """Read the rows that change capture reports; None where it does not report all since the base."""
        name = table.spec.name
        with self._lock:
            if name not in self._touched:
                self._touched[name] = self._changed_rows(table, base)
            touched = self._touched[name]
        if touched is None or not touched.holds(bounds):
            return None
        try:
            return touched.read(bounds, base, lambda: self._picked(table, "{}"))
        except (SourceUnavailable, TemporaryFolderUnusable) as exc:
            logger.debug("keys of %s cannot be looked for: %s", name, exc.message)
            # a label that was renamed after the snapshot, say, cannot be asked for any more
            with self._lock:
                self._touched[name] = None
            said = f"Changes of {name} were looked for in all rows: those of the keys that were written cannot be read."
            return replace(self._read(table, bounds, base), warnings=(said,))

    def _changed_rows(self, table: Table, base: BaseLookup) -> TableChanges | None:
        parts = self._partitions.get(table.spec.name)
        if self._found is None or not parts or Token.parse(base.token) != self.since:
            return None
        return self._capture.changed_rows(table, parts, Means(self._readers, self._folder, self._room))

    def _read(self, table: Table, bounds: Bounds, base: BaseLookup | None) -> Reading:
        if base is not None and self._now is not None and table.shape.row is None:
            oldest = self._now.since(Token.parse(base.token), table.spec.name)
            if oldest is not None:
                return self._changes(table, bounds, base, oldest)
        return FullRead(self._reads(table, bounds).rows(bounds))

    def _changes(self, table: Table, bounds: Bounds, base: BaseLookup, oldest: int) -> Reading:
        """Read the rows that may have changed, and find out by counting whether others are gone.

        All other rows are as they were when the base was made, so if they are as many as those of the base whose keys
        are not among the changed, they are the same, and no key has to be read.
        """
        reads = self._reads(table, bounds)
        counted = reads.count_changes(bounds, oldest, self._upcoming)
        if not counted.count and counted.total == base.rows:
            return Unchanged()
        if counted.places is None:
            return FullRead(reads.rows_of_many(bounds))
        changed = self._picked(table, counted.places)
        if changed.num_rows != counted.count:
            raise SourceChanged(f"{table.spec.name} in {self._place}: {counted.count} rows, {changed.num_rows} found")
        if counted.total - counted.count == base.rows - base.holds(changed.select(table.shape.key)).true_count:
            return Delta(changed)
        return self._changes_by_key(table, bounds, base, oldest)

    def _changes_by_key(self, table: Table, bounds: Bounds, base: BaseLookup, oldest: int) -> FullRead:
        """Read the keys of all rows, and the rows that may have changed."""
        shape = table.shape
        found = self._reads(table, bounds).keys(bounds)
        places, key = found.column(len(shape.key) + 1), found.select(list(range(len(shape.key))))
        changed = may_have_changed(found.column(len(shape.key)), oldest, self._upcoming)
        # a key that the base holds in another part is new to this one, however old its row is
        changed |= ~base.holds(key).to_numpy(zero_copy_only=False)
        if np.count_nonzero(changed) > FEW * len(changed):
            return FullRead(PartByPart(table, self._readers).rows(bounds))
        unchanged = base.encode(key.filter(pa.array(~changed)))
        wanted = row_places(places.filter(pa.array(changed)))
        rows = self._picked(table, "{" + ",".join(f'"{place}"' for place in wanted) + "}")
        if rows.num_rows != len(wanted):
            raise SourceChanged(f"{table.spec.name} in {self._place}: {len(wanted)} rows, {rows.num_rows} found")
        return FullRead(rows, unchanged)

    def _reads(self, table: Table, bounds: Bounds) -> PartReads:
        """Return how a part is read: by itself, or together with all others of its table."""
        name = table.spec.name
        with self._lock:
            if name not in self._heap_scans:
                parts = self._read_at_once(table, bounds)
                fresh = HeapScan(table, parts, self._readers, self._folder, self._room) if parts else None
                self._heap_scans[name] = fresh
            scan = self._heap_scans[name]
        return scan if scan and scan.holds(bounds) else PartByPart(table, self._readers)

    def _read_at_once(self, table: Table, bounds: Bounds) -> Sequence[Bounds]:
        """Return the parts of a table that are to be read at once, if one of them alone would cost as much."""
        if not table.heap or self._session.info.server_version < PAGES_ARE_FOUND:
            return ()
        match bounds:
            case {"of": int(of)}:
                return [bounds] if of > 1 else ()
        parts = self._partitions.get(table.spec.name, ())
        if len(parts) < _SEVERAL:
            return ()
        with translated(self._place, "cannot read the catalogue of"):
            return parts if correlation(self._session, table) < _IN_ORDER else ()

    def _remember(self, collection: CollectionSpec, parts: Sequence[Bounds]) -> Sequence[Bounds]:
        self._partitions[collection.name] = parts
        if (before := self._heap_scans.pop(collection.name, None)) is not None:
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
        return table if table.spec.columns == collection.columns else table.ordered_as(collection)

    def stop(self) -> None:
        """End what is being read of whole tables, soon and with an error."""
        with self._lock:
            for scan in filter(None, self._heap_scans.values()):
                scan.stop()
            for touched in filter(None, self._touched.values()):
                touched.stop()

    def close(self) -> None:
        """End the threads that read."""
        self.stop()
        self._capture.close()

    def committed(self) -> None:
        """Let go what change capture kept for this backup.

        Raises:
            SourceUnavailable: The server refused.
        """
        self._capture.committed(self._session)

    def finish(self) -> None:
        """Nothing to check: all parts were read in one snapshot."""
