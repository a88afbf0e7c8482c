"""One moment of each master of a Redis Cluster: their datasets, each in a private server of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from blocks.errors import SourceChanged
from blocks.sources.redis.cluster import Cluster
from blocks.sources.redis.guesses import Guesses
from blocks.sources.redis.keys import slot_of
from blocks.sources.redis.node import Node
from blocks.sources.redis.private import RDB, Program, private_server
from blocks.sources.redis.replica import take_rdb
from blocks.sources.redis.rows import SCHEMA, byte_strings
from blocks.sources.redis.server import Server
from blocks.sources.redis.topology import Layout

_CTIME = re.compile(rb"\xfa\x05ctime\xc2(.{4})", re.DOTALL)
_HEADER_BYTES = 512


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
        """Return how many keys there are; a cluster has one database."""
        return {0: sum(server.keyspace().get(0, 0) for server in self._servers)}

    def boundaries(self) -> list[int]:
        """Return the positions at which the slots of another node begin."""
        pairs = zip(self._owners, self._owners[1:], strict=False)
        return [slot << 16 for slot, (one, other) in enumerate(pairs, 1) if one != other]

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


@contextmanager
def shards_of(cluster: Cluster, folder: Path, program: Program) -> Iterator[Shards]:
    """Take the datasets of all masters at about the same time, and open them.

    Args:
        cluster: Is closed when all is taken.
        folder: Where the datasets go.
        program: What private servers are.

    Raises:
        ConfigurationError: The user may not replicate, or there is no server program here.
        SourceUnavailable: A node refused, or went away before the end.
        SourceChanged: Slots moved between nodes, or a node was replaced.
    """
    layout = cluster.layout()
    nodes = [cluster.node(address) for address in layout.masters()]
    folders = [folder / str(n) for n in range(len(nodes))]
    _take(nodes, folders)
    cluster.check_same()
    if layout.moving or layout.unlike(cluster.layout()):
        raise SourceChanged(
            f"{cluster}: hash slots moved between nodes while each was taken at a moment of its own: "
            "keys could be in none of them, or in two",
            hint="Run again when the resharding is done, or without `consistent`.",
        )
    cluster.close()
    with ExitStack() as exits:
        servers = [exits.enter_context(private_server(each, program)) for each in folders]
        yield Shards(servers, _owners(layout), (_remark(folders),))


def _take(nodes: Sequence[Node], folders: Sequence[Path]) -> None:
    for each in folders:
        each.mkdir(mode=0o700)
    with ThreadPoolExecutor(len(nodes)) as pool:
        for _ in pool.map(lambda node, each: take_rdb(node, each / RDB), nodes, folders):
            pass


def _owners(layout: Layout) -> list[int]:
    numbers = {address: n for n, address in enumerate(layout.masters())}
    return [numbers[layout.addresses[owner]] for owner in layout.owners]


def _remark(folders: Sequence[Path]) -> str:
    times = sorted(at for each in folders if (at := _made_at(each / RDB)))
    between = f", between {times[0]:%H:%M:%S} and {times[-1]:%H:%M:%S} UTC" if times else ""
    return (
        f"Each of the {len(folders)} masters of the cluster was taken at one moment, but not all at the same"
        f"{between}: keys of different nodes may be of different moments."
    )


def _made_at(path: Path) -> datetime | None:
    """Read from an RDB of which second it is."""
    with path.open("rb") as file:
        found = _CTIME.search(file.read(_HEADER_BYTES))
    return datetime.fromtimestamp(int.from_bytes(found[1], "little"), UTC) if found else None
