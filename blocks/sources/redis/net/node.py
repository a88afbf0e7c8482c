"""One node of a Redis Cluster, asked for keys that it may hold."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.net.redirect import NodeConnection, Redirection
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.topology import Address
from blocks.sources.redis.net.wire import Connection
from blocks.sources.redis.read.read_keys import KeyReader
from blocks.sources.redis.read.type_guesses import Guesses

_ALL_KEYS = 2**31 - 1


@dataclass(frozen=True)
class Reading:
    """What a node gave.

    Attributes:
        rows: The rows of the keys that are there, with the columns and types of rows.SCHEMA.
        dumped: How many keys of each type belong to a module.
        elsewhere: Keys that the node does not have, or not any more, and where it says they are.
    """

    rows: pa.Table
    dumped: dict[str, int]
    elsewhere: dict[bytes, Redirection]


class Node(Server):
    """A node of a cluster.

    Args:
        place: Its own place.
        access: How it lets us in.
    """

    @property
    def address(self) -> Address:
        """Its host and port."""
        return self.place.hosts[0]

    @contextmanager
    def borrowed(self, *, asking: bool, singly: bool) -> Iterator[NodeConnection]:
        """Borrow a connection for reading keys in some way."""
        with self.connection() as connection:
            node = cast("NodeConnection", connection)
            node.start(asking=asking, singly=singly)
            yield node
            node.start()

    def keys_in(self, slot: int) -> list[bytes]:
        """List all keys of a slot at one moment."""
        return cast("list[bytes]", self.call("CLUSTER", "GETKEYSINSLOT", slot, _ALL_KEYS))

    def _connection(self, sock: socket.socket, place: str) -> Connection:
        return NodeConnection(sock, place, self.place.hosts[0])

    def read_here(
        self, keys: list[bytes], where: Redirection, singly: bool, put_off_ms: int, guesses: Guesses
    ) -> Reading:
        """Read keys, and find out which of them are elsewhere."""
        how = {"asking": where.asking, "singly": singly}

        def once(field_expiry: bool) -> Reading:
            with self.borrowed(**how) as one, self.borrowed(**how) as other:
                reader = KeyReader((one, other), field_expiry, put_off_ms, guesses)
                rows = reader.read(pa.array(keys, pa.large_binary()))
                elsewhere = one.redirected | other.redirected
            if elsewhere:
                moved = pa.array(list(elsewhere), pa.large_binary())
                rows = rows.filter(pc.invert(pc.is_in(rows.column("key"), moved)))
            return Reading(rows, reader.dumped, elsewhere)

        return self.with_fields(0, once)
