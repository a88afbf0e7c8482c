"""One moment of a server, or of each master of a cluster: all rows, read out of what it sends to a replica."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.redis.ahead import taken_ahead
from blocks.sources.redis.bounds import drawn, positions_in
from blocks.sources.redis.globs import Globs
from blocks.sources.redis.grouping import Mask
from blocks.sources.redis.rdb.layout import UnknownForm
from blocks.sources.redis.rdb.read import RdbReader
from blocks.sources.redis.replica import dataset_of
from blocks.sources.redis.rows import SCHEMA
from blocks.sources.redis.server import Server, is_master
from blocks.sources.redis.spool import RowSpool
from blocks.sources.redis.tokens import Share, write_token
from blocks.sources.redis.view import not_covered, spec_of
from blocks.sources.runs import Allowance

_AHEAD_CHUNKS = 64
"""How many pieces of what the server sends may wait, of 256 KiB at most."""


MEMORY_BYTES = 64 * 1024 * 1024
"""How much of what was read is kept in memory, of all databases together."""


@dataclass(frozen=True)
class Moment:
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


class MomentView:
    """All databases at one moment.

    Args:
        moment: What they hold.
        databases: Number of each database by the name of its collection.
        patterns: Globs of Redis that the keys match.
        part_size_bytes: What parts are drawn for.
        taken_at: The moment.
        system: How the manifest calls the server.
        definition: What a restore has to know.
    """

    def __init__(
        self,
        moment: Moment,
        databases: Mapping[str, int],
        patterns: Sequence[str],
        part_size_bytes: int,
        taken_at: datetime,
        system: str,
        definition: Bounds,
    ) -> None:
        self._rows = {name: moment.rows.get(number) for name, number in databases.items()}
        self._patterns, self._part_size_bytes, self._boundaries = patterns, part_size_bytes, moment.boundaries
        self.taken_at, self.system, self.definition = taken_at, system, definition
        self.token, self.warnings = moment.token, moment.remarks

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return [spec_of(name, self._patterns) for name in self._rows]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of hash slots; within a slot, as ranges of the CRC of the key.

        Of a cluster they also end where the slots of a node do, as the chain may go on with parts read from the nodes.
        """
        spool = self._rows[collection.name]
        if spool is None:
            return [{"from": None, "before": None}]
        return drawn(spool, max(1, round(spool.size_bytes / self._part_size_bytes)), self._boundaries)

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds by far more now than parts are drawn for, and could be drawn smaller."""
        spool = self._rows[collection.name]
        if spool is None:
            return False
        most = OUTGROWN * self._part_size_bytes * len(spool) / max(1, spool.size_bytes)
        ranges = [found for found in map(positions_in, bounds) if spool.count(*found) > most]
        return any(spool.count(*found) - spool.most_together(*found) > most for found in ranges)

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Return the rows of one part; `known` is of no use here, since all were read."""
        spool = self._rows[collection.name]
        return Reading(SCHEMA.empty_table() if spool is None else spool.between(*positions_in(bounds)))

    def finish(self) -> None:
        """All was read before: nothing can have changed."""


class MomentReader:
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

    def read(self, server: Server, owned: Mask | None = None) -> Moment:
        """Read the rows of one server.

        Args:
            server: Which one.
            owned: Of which hash slots; of all where it is None.

        Raises:
            ConfigurationError: The user may not do this.
            SourceUnavailable: The server refused, went away before the end, or sent what is damaged.
            UnknownForm: It holds what only a server can read.
        """
        if not self._globs.certain:
            raise UnknownForm("globs of which only a server can tell what they match")
        rows: dict[int, RowSpool] = {}
        with dataset_of(server) as dataset, taken_ahead(dataset.chunks(), _AHEAD_CHUNKS) as chunks:
            wanted = None if self._globs.everything else self._globs.matches
            reader = RdbReader(chunks, dataset.moment_ms, set(self._databases.values()) or None, wanted)
            for database, table in reader.tables():
                rows.setdefault(database, self.spool()).add(table, owned)
        for spool in rows.values():
            spool.end()
        rows |= {database: self.spool() for database in reader.seen - rows.keys()}
        # what reading needed besides is of no use to what follows
        pa.default_memory_pool().release_unused()
        # a replica may have been written to by others than its master
        shares = [Share("", dataset.position)] if self._tracked and is_master(server) else []
        token = write_token(shares, self._patterns, self._databases)
        return Moment(rows, token, reader.made_at, remarks=tuple(not_covered([server])))

    def spool(self) -> RowSpool:
        """Return an empty spool that shares this reader's memory."""
        return RowSpool(self._folder, self._room)
