"""One look at the databases of a Redis server: the names of all keys once, then their content part by part.

This is not a point in time: keys are read while the application writes. What is read of one key is of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Semaphore
from typing import Protocol

import pyarrow as pa

from blocks.errors import BaseUnusable
from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.redis.bounds import drawn, positions_in
from blocks.sources.redis.changes import Changes
from blocks.sources.redis.cluster import Cluster
from blocks.sources.redis.guesses import Guesses
from blocks.sources.redis.keys import KeySpool
from blocks.sources.redis.rows import COLUMNS, SCHEMA
from blocks.sources.redis.server import Server

_SAMPLE_KEYS = 500
_RESTING_BYTES = 64


def spec_of(name: str, patterns: Sequence[str]) -> CollectionSpec:
    """Describe one database as a collection."""
    return CollectionSpec(
        name=name,
        key=("key", "element"),
        label=("key",),
        columns=COLUMNS,
        definition={"patterns": list(patterns)},
    )


@dataclass(frozen=True)
class _Sample:
    """Some keys of a database: the Arrow bytes of their rows, and how many keys and rows they are."""

    size_bytes: int
    keys: int
    rows: int

    @property
    def key_bytes(self) -> float:
        """Arrow bytes of a key with all of its rows."""
        return max(self.size_bytes / max(1, self.keys), _RESTING_BYTES)

    @property
    def row_bytes(self) -> float:
        """Arrow bytes of a row."""
        return self.size_bytes / max(1, self.rows)


class Holder(Protocol):
    """What holds keys: a server, or the nodes of a cluster together. Methods may be called from several threads."""

    remarks: tuple[str, ...]
    """What a backup of it should say, each a sentence."""

    def nodes(self) -> Sequence[Server]:
        """Return the servers that hold keys."""
        ...

    def keyspace(self) -> dict[int, int]:
        """Return how many keys each database holds that holds any."""
        ...

    def boundaries(self) -> list[int]:
        """Return the positions at which the keys of another node begin."""
        ...

    def scan(self, database: int, patterns: Sequence[str]) -> Iterator[list[bytes]]:
        """Yield the names of all keys that one of the patterns matches, some of them more than once."""
        ...

    def read(
        self, database: int, keys: pa.LargeBinaryArray, put_off_ms: int, guesses: Guesses
    ) -> tuple[pa.Table, dict[str, int]]:
        """Return the rows of those keys that are there, and how many of each type belong to a module."""
        ...

    def check_same(self) -> None:
        """Make sure that no server lost its data, or was replaced, since it was reached.

        Raises:
            SourceChanged: One was.
        """
        ...


class RedisView:
    """What a server holds now.

    Args:
        server: Where to read: a server or a whole cluster.
        databases: Number of each database by the name of its collection.
        patterns: Globs of Redis that the keys have to match.
        folder: Where names of keys go that do not fit into memory.
        part_size_bytes: What parts are drawn for.
        taken_at: The moment whose state is seen.
        system: How the manifest calls the server.
        definition: What a restore has to know.
        put_off_ms: By how much expiries were put off in this place.
        tracked: Whether what was written since a base may be asked for, where the server is one that can tell.
    """

    def __init__(
        self,
        server: Holder,
        databases: Mapping[str, int],
        patterns: Sequence[str],
        folder: Path,
        part_size_bytes: int,
        taken_at: datetime | None,
        system: str,
        definition: Bounds,
        put_off_ms: int = 0,
        tracked: bool = False,
    ) -> None:
        self._server, self._databases, self._patterns = server, databases, patterns
        self._folder, self._part_size_bytes, self._put_off = folder, part_size_bytes, put_off_ms
        self._lock = Lock()
        # one part at a time over two connections keeps a server busy, and the other part goes through its next stages
        # meanwhile; two at once would leave the server idle while both do
        self._turns = Semaphore(1 + len(server.boundaries()))
        self._spools: dict[str, KeySpool] = {}
        self._changes: Changes | None = None
        if tracked and isinstance(server, Server | Cluster):
            self._changes = Changes(server, databases, patterns, folder)
        self._drawn: set[str] = set()
        self._sampled: dict[str, _Sample] = {}
        self._guesses = Guesses()
        self.taken_at = taken_at or datetime.now(UTC)
        self.system = system
        self.definition = definition
        self.warnings: tuple[str, ...] = (*not_covered(server.nodes()), *server.remarks)

    @property
    def token(self) -> str | None:
        """Where the server's history of writes stood before anything was read; None where it keeps none."""
        return self._changes.token if self._changes else None

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return [spec_of(name, self._patterns) for name in self._databases]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of hash slots; within a slot, as ranges of the CRC of the key.

        On a cluster they also end where the slots of a node do, so that each is read from one node.
        """
        self._drawn.add(collection.name)
        spool = self._spool(collection.name)
        parts = max(1, round(self._sample(collection.name).key_bytes * len(spool) / self._part_size_bytes))
        return drawn(spool, parts, self._server.boundaries())

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds by far more keys now, by their size in a sample, than parts are drawn for.

        Where only some keys may have to be read, not all are listed for this, and `read` finds it out.
        """
        return self.token is None and any(self._has_outgrown(collection.name, each) for each in bounds)

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the keys of one part: all, or those that were written since the base.

        Raises:
            BaseUnusable: The part has by far more keys now than parts are drawn for.
        """
        name = collection.name
        if known is not None and self._changes and (touched := self._changes.since(known.token)) is not None:
            return self._read_touched(name, bounds, known, touched[name].between(*positions_in(bounds)))
        if self._changes and self._changes.token_was_asked_for and name not in self._drawn:
            self._check_outgrown(name, bounds)
        return self._reading(name, self._spool(name).between(*positions_in(bounds)))

    def _read_touched(self, name: str, bounds: Bounds, known: Known, keys: pa.LargeBinaryArray) -> Reading:
        if not len(keys):
            return Reading(SCHEMA.empty_table(), whole_part_unchanged=True)
        reading = self._reading(name, keys)
        # that many rows at most; unless they are large, all keys need not be listed to know how many there are
        if (known.rows + reading.rows.num_rows) * self.row_bytes(name) > OUTGROWN * self._part_size_bytes:
            self._check_outgrown(name, bounds)
        return replace(reading, rest_unchanged=True, touched=known.under(keys))

    def _reading(self, name: str, keys: pa.LargeBinaryArray) -> Reading:
        with self._turns:
            rows, dumped = self._read(name, keys)
        return Reading(rows, warnings=tuple(dumped_keys(name, dumped)))

    def _check_outgrown(self, name: str, bounds: Bounds) -> None:
        if self._has_outgrown(name, bounds):
            raise BaseUnusable(f"a part of {name} has outgrown its bounds")

    def _has_outgrown(self, name: str, bounds: Bounds) -> bool:
        count = self._spool(name).count(*positions_in(bounds))
        return count > 1 and count * self._sample(name).key_bytes > OUTGROWN * self._part_size_bytes

    def row_bytes(self, name: str) -> float:
        """Estimate the Arrow bytes of a row of a collection from a sample."""
        return self._sample(name).row_bytes

    def finish(self) -> None:
        """Make sure that all parts were read from one server, or the same nodes, that lost no data meanwhile.

        Raises:
            SourceChanged: A server was started again, or another one took its place, or its data were replaced.
        """
        self._server.check_same()
        if self._changes:
            self._changes.check_same()

    def _read(self, name: str, keys: pa.LargeBinaryArray) -> tuple[pa.Table, dict[str, int]]:
        return self._server.read(self._databases[name], keys, self._put_off, self._guesses)

    def _spool(self, name: str) -> KeySpool:
        with self._lock:
            if name not in self._spools:
                spool = KeySpool(self._folder)
                spool.fill(self._server.scan(self._databases[name], self._patterns))
                self._spools[name] = spool
            return self._spools[name]

    def _sample(self, name: str) -> _Sample:
        """Look at some keys, of those that are listed or else of the first that SCAN gives, which are any."""
        with self._lock:
            spool = self._spools.get(name)
        if name not in self._sampled:
            keys = spool.sample(_SAMPLE_KEYS) if spool else self._some_keys(name)
            rows, _ = self._read(name, keys)
            self._sampled[name] = _Sample(rows.nbytes, len(keys), rows.num_rows)
        return self._sampled[name]

    def _some_keys(self, name: str) -> pa.LargeBinaryArray:
        keys: set[bytes] = set()
        for batch in self._server.scan(self._databases[name], self._patterns):
            keys.update(batch)
            if len(keys) >= _SAMPLE_KEYS:
                break
        return pa.array(sorted(keys), pa.large_binary())


def dumped_keys(name: str, types: Mapping[str, int]) -> Iterator[str]:
    """Yield what a backup should say of keys that are kept as DUMP gives them, by their types."""
    for kind, count in sorted(types.items()):
        yield (
            f"{name}: {count} keys of type {kind} belong to a module and are kept as DUMP gives them; "
            "they can be restored only where that module is loaded."
        )


def not_covered(nodes: Sequence[Server]) -> Iterator[str]:
    """Yield what servers hold that a backup does not."""
    functions = max(int(node.info("memory").get("number_of_functions", 0)) for node in nodes)
    if functions:
        yield f"{functions} functions (FUNCTION LOAD) of the server are not backed up; keep their source."
