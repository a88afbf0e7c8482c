"""A connection to one node of a Redis Cluster, for readers who know nothing of clusters.

A node answers only for its own hash slots, and a transaction may touch one slot only. So what is asked of many keys at
once goes out slot by slot, and a key that the node sends us elsewhere for looks, to who reads here, as one that is
gone. Such keys are collected: whatever was read of them here does not count, and they are read again where they are.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import hiredis
import pyarrow as pa

from blocks.sources.redis.net.topology import Address, read_address
from blocks.sources.redis.net.wire import Answers, Connection, Reply, failure, packed
from blocks.sources.redis.read.keys import slot_of

_ABSENT: dict[bytes, Reply] = {
    b"TYPE": b"none",
    b"PEXPIRETIME": -2,
    b"HSCAN": [b"0", []],
    b"SSCAN": [b"0", []],
    b"ZSCAN": [b"0", []],
    b"LRANGE": [],
    b"ZRANGE": [],
    b"HGETALL": [],
    b"SMEMBERS": [],
    b"WATCH": b"OK",
}
"""What a server answers for a key that is not there, where that is not None."""

_MULTI, _EXEC, _ASKING = packed(b"MULTI"), packed(b"EXEC"), packed(b"ASKING")
_SECOND = (b"XINFO", b"XGROUP", b"OBJECT")
"""Commands whose key comes after a subcommand."""


@dataclass(frozen=True)
class Redirection:
    """Where a node says that a key is.

    Attributes:
        address: The node to ask.
        asking: Whether it only has the key so far, and not yet its slot.
        later: Whether the slot is just being moved, so that waiting helps.
    """

    address: Address
    asking: bool = False
    later: bool = False


def redirection(reply: Reply, asked: Address) -> Redirection | None:
    """Read an answer that sends us elsewhere; None where it is another one."""
    if not isinstance(reply, hiredis.ReplyError):
        return None
    kind, _, rest = str(reply).partition(" ")
    if kind in ("MOVED", "ASK"):
        return Redirection(read_address(rest.split()[1], asked), asking=kind == "ASK")
    return Redirection(asked, later=True) if kind == "TRYAGAIN" else None


@dataclass
class _Group:
    """The commands of one transaction: of one slot, or of one key.

    Attributes:
        keys: The keys it reads.
        commands: As packed.
        spots: For each command: its place among what was asked, and the places in its answer, where it was split.
    """

    keys: dict[bytes, None] = field(default_factory=dict)
    commands: list[bytes] = field(default_factory=list)
    spots: list[tuple[int, list[int] | None]] = field(default_factory=list)

    def add(self, command: bytes, spot: tuple[int, list[int] | None]) -> None:
        """Add a command."""
        self.commands.append(command)
        self.spots.append(spot)


class NodeConnection(Connection):
    """A connection to one node.

    Args:
        sock: As for `Connection`.
        place: How errors call the node.
        address: Host and port of the node.
    """

    def __init__(self, sock: socket.socket, place: str, address: Address) -> None:
        super().__init__(sock, place)
        self.address = address
        self.asking = self.singly = False
        """Whether the node is asked for keys whose slot it does not have yet; whether each key is asked for alone."""
        self.redirected: dict[bytes, Redirection] = {}
        """Keys that are to be read elsewhere, since `start`."""
        self._groups: list[_Group] = []

    def start(self, *, asking: bool = False, singly: bool = False) -> None:
        """Begin to read other keys, in this way."""
        self.asking, self.singly, self.redirected = asking, singly or asking, {}

    def ask(self, commands: bytes, count: int) -> list[Reply]:
        """Send packed commands; a key that is elsewhere is answered for as one that is gone."""
        if self.asking:
            listed = b"".join(_ASKING + packed(*words) for words in commands_of(commands))
            replies = super().ask(listed, 2 * count)[1::2]
        else:
            replies = super().ask(commands, count)
        if not any(isinstance(reply, hiredis.ReplyError) for reply in replies):
            return replies
        return [self._noted(words, reply) for words, reply in zip(commands_of(commands), replies, strict=True)]

    def begin(self, commands: Iterable[bytes | pa.Buffer]) -> None:
        """Send transactions, one for each slot."""
        self._groups = self._grouped(commands)
        asking = _ASKING if self.asking else b""
        self.send(b"".join(asking + b"".join((_MULTI, *group.commands, _EXEC)) for group in self._groups))

    def end_raw(self, count: int) -> Answers | None:
        """Take the answers of all transactions, parsed and in the order of the commands that `begin` was given."""
        answers: list[Reply] = [None] * count
        complete = True
        for group in self._groups:
            replies = self.replies(len(group.commands) + 2 + self.asking)
            done = replies[-1]
            if done is None:  # a watched key changed
                complete = False
                continue
            if not isinstance(done, list):
                done = self._elsewhere(group, replies)
            for (n, places), reply in zip(group.spots, done, strict=True):
                answers[n] = reply if places is None else _filled(answers[n], places, reply)
        return answers if complete else None

    def _noted(self, words: list[bytes], reply: Reply) -> Reply:
        found = redirection(reply, self.address)
        if found is None:
            return reply
        key = key_of(words)
        assert key is not None
        self.redirected[key] = found
        return _absent(words)

    def _elsewhere(self, group: _Group, replies: list[Reply]) -> list[Reply]:
        """Put aside the keys of a transaction that the node would not do, and answer as if they were gone."""
        found = [each for reply in replies if (each := redirection(reply, self.address))]
        if not found:
            refused = next(reply for reply in replies if isinstance(reply, hiredis.ReplyError))
            raise failure(refused, self.place, "reading in a transaction")
        # while a slot is being moved, some of its keys may still be here: each is asked for alone then
        alone = len(group.keys) > 1 and found[0].asking
        for key in group.keys:
            self.redirected[key] = Redirection(self.address) if alone else found[0]
        return [_absent(*commands_of(command)) for command in group.commands]

    def _grouped(self, commands: Iterable[bytes | pa.Buffer]) -> list[_Group]:
        """Sort commands into transactions by the slots of their keys, or by the keys."""
        groups: dict[object, _Group] = {}
        for n, words in enumerate(commands_of(b"".join(commands))):
            if words[0] != b"MGET":
                self._group(groups, key_of(words)).add(packed(*words), (n, None))
                continue
            places: dict[int, tuple[_Group, list[int]]] = {}
            for place, key in enumerate(words[1:]):
                group = self._group(groups, key)
                places.setdefault(id(group), (group, []))[1].append(place)
            for group, some in places.values():
                group.add(packed(b"MGET", *(words[1 + place] for place in some)), (n, some))
        return list(groups.values())

    def _group(self, groups: dict[object, _Group], key: bytes | None) -> _Group:
        named = key is None or self.singly
        group = groups.setdefault(key if named else slot_of(cast("bytes", key)), _Group())
        if key is not None:
            group.keys[key] = None
        return group


def commands_of(payload: bytes) -> Iterator[list[bytes]]:
    """Read packed commands."""
    reader = hiredis.Reader()
    reader.feed(payload)
    while (words := reader.gets()) is not False:
        yield cast("list[bytes]", words)


def key_of(words: Sequence[bytes]) -> bytes | None:
    """Return the key of a command; None where it has none."""
    at = 2 if words[0] in _SECOND else 1
    return words[at] if len(words) > at else None


def _absent(words: Sequence[bytes]) -> Reply:
    return [None] * (len(words) - 1) if words[0] == b"MGET" else _ABSENT.get(words[0])


def _filled(answer: Reply, places: Sequence[int], reply: Reply) -> Reply:
    """Put a share of an answer to MGET into its places."""
    answer = answer if isinstance(answer, list) else []
    answer += [None] * (places[-1] + 1 - len(answer))
    for place, each in zip(places, cast("list[Reply]", reply), strict=True):
        answer[place] = each
    return answer
