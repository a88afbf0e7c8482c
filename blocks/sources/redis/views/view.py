"""One look at the databases of a Redis server: the names of all keys once, then their content part by part.

This is not a point in time: keys are read while the application writes. What is read of one key is of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Semaphore
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import BaseUnusable
from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, Delta, FullRead, Reading, Unchanged
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.standing import CURRENT, Standing
from blocks.sources.redis.read.fingerprints import Seen
from blocks.sources.redis.read.keys import KeySpool
from blocks.sources.redis.read.parts import partition, positions_in
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import COLUMNS, LARGE_BYTES
from blocks.sources.redis.views.changed_keys import ChangeTracker
from blocks.sources.redis.views.odd_keys import OddKeys
from blocks.sources.view import Unread

FileStamp = tuple[int, int, int, int]
"""Device, inode, size and time of the last change of a file."""

LARGE_KEY_BYTES = 128 * 1024 * 1024
"""How many bytes a key may hold before a backup says that it is large."""

_SAMPLE_KEYS = 500
_BATCH_ROWS = 1 << 16
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
    """Some keys of a database: the Arrow bytes of their rows, and how many keys and rows they are.

    Attributes:
        largest_bytes: What one of them takes, where that is much: it stands for itself, and for no others.
    """

    size_bytes: int
    keys: int
    rows: int
    largest_bytes: int = 0

    @property
    def key_bytes(self) -> float:
        """Arrow bytes of a key with all of its rows, the largest one left out."""
        return max((self.size_bytes - self.largest_bytes) / max(1, self.keys), _RESTING_BYTES)

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


@dataclass(frozen=True)
class ViewSettings:
    """What all kinds of views of a server are made with.

    Attributes:
        system: Product and address of the server, as recorded in the manifest.
        definition: What a restore has to know, as recorded in the manifest.
        patterns: Globs of Redis that the keys have to match.
        part_size_bytes: Size that parts are partitioned for, in bytes of Arrow data.
        folder: Folder for what does not fit into memory.
        standing: How far behind its master the server is.
        remarks: What a backup should say of its functions.
    """

    system: str
    definition: Bounds
    patterns: Sequence[str]
    part_size_bytes: int
    folder: Path
    standing: Standing = CURRENT
    remarks: tuple[str, ...] = ()


class RedisView:
    """What a server holds now.

    Args:
        server: Where to read: a server or a whole cluster.
        databases: Number of each database by the name of its collection.
        settings: How the view is opened: connection, selection, part size, slot.
        taken_at: The moment (aware, UTC) whose state is seen; None for now.
        put_off_ms: By how many milliseconds expiries were put off in this place.
        tracked: Whether what was written since a base may be asked for, where the server is one that can tell.
    """

    def __init__(
        self,
        server: Holder,
        databases: Mapping[str, int],
        settings: ViewSettings,
        taken_at: datetime | None,
        put_off_ms: int = 0,
        tracked: bool = False,
    ) -> None:
        self._server, self._databases, self._patterns = server, databases, settings.patterns
        self._folder, self._part_size_bytes, self._put_off = settings.folder, settings.part_size_bytes, put_off_ms
        self._lock = Lock()
        # one part at a time over two connections keeps a server busy, and the other part goes through its next stages
        # meanwhile; two at once would leave the server idle while both do
        self._turns = Semaphore(1 + len(server.boundaries()))
        self._spools: dict[str, KeySpool] = {}
        self._changes: ChangeTracker | None = None
        if tracked and isinstance(server, Server | Cluster):
            self._changes = ChangeTracker(server, databases, settings.patterns, settings.folder)
        self._partitions: set[str] = set()
        self._seen: Seen | None = None
        self._unread: dict[tuple[str, bytes | None], Unread] = {}
        self.stamp: FileStamp | None = None
        """Of the file that this is a look at, from before it was read."""
        self._sampled: dict[str, _Sample] = {}
        self._guesses = Guesses()
        self._odd = OddKeys()
        self.taken_at = (taken_at or datetime.now(UTC)) - settings.standing.behind
        self.system, self.definition = settings.system, settings.definition
        self.warnings: tuple[str, ...] = (
            *settings.remarks,
            *server.remarks,
            *settings.standing.remarks,
        )

    @property
    def token(self) -> str | None:
        """Where the server's history of writes stood before anything was read; None where it keeps none."""
        return self._changes.token if self._changes else None

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return [spec_of(name, self._patterns) for name in self._databases]

    def estimated_bytes(self) -> int | None:
        """Return what the servers hold in memory of data; None where not all of it is taken."""
        if self.definition.get("narrowed") or list(self._patterns) != ["*"]:
            return None
        held = [node.info("memory").get("used_memory_dataset", "") for node in self._server.nodes()]
        return sum(map(int, held)) if all(map(str.isdecimal, held)) else None

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of hash slots; within a slot, as ranges of the CRC of the key.

        On a cluster they also end where the slots of a node do, so that each is read from one node.
        """
        self._partitions.add(collection.name)
        spool = self._spool(collection.name)
        sample = self._sample(collection.name)
        size_bytes = sample.key_bytes * len(spool) + sample.largest_bytes
        return partition(spool, max(1, round(size_bytes / self._part_size_bytes)), self._server.boundaries())

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds by far more keys now, by their size in a sample, than parts are partitioned for.

        Where only some keys may have to be read, not all are listed for this, and `read` finds it out.
        """
        return self.token is None and any(self._needs_repartition(collection.name, each) for each in bounds)

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> Reading:
        """Read the keys of one part: all, or those that were written since the base.

        Raises:
            BaseUnusable: The part has by far more keys now than parts are partitioned for.
        """
        name = collection.name
        if base is not None and self._changes and (touched := self._changes.since(base.token)) is not None:
            return self._read_changed(name, bounds, base, touched[name].between(*positions_in(bounds)))
        if self._changes and self._changes.token_was_asked_for and name not in self._partitions:
            self._check_partition(name, bounds)
        rows, warnings = self._rows(name, self._spool(name).between(*positions_in(bounds)))
        if self._seen is not None:
            self._seen.add(self._databases[name], rows, *positions_in(bounds))
        return FullRead(rows, warnings=warnings)

    def remember(self, seen: Seen) -> None:
        """Put fingerprints of all parts that are read as a whole from now on into `seen`."""
        seen.begin(self._databases.values(), whole=not self.definition.get("narrowed"))
        self._seen = seen

    def _read_changed(self, name: str, bounds: Bounds, base: BaseLookup, keys: pa.LargeBinaryArray) -> Reading:
        if not len(keys):
            return Unchanged()
        rows, warnings = self._rows(name, keys)
        # that many rows at most; unless they are large, all keys need not be listed to know how many there are
        if (base.rows + rows.num_rows) * self.row_bytes(name) > REPARTITION_FACTOR * self._part_size_bytes:
            self._check_partition(name, bounds)
        return Delta(rows, base.under(keys), warnings)

    def _rows(self, name: str, keys: pa.LargeBinaryArray) -> tuple[pa.Table, tuple[str, ...]]:
        """Read the rows of some keys; return them with warnings."""
        with self._turns:
            rows, dumped = self._read(name, keys)
        return rows, (*dumped_keys(name, dumped), *large_keys(name, rows), *self._odd.warnings(name, rows))

    def _check_partition(self, name: str, bounds: Bounds) -> None:
        if self._needs_repartition(name, bounds):
            raise BaseUnusable(f"a part of {name} has outgrown its bounds")

    def _needs_repartition(self, name: str, bounds: Bounds) -> bool:
        count = self._spool(name).count(*positions_in(bounds))
        return count > 1 and count * self._sample(name).key_bytes > REPARTITION_FACTOR * self._part_size_bytes

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
            count, large = len(keys), list[int]()
            if isinstance(self._server, Server):
                keys, large = self._server.without_large(self._databases[name], keys, LARGE_BYTES)
            rows, _ = self._read(name, keys)
            size_bytes, row_bytes = rows.nbytes + sum(large), max(1, rows.nbytes // max(1, rows.num_rows))
            rows_of_all = rows.num_rows + sum(large) // row_bytes
            self._sampled[name] = _Sample(size_bytes, count, rows_of_all, max(large, default=0))
        return self._sampled[name]

    def _some_keys(self, name: str) -> pa.LargeBinaryArray:
        keys: set[bytes] = set()
        for batch in self._server.scan(self._databases[name], self._patterns):
            keys.update(batch)
            if len(keys) >= _SAMPLE_KEYS:
                break
        return pa.array(sorted(keys), pa.large_binary())


def large_keys(name: str, rows: pa.Table) -> Iterator[str]:
    """Yield what a backup should say of keys that take much memory, since all rows of a key are in one part.

    Args:
        name: The name of the database's collection.
        rows: Rows with the columns of `SCHEMA` (rows.py).
    """
    if rows.nbytes <= LARGE_KEY_BYTES:
        return
    sums = []
    for batch in rows.to_batches(_BATCH_ROWS):
        held = [pc.fill_null(pc.binary_length(batch.column(column)), 0) for column in ("element", "value")]
        sizes = pa.table({"key": batch.column("key"), "size": pc.add(*held)})
        sums.append(sizes.group_by("key").aggregate([("size", "sum")]).rename_columns(["key", "size"]))
    by_key = pa.concat_tables(sums).group_by("key").aggregate([("size", "sum")])
    for row in by_key.filter(pc.greater(by_key.column("size_sum"), LARGE_KEY_BYTES)).to_pylist():
        yield (
            f"{name}: key {row['key']!r} alone holds {row['size_sum']:,} bytes; backups and restores of it "
            "take several times that in memory."
        )


def dumped_keys(name: str, types: Mapping[str, int]) -> Iterator[str]:
    """Yield what a backup should say of keys that are kept as DUMP gives them, by their types."""
    for kind, count in sorted(types.items()):
        yield (
            f"{name}: {count} keys of type {kind} belong to a module and are kept as DUMP gives them; "
            "they can be restored only where that module is loaded."
        )
