"""Sending the commands of a restore: to a server, or to those nodes of a cluster that hold their keys."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

import hiredis
import pyarrow as pa

from blocks.errors import SourceUnavailable
from blocks.sources.redis.cluster import Cluster
from blocks.sources.redis.keys import slot_of
from blocks.sources.redis.redirect import NodeConnection, Redirection, commands_of, key_of, redirection
from blocks.sources.redis.rows import byte_strings
from blocks.sources.redis.server import Server
from blocks.sources.redis.topology import Address
from blocks.sources.redis.wire import Connection, Reply, failure, packed

_DELETE_AT_ONCE = 500
_ROUNDS = 12
_PAUSE_SECONDS = 0.05
_ASKING = packed(b"ASKING")


class Sender(Protocol):
    """Sends commands that are ready, and makes sure that each was done."""

    def send(self, payload: bytes, count: int) -> None:
        """Send so many packed commands.

        Raises:
            SourceUnavailable: One was refused, or the server went away; names the command and its key.
            ConfigurationError: The user may not do this.
        """
        ...

    def remove(self, keys: pa.LargeBinaryArray) -> None:
        """Remove keys; raises what `send` does."""
        ...


@contextmanager
def sender_to(server: Server | Cluster, database: int) -> Iterator[Sender]:
    """Open a sender to a database."""
    if isinstance(server, Cluster):
        with ExitStack() as exits:
            yield _ToCluster(server, exits)
        return
    with server.connection(database) as connection:
        yield _ToServer(connection)


class _ToServer:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, payload: bytes, count: int) -> None:
        replies = self._connection.ask(payload, count)
        if any(map(_failed, replies)):
            for unit, some in _shared(_units(payload), replies):
                unit.check(some, self._connection.place)

    def remove(self, keys: pa.LargeBinaryArray) -> None:
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            some = keys.slice(start, _DELETE_AT_ONCE).to_pylist()
            self._connection.checked(self._connection.ask(packed("UNLINK", *some), 1), "removing keys")


class _ToCluster:
    """Sends each command to the node that holds its key, and again to where that node says the key is."""

    def __init__(self, cluster: Cluster, exits: ExitStack) -> None:
        self._cluster, self._exits = cluster, exits
        self._connections: dict[Address, NodeConnection] = {}

    def send(self, payload: bytes, count: int) -> None:
        shares: dict[Address, list[_Unit]] = {}
        for unit in _units(payload):
            shares.setdefault(self._cluster.address_of(slot_of(unit.key)), []).append(unit)
        for address, units in shares.items():
            self._to(address).send(b"".join(unit.packed() for unit in units))
        elsewhere: list[tuple[_Unit, Redirection]] = []
        for address, units in shares.items():
            connection = self._to(address)
            replies = connection.replies(sum(unit.count for unit in units))
            for unit, some in _shared(units, replies) if any(map(_failed, replies)) else ():
                if found := unit.check(some, connection.place, address):
                    elsewhere.append((unit, found))
        for unit, found in elsewhere:  # in order: those of one key depend on one another
            self._follow(unit, found)

    def remove(self, keys: pa.LargeBinaryArray) -> None:
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            some = byte_strings(keys.slice(start, _DELETE_AT_ONCE))
            self.send(b"".join(packed("UNLINK", key) for key in some), len(some))

    def _follow(self, unit: _Unit, found: Redirection | None) -> None:
        for attempt in range(_ROUNDS):
            if found is None:
                return
            if attempt or found.later:
                time.sleep(min(1.0, _PAUSE_SECONDS * 2**attempt))
            if not (found.asking or found.later):
                self._cluster.moved(slot_of(unit.key), found.address)
            address, connection = found.address, self._to(found.address)
            connection.send(_ASKING * found.asking + unit.packed())
            replies = connection.replies(unit.count + found.asking)[found.asking :]
            found = unit.check(replies, connection.place, address)
        raise SourceUnavailable(
            f"{self._cluster}: the hash slot {slot_of(unit.key)} of key {unit.key!r} kept moving between nodes",
            hint="Finish the resharding first.",
        )

    def _to(self, address: Address) -> NodeConnection:
        if address not in self._connections:
            borrowed = self._exits.enter_context(self._cluster.node(address).connection())
            self._connections[address] = cast("NodeConnection", borrowed)
        return self._connections[address]


@dataclass
class _Unit:
    """A command, or a transaction: what is done as a whole or not at all.

    Attributes:
        key: The key it is about; a name in the same slot, where a container is being built.
        commands: The words of each.
    """

    key: bytes = b""
    commands: list[list[bytes]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many answers there will be."""
        return len(self.commands)

    def packed(self) -> bytes:
        """Write it as RESP."""
        return b"".join(packed(*words) for words in self.commands)

    def check(self, replies: Sequence[Reply], place: str, asked: Address | None = None) -> Redirection | None:
        """Raise the first error, naming the command that met it; return where a node of a cluster sends us."""
        for n, reply in enumerate(replies):
            if asked is not None and (found := redirection(reply, asked)):
                return found
            if isinstance(reply, hiredis.ReplyError):
                raise self._failure(n, reply, place)
            for inner, each in enumerate(reply if isinstance(reply, list) else ()):
                if isinstance(each, hiredis.ReplyError):
                    raise self._failure(inner + 1, each, place)
        return None

    def _failure(self, number: int, error: hiredis.ReplyError, place: str) -> Exception:
        words = self.commands[number]
        return failure(error, place, f"{words[0].decode()} of key {key_of(words) or self.key!r}")


def _units(payload: bytes) -> Iterator[_Unit]:
    unit, within = _Unit(), False
    for words in commands_of(payload):
        unit.commands.append(words)
        within = words[0] == b"MULTI" or (within and words[0] != b"EXEC")
        unit.key = unit.key or key_of(words) or b""
        if not within:
            yield unit
            unit = _Unit()


def _shared(units: Iterable[_Unit], replies: Sequence[Reply]) -> Iterator[tuple[_Unit, Sequence[Reply]]]:
    """Give each unit its answers."""
    start = 0
    for unit in units:
        yield unit, replies[start : start + unit.count]
        start += unit.count


def _failed(reply: Reply) -> bool:
    if isinstance(reply, list):
        return any(isinstance(each, hiredis.ReplyError) for each in reply)
    return isinstance(reply, hiredis.ReplyError)
