"""One moment of a server, or of each master of a cluster: all rows, read out of what it sends to a replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, FullRead
from blocks.sources.redis.globs import Globs
from blocks.sources.redis.net.server import Server, is_master
from blocks.sources.redis.rdb.read import RdbReader
from blocks.sources.redis.read.fingerprints import Seen
from blocks.sources.redis.read.grouping import Mask
from blocks.sources.redis.read.parts import partition, positions_in
from blocks.sources.redis.read.spool import RowSpool
from blocks.sources.redis.rows import SCHEMA
from blocks.sources.redis.temporary_names import OURS
from blocks.sources.redis.views.odd_keys import OddKeys
from blocks.sources.redis.views.prefetch import prefetched
from blocks.sources.redis.views.replica import dataset_of
from blocks.sources.redis.views.tokens import Share, write_token
from blocks.sources.redis.views.view import ViewSettings, large_keys, spec_of
from blocks.sources.runs import Allowance

_PREFETCHED_CHUNKS = 64
"""How many pieces of what the server sends may wait, of 256 KiB at most."""


MEMORY_BYTES = 64 * 1024 * 1024
"""How much of what was read is kept in memory, of all databases together."""


@dataclass(frozen=True)
class Snapshot:
    """What a server held, or all masters of a cluster.

    Attributes:
        rows: The rows of each of its databases that holds keys, by its number.
        token: Of which position in the history of all writes it is; None where writes may be missing in that.
        made_at: When, as the server says it, to the second.
        boundaries: The positions at which the keys of another node begin.
        remarks: What a backup of it should say.
    """

    rows: Mapping[int, RowSpool]
    token: str | None = None
    made_at: datetime | None = None
    boundaries: Sequence[int] = ()
    remarks: tuple[str, ...] = ()


class SnapshotView:
    """All databases at one moment.

    Args:
        snapshot: The rows of all databases, with the token and boundaries of parts.
        databases: Number of each database by the name of its collection.
        settings: How the view is opened: connection, selection, part size, slot.
        taken_at: The moment (aware, UTC).
    """

    def __init__(
        self, snapshot: Snapshot, databases: Mapping[str, int], settings: ViewSettings, taken_at: datetime
    ) -> None:
        self._rows = {name: snapshot.rows.get(number) for name, number in databases.items()}
        self._patterns, self._part_size_bytes = settings.patterns, settings.part_size_bytes
        self._boundaries = snapshot.boundaries
        self._databases = databases
        self._seen: Seen | None = None
        self._odd = OddKeys()
        self.taken_at = taken_at - settings.standing.behind
        self.system, self.definition = settings.system, settings.definition
        self.token = snapshot.token
        self.warnings = (
            *settings.remarks,
            *snapshot.remarks,
            *settings.standing.remarks,
        )

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return [spec_of(name, self._patterns) for name in self._rows]

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of hash slots; within a slot, as ranges of the CRC of the key.

        Of a cluster they also end where the slots of a node do, as the chain may go on with parts read from the nodes.
        """
        spool = self._rows[collection.name]
        if spool is None:
            return [{"from": None, "before": None}]
        return partition(spool, max(1, round(spool.size_bytes / self._part_size_bytes)), self._boundaries)

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds by far more now than parts are partitioned for, and could be smaller."""
        spool = self._rows[collection.name]
        if spool is None:
            return False
        most = REPARTITION_FACTOR * self._part_size_bytes * len(spool) / max(1, spool.size_bytes)
        ranges = [found for found in map(positions_in, bounds) if spool.count(*found) > most]
        return any(spool.count(*found) - spool.most_together(*found) > most for found in ranges)

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> FullRead:
        """Return the rows of one part; `base` is of no use here, since all were read."""
        spool = self._rows[collection.name]
        rows = SCHEMA.empty_table() if spool is None else spool.between(*positions_in(bounds))
        if self._seen is not None:
            self._seen.add(self._databases[collection.name], rows, *positions_in(bounds))
        name = collection.name
        return FullRead(rows, warnings=(*large_keys(name, rows), *self._odd.warnings(name, rows)))

    def remember(self, seen: Seen) -> None:
        """Put fingerprints of all that is read from now on into `seen`."""
        seen.begin(self._databases.values(), whole=not self.definition.get("narrowed"))
        self._seen = seen

    def finish(self) -> None:
        """All was read before: nothing can have changed."""


class SnapshotReader:
    """Reads the rows of servers while they send them.

    Args:
        folder: Where rows go that do not fit into memory.
        databases: Number of each database by the name of its collection; all where there are none.
        patterns: Globs of Redis that the keys have to match.
        tracked: Whether the moment gets a token, for an incremental to ask what was written since.
    """

    def __init__(
        self,
        folder: Path,
        databases: Mapping[str, int],
        patterns: Sequence[str],
        tracked: bool = True,
    ) -> None:
        self._folder, self._databases, self._patterns, self._globs = folder, databases, patterns, Globs(patterns)
        self._room, self._tracked = Allowance(MEMORY_BYTES), tracked

    def read(self, server: Server, owned: Mask | None = None) -> Snapshot:
        """Read the rows of one server.

        Args:
            server: The server or cluster that is read.
            owned: Of which hash slots; of all where it is None.

        Raises:
            ConfigurationError: The user may not do this.
            SourceUnavailable: The server refused, went away before the end, or sent what is damaged.
            UnknownForm: It holds what only a server can read.
        """
        rows: dict[int, RowSpool] = {}
        with dataset_of(server) as dataset, prefetched(dataset.chunks(), _PREFETCHED_CHUNKS) as chunks:
            wanted = None if self._globs.everything else self._globs.matches
            reader = RdbReader(chunks, dataset.moment_ms, set(self._databases.values()) or None, wanted)
            for database, table in reader.tables():
                rows.setdefault(database, self.spool()).add(_not_ours(table), owned)
        for spool in rows.values():
            spool.end()
        rows |= {database: self.spool() for database in reader.seen - rows.keys()}
        # what reading needed besides is of no use to what follows
        pa.default_memory_pool().release_unused()
        # a replica may have been written to by others than its master
        shares = [Share("", dataset.position)] if self._tracked and is_master(server) else []
        token = write_token(shares, self._patterns, self._databases)
        return Snapshot(rows, token, reader.made_at)

    def spool(self) -> RowSpool:
        """Return an empty spool that shares this reader's memory."""
        return RowSpool(self._folder, self._room)


def _not_ours(rows: pa.Table) -> pa.Table:
    begins = [pc.starts_with(rows.column("key"), name) for name in OURS]
    ours = pc.or_(*begins)
    return rows.filter(pc.invert(ours)) if pc.any(ours).as_py() else rows
