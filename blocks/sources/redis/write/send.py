"""Sending the commands of a restore: to a server, or to those nodes of a cluster that hold their keys."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

import hiredis
import pyarrow as pa

from blocks.errors import SourceUnavailable
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.redirect import NodeConnection, Redirection, commands_of, key_of, redirection
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.topology import Address
from blocks.sources.redis.net.wire import Connection, Reply, Word, failure, packed
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.redis.rows import byte_strings
from blocks.sources.redis.temporary_names import OURS, real_name

_DELETE_AT_ONCE, _ASK_AT_ONCE = 500, 1_000
_ROUNDS = 12
_PAUSE_SECONDS = 0.05
_ASKING = packed(b"ASKING")
_EXPIRY, _IF_IT_HAS_ONE = b"PEXPIRE", b"XX"


def still_built(name: bytes, milliseconds: int) -> tuple[Word, ...]:
    """Return the command that makes sure that a temporary key is still the one that was given an expiry."""
    return _EXPIRY, name, milliseconds, _IF_IT_HAS_ONE


class Sender(Protocol):
    """Sends commands that are ready, and makes sure that each was done."""

    def send(self, payload: bytes, count: int) -> Sequence[Reply]:
        """Send so many packed commands, and return their answers.

        Raises:
            SourceUnavailable: One was refused, or the server went away; names the command and its key.
            ConfigurationError: The user may not do this.
        """
        ...

    def remove(self, keys: pa.LargeBinaryArray) -> None:
        """Remove keys; raises what `send` does."""
        ...

    def rename(self, names: Iterable[tuple[bytes, bytes]]) -> None:
        """Give keys other names, within their hash slots, where they are there; raises what `send` does."""
        ...

    def count(self, keys: Sequence[bytes]) -> Sequence[bool]:
        """Return for each key whether it is there; raises what `send` does."""
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


class _Commands:
    """Commands that both kinds of places are sent in the same way."""

    def rename(self, names: Iterable[tuple[bytes, bytes]]) -> None:
        commands = [packed("RENAME", key, name) for key, name in names]
        if commands:
            self.send(b"".join(commands), len(commands))

    def count(self, keys: Sequence[bytes]) -> Sequence[bool]:
        found: list[bool] = []
        for start in range(0, len(keys), _ASK_AT_ONCE):
            some = keys[start : start + _ASK_AT_ONCE]
            replies = self.send(b"".join(packed("EXISTS", key) for key in some), len(some))
            found += [reply == 1 for reply in replies]
        return found

    @abstractmethod
    def send(self, payload: bytes, count: int) -> Sequence[Reply]:
        """Send commands; return their answers."""


class _ToServer(_Commands):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, payload: bytes, count: int) -> Sequence[Reply]:
        replies = self._connection.ask(payload, count)
        if any(map(_in_doubt, replies)):
            for unit, some in _shared(_units(payload), replies):
                unit.check(some, self._connection.place)
        return replies

    def remove(self, keys: pa.LargeBinaryArray) -> None:
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            some = keys.slice(start, _DELETE_AT_ONCE).to_pylist()
            self._connection.checked(self._connection.ask(packed("UNLINK", *some), 1), "removing keys")


class _ToCluster(_Commands):
    """Sends each command to the node that holds its key, and again to where that node says the key is."""

    def __init__(self, cluster: Cluster, exits: ExitStack) -> None:
        self._cluster, self._exits = cluster, exits
        self._connections: dict[Address, NodeConnection] = {}

    def send(self, payload: bytes, count: int) -> Sequence[Reply]:
        shares: dict[Address, list[tuple[int, _Unit]]] = {}
        at = 0
        for unit in _units(payload):
            shares.setdefault(self._cluster.address_of(slot_of(unit.key)), []).append((at, unit))
            at += unit.count
        for address, units in shares.items():
            self._to(address).send(b"".join(unit.packed() for _, unit in units))
        answers: list[Reply] = [None] * count
        elsewhere: list[tuple[int, _Unit, Redirection]] = []
        for address, units in shares.items():
            connection = self._to(address)
            for at, unit in units:
                replies = connection.replies(unit.count)
                answers[at : at + unit.count] = replies
                doubt = any(map(_in_doubt, replies))
                if doubt and (found := unit.check(replies, connection.place, address)):
                    elsewhere.append((at, unit, found))
        for at, unit, found in elsewhere:  # in order: those of one key depend on one another
            answers[at : at + unit.count] = self._followed(unit, found)
        return answers

    def remove(self, keys: pa.LargeBinaryArray) -> None:
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            some = byte_strings(keys.slice(start, _DELETE_AT_ONCE))
            self.send(b"".join(packed("UNLINK", key) for key in some), len(some))

    def _followed(self, unit: _Unit, found: Redirection | None) -> Sequence[Reply]:
        replies: Sequence[Reply] = ()
        for attempt in range(_ROUNDS):
            if found is None:
                return replies
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
        """Raise the first error, naming the command that caused it; return where a node of a cluster sends us."""
        for n, reply in enumerate(replies):
            if asked is not None and (found := redirection(reply, asked)):
                return found
            if isinstance(reply, hiredis.ReplyError):
                self._check_done(n, reply, place)
            for inner, each in enumerate(reply if isinstance(reply, list) else ()):
                if isinstance(each, hiredis.ReplyError):
                    self._check_done(inner + 1, each, place)
            self._check_answer(n, reply, place)
        return None

    def _check_done(self, number: int, error: hiredis.ReplyError, place: str) -> None:
        words = self.commands[number]
        # where there is nothing, nothing has to make room, nor is there anything to give back
        moves = (words[0] == b"RENAME" and words[2].startswith(OURS)) or words[0] == b"RENAMENX"
        if moves and str(error).startswith("ERR no such key"):
            return
        if words[0] == b"RENAME" and words[1].startswith(OURS) and str(error).startswith("ERR no such key"):
            raise _removed(words[1], place)
        raise failure(error, place, f"{words[0].decode()} of key {real_name(key_of(words) or self.key)!r}")

    def _check_answer(self, number: int, reply: Reply, place: str) -> None:
        """Make sure that what is no error was done, where an answer can say that it was not."""
        words = self.commands[number]
        if words[0] == _EXPIRY and words[-1] == _IF_IT_HAS_ONE and reply == 0:
            raise _removed(words[1], place)
        if words[0] == b"XCLAIM" and reply == []:
            raise SourceUnavailable(f"{place}: entry {words[5]!r} of key {real_name(words[1])!r} was not made pending")


def _removed(name: bytes, place: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{place}: key {real_name(name)!r} was removed while it was being built",
        hint="The server evicts keys, or somebody removes them: raise its `maxmemory`.",
    )


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


def _in_doubt(reply: Reply) -> bool:
    """Whether something may not have been done."""
    if isinstance(reply, list):
        return not reply or any(isinstance(each, hiredis.ReplyError) for each in reply)
    return reply == 0 or isinstance(reply, hiredis.ReplyError)
