"""One moment of a server, or of each master of a Redis Cluster: its rows, or its dataset in a private server here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from blocks.errors import SourceChanged
from blocks.host.local_time import local_time
from blocks.sources.redis.net.cluster import Cluster, check_only_first, summed
from blocks.sources.redis.net.node import Node
from blocks.sources.redis.net.private_server import RDB, Program, private_server
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.topology import Layout, boundaries_of
from blocks.sources.redis.rdb.layout import HEADER_BYTES, made_at
from blocks.sources.redis.read.grouping import Mask
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import SCHEMA, byte_strings
from blocks.sources.redis.views.replica import take_rdb
from blocks.sources.redis.views.snapshot_view import Snapshot, SnapshotReader
from blocks.sources.redis.views.view import Holder

T = TypeVar("T")


class Shards:
    """The datasets of all masters, as `Server` offers that of one.

    Args:
        servers: A private server for each master.
        owners: The index of the server that holds a slot, by the slot.
        remarks: What the backup should say.
    """

    def __init__(self, servers: Sequence[Server], owners: Sequence[int], remarks: tuple[str, ...]) -> None:
        self._servers, self._owners, self.remarks = servers, owners, remarks

    def nodes(self) -> Sequence[Server]:
        """Return the servers."""
        return self._servers

    def keyspace(self) -> dict[int, int]:
        """Return how many keys each database holds that holds any."""
        return summed(server.keyspace() for server in self._servers)

    def boundaries(self) -> list[int]:
        """Return the positions at which the slots of another node begin."""
        return boundaries_of(self._owners)

    def scan(self, database: int, patterns: Sequence[str]) -> Iterator[list[bytes]]:
        """Yield the names of all keys that one of the patterns matches."""
        for n, server in enumerate(self._servers):
            for keys in server.scan(database, patterns):
                # what an old move of slots left behind at a node that does not hold them is nobody's
                yield [key for key in keys if self._owners[slot_of(key)] == n]

    def read(
        self, database: int, keys: pa.LargeBinaryArray, put_off_ms: int, guesses: Guesses
    ) -> tuple[pa.Table, dict[str, int]]:
        """Return the rows of those keys that are there, and how many of each type belong to a module."""
        wanted: dict[int, list[bytes]] = {}
        for key in byte_strings(keys):
            wanted.setdefault(self._owners[slot_of(key)], []).append(key)
        tables, dumped = [SCHEMA.empty_table()], dict[str, int]()
        for n, some in wanted.items():
            rows, kinds = self._servers[n].read(database, pa.array(some, pa.large_binary()), put_off_ms, guesses)
            tables.append(rows)
            dumped |= {kind: dumped.get(kind, 0) + count for kind, count in kinds.items()}
        return pa.concat_tables(tables), dumped

    def check_same(self) -> None:
        """Make sure that no private server was ended meanwhile."""
        for server in self._servers:
            server.check_same()


def snapshot_of(server: Server | Cluster, reader: SnapshotReader) -> Snapshot:
    """Read the rows of a moment of a server, or of each master of a cluster; it is closed then.

    Raises:
        ConfigurationError: The user may not replicate.
        SourceUnavailable: A server refused, went away before the end, or sent what is damaged.
        SourceChanged: Slots moved between nodes, or a node was replaced.
        UnknownForm: One holds what only a server can read.
    """
    if isinstance(server, Cluster):
        return _snapshots_of(server, reader)
    snapshot = reader.read(server)
    server.close()
    return snapshot


@contextmanager
def private_copy_of(server: Server | Cluster, folder: Path, program: Program) -> Iterator[Holder]:
    """Take the dataset of a server, or of each master of a cluster, and open it; the server is closed then.

    Args:
        server: The server or cluster that is read.
        folder: Folder for the datasets.
        program: The program that private servers run.

    Raises:
        ConfigurationError: The user may not replicate, or there is no server program here.
        SourceUnavailable: A server refused, or went away before the end.
        SourceChanged: Slots moved between nodes, or a node was replaced.
    """
    if isinstance(server, Cluster):
        with _shards_of(server, folder, program) as shards:
            yield shards
        return
    take_rdb(server, folder / RDB)
    server.close()
    with private_server(folder, program) as private:
        yield private


@contextmanager
def _shards_of(cluster: Cluster, folder: Path, program: Program) -> Iterator[Shards]:
    """Take the datasets of all masters at about the same time, and open them."""

    def take(n: int, node: Node, owned: Mask) -> Path:
        path = folder / str(n)
        path.mkdir(mode=0o700)
        take_rdb(node, path / RDB)
        return path

    layout, folders = _of_masters(cluster, take)
    with ExitStack() as exits:
        servers = [exits.enter_context(private_server(each, program)) for each in folders]
        yield Shards(servers, _owners(layout), (_remark([_made_at(each / RDB) for each in folders]),))


def _snapshots_of(cluster: Cluster, reader: SnapshotReader) -> Snapshot:
    """Read the rows of all masters at about the same time."""
    # what an old move of slots left behind at a node that does not hold them is nobody's
    layout, snapshots = _of_masters(cluster, lambda n, node, owned: reader.read(node, owned))
    # of those that are not wanted nothing was read
    check_only_first(cluster, (number for snapshot in snapshots for number in snapshot.rows))
    rows = reader.spool()
    for snapshot in snapshots:
        for spool in snapshot.rows.values():
            rows.take(spool)
    remarks = dict.fromkeys(remark for snapshot in snapshots for remark in snapshot.remarks)
    return Snapshot(
        {0: rows},
        boundaries=boundaries_of(_owners(layout)),
        remarks=(*remarks, _remark([snapshot.made_at for snapshot in snapshots])),
    )


def _of_masters(cluster: Cluster, take: Callable[[int, Node, Mask], T]) -> tuple[Layout, list[T]]:
    """Take something of all masters at once; each is given its number and the slots that it holds."""
    layout = cluster.layout()
    nodes = [cluster.node(address) for address in layout.masters()]
    owners = np.array(_owners(layout))
    with ThreadPoolExecutor(len(nodes)) as pool:
        taken = list(pool.map(lambda n, node: take(n, node, owners == n), range(len(nodes)), nodes))
    cluster.check_same()
    if layout.moving or layout.unlike(cluster.layout()):
        raise SourceChanged(
            f"{cluster}: hash slots moved between nodes while each was taken at a moment of its own: "
            "keys could be in none of them, or in two",
            hint="Run again when the resharding is done, or without `consistent`.",
        )
    cluster.close()
    return layout, taken


def _owners(layout: Layout) -> list[int]:
    numbers = {address: n for n, address in enumerate(layout.masters())}
    return [numbers[layout.addresses[owner]] for owner in layout.owners]


def _remark(made_at: Sequence[datetime | None]) -> str:
    times = sorted(at for at in made_at if at)
    between = f", between {local_time(times[0])} and {local_time(times[-1])}" if times else ""
    return (
        f"Each of the {len(made_at)} masters of the cluster was taken at one moment, but not all at the same"
        f"{between}: keys of different nodes may be of different moments."
    )


def _made_at(path: Path) -> datetime | None:
    """Read from an RDB of which second it is."""
    with path.open("rb") as file:
        return made_at(file.read(HEADER_BYTES))
