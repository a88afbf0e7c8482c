"""One look at the databases of a Redis server: the names of all keys once, then their content part by part.

This is not a point in time: keys are read while the application writes. What is read of one key is of one moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import cast

import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import SourceChanged
from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.redis.guesses import Guesses
from blocks.sources.redis.keys import END, KeySpool
from blocks.sources.redis.listing import key_names
from blocks.sources.redis.read import KeyReader
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


def scan(server: Server, database: int, patterns: Sequence[str]) -> Iterator[list[bytes]]:
    """Yield the names of all keys that one of the patterns matches, some of them more than once."""
    with server.connection(database) as one, server.connection(database) as other:
        yield from key_names((one, other), patterns)


class RedisView:
    """What a server holds now.

    Args:
        server: Where to read.
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
        server: Server,
        databases: Mapping[str, int],
        patterns: Sequence[str],
        folder: Path,
        part_size_bytes: int,
        taken_at: datetime | None,
        system: str,
        definition: dict[str, object],
        put_off_ms: int = 0,
    ) -> None:
        self._server, self._databases, self._patterns = server, databases, patterns
        self._folder, self._part_size_bytes, self._put_off = folder, part_size_bytes, put_off_ms
        self._run_id = server.facts.get("run_id")
        self._lock = Lock()
        self._spools: dict[str, KeySpool] = {}
        self._sampled: dict[str, float] = {}
        self._guesses = Guesses()
        self.taken_at = taken_at or datetime.now(UTC)
        self.system = system
        self.definition = cast("Bounds", definition)
        self.warnings: tuple[str, ...] = tuple(_not_covered(server))

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return [spec_of(name, self._patterns) for name in self._databases]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of hash slots; within a slot, as ranges of the CRC of the key."""
        spool = self._spool(collection.name)
        parts = max(1, round(self._row_bytes(collection.name, spool) * len(spool) / self._part_size_bytes))
        edges: list[JsonValue] = [None, *(_edge(cut) for cut in spool.cuts(parts)), None]
        return [{"from": first, "before": last} for first, last in itertools.pairwise(edges)]

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds by far more keys now, by their size in a sample, than parts are drawn for."""
        spool = self._spool(collection.name)
        most = max((spool.count(*_range(each)) for each in bounds), default=0)
        return most > 1 and most * self._row_bytes(collection.name, spool) > OUTGROWN * self._part_size_bytes

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the keys of one part; `known` is of no use here, since Redis does not track changes of keys."""
        keys = self._spool(collection.name).between(*_range(bounds))
        rows, dumped = self._read(collection.name, keys)
        return Reading(rows, warnings=tuple(_dumped(collection.name, dumped)))

    def finish(self) -> None:
        """Make sure that all parts were read from one server that did not lose its data meanwhile.

        Raises:
            SourceChanged: The server was started again, or another one took its place.
        """
        if self._server.info("server").get("run_id") != self._run_id:
            raise SourceChanged(f"{self._server} was restarted, or another server took over, while it was read")

    def _read(self, name: str, keys: pa.LargeBinaryArray) -> tuple[pa.Table, dict[str, int]]:
        number, server = self._databases[name], self._server
        with server.connection(number) as one, server.connection(number) as other:
            reader = KeyReader((one, other), server.has_field_expiry, self._put_off, self._guesses)
            return reader.read(keys), reader.dumped

    def _spool(self, name: str) -> KeySpool:
        with self._lock:
            if name not in self._spools:
                spool = KeySpool(self._folder)
                spool.fill(scan(self._server, self._databases[name], self._patterns))
                self._spools[name] = spool
            return self._spools[name]

    def _row_bytes(self, name: str, spool: KeySpool) -> float:
        """Estimate the Arrow bytes of a key and its rows from a sample."""
        if name not in self._sampled:
            sample = spool.sample(_SAMPLE_KEYS)
            rows, _ = self._read(name, sample)
            self._sampled[name] = max(rows.nbytes / max(1, len(sample)), _RESTING_BYTES)
        return self._sampled[name]


def _edge(position: int) -> JsonValue:
    return [position >> 16, position & 0xFFFF]


def _range(bounds: Bounds) -> tuple[int, int]:
    first, last = bounds.get("from"), bounds.get("before")
    return _position(first, 0), _position(last, END)


def _position(edge: object, otherwise: int) -> int:
    if not isinstance(edge, list):
        return otherwise
    slot, crc = edge
    return int(slot) << 16 | int(crc)


def _dumped(name: str, types: Mapping[str, int]) -> Iterator[str]:
    for kind, count in sorted(types.items()):
        yield (
            f"{name}: {count} keys of type {kind} belong to a module and are kept as DUMP gives them; "
            "they can be restored only where that module is loaded."
        )


def _not_covered(server: Server) -> Iterator[str]:
    libraries = server.info("memory").get("number_of_functions", "0")
    if libraries != "0":
        yield f"{libraries} functions (FUNCTION LOAD) of the server are not backed up; keep their source."
