"""One look at the databases of a Redis server: the names of all keys once, then their content part by part.

This is not a point in time: keys are read while the application writes. What is read of one key is of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Semaphore
from typing import Protocol

import pyarrow as pa

from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.redis.bounds import drawn, most_in, positions_in
from blocks.sources.redis.guesses import Guesses
from blocks.sources.redis.keys import KeySpool
from blocks.sources.redis.rows import COLUMNS
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
    """

    token: str | None = None

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
    ) -> None:
        self._server, self._databases, self._patterns = server, databases, patterns
        self._folder, self._part_size_bytes, self._put_off = folder, part_size_bytes, put_off_ms
        self._lock = Lock()
        # one part at a time over two connections keeps a server busy, and the other part goes through its next stages
        # meanwhile; two at once would leave the server idle while both do
        self._turns = Semaphore(1 + len(server.boundaries()))
        self._spools: dict[str, KeySpool] = {}
        self._sampled: dict[str, float] = {}
        self._guesses = Guesses()
        self.taken_at = taken_at or datetime.now(UTC)
        self.system = system
        self.definition = definition
        self.warnings: tuple[str, ...] = (*not_covered(server.nodes()), *server.remarks)

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return [spec_of(name, self._patterns) for name in self._databases]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of hash slots; within a slot, as ranges of the CRC of the key.

        On a cluster they also end where the slots of a node do, so that each is read from one node.
        """
        spool = self._spool(collection.name)
        parts = max(1, round(self._row_bytes(collection.name, spool) * len(spool) / self._part_size_bytes))
        return drawn(spool, parts, self._server.boundaries())

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds by far more keys now, by their size in a sample, than parts are drawn for."""
        spool = self._spool(collection.name)
        most = most_in(spool, bounds)
        return most > 1 and most * self._row_bytes(collection.name, spool) > OUTGROWN * self._part_size_bytes

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the keys of one part; `known` is of no use here, since Redis does not track changes of keys."""
        keys = self._spool(collection.name).between(*positions_in(bounds))
        with self._turns:
            rows, dumped = self._read(collection.name, keys)
        return Reading(rows, warnings=tuple(_dumped(collection.name, dumped)))

    def finish(self) -> None:
        """Make sure that all parts were read from one server, or the same nodes, that lost no data meanwhile.

        Raises:
            SourceChanged: A server was started again, or another one took its place.
        """
        self._server.check_same()

    def _read(self, name: str, keys: pa.LargeBinaryArray) -> tuple[pa.Table, dict[str, int]]:
        return self._server.read(self._databases[name], keys, self._put_off, self._guesses)

    def _spool(self, name: str) -> KeySpool:
        with self._lock:
            if name not in self._spools:
                spool = KeySpool(self._folder)
                spool.fill(self._server.scan(self._databases[name], self._patterns))
                self._spools[name] = spool
            return self._spools[name]

    def _row_bytes(self, name: str, spool: KeySpool) -> float:
        """Estimate the Arrow bytes of a key and its rows from a sample."""
        if name not in self._sampled:
            sample = spool.sample(_SAMPLE_KEYS)
            rows, _ = self._read(name, sample)
            self._sampled[name] = max(rows.nbytes / max(1, len(sample)), _RESTING_BYTES)
        return self._sampled[name]


def _dumped(name: str, types: Mapping[str, int]) -> Iterator[str]:
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
