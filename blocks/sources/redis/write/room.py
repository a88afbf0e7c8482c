"""Whether a server, or each node of a cluster, has room for what is going to be restored."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.redirect import commands_of, key_of
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.topology import Address
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.read.keys import END, SLOTS, KeySpool, slot_of
from blocks.sources.redis.rows import width_of

KEY_BYTES = 80
"""What a server needs for a key besides its name and value, at least."""

_ELEMENT_BYTES, _CONTAINER_BYTES = {"hash": 56, "set": 64, "zset": 96}, {"hash": 150, "set": 150, "zset": 850}
"""What a server needs for an element besides its bytes, and for a container, where these are too many or too long."""
_COMPACT_ELEMENTS, _COMPACT_BYTES = {"hash": 512, "set": 128, "zset": 128}, 64
"""Up to so many elements of so many bytes, by default, a container is one piece of memory."""
_INTEGERS = 512
"""So is a set of so many integers."""

_AT_ONCE = 1_000
_STEP_KEYS = 200_000


def overhead_of(kind: str, words: Sequence[bytes], compact_sets: bool) -> int:
    """Say how many bytes a container takes besides what its elements are long, about.

    Args:
        kind: Its type.
        words: Its elements, with their values or scores where it has them.
        compact_sets: Whether the server keeps small sets that are not of integers compactly (Redis 7.2).
    """
    each = _ELEMENT_BYTES.get(kind)
    if each is None:
        return 0
    count = len(words) // width_of(kind)
    if kind == "set" and count <= _INTEGERS and all(map(bytes.isdigit, words)):
        return 0
    few = count <= _COMPACT_ELEMENTS[kind] and (kind != "set" or compact_sets)
    if few and max(map(len, words), default=0) <= _COMPACT_BYTES:
        return 0
    return count * each + _CONTAINER_BYTES[kind]


def overhead_of_many(kind: str, count: int) -> int:
    """Say what `overhead_of` says of so many elements that no container is one piece of memory."""
    each = _ELEMENT_BYTES.get(kind)
    return 0 if each is None else count * each + _CONTAINER_BYTES[kind]


Ranges = Sequence[tuple[int, int]]
"""Positions that a node holds, each range from one up to before another."""


class Need:
    """How many bytes the keys of a restore take: of all, or for a cluster by hash slot."""

    def __init__(self, server: Server | Cluster) -> None:
        self._by_slot = isinstance(server, Cluster)
        self.slots = np.zeros(SLOTS if self._by_slot else 1, np.int64)

    def add(self, other: Need) -> None:
        """Count what another counted."""
        self.slots += other.slots

    def add_commands(self, commands: bytes) -> None:
        """Count what commands put."""
        if not self._by_slot:
            self.slots[0] += len(commands)
            return
        for words in commands_of(commands):
            if (key := key_of(words)) is not None:
                self.slots[slot_of(key)] += sum(map(len, words))

    def add_keys(self, keys: Sequence[bytes]) -> None:
        """Count what keys take besides."""
        if not self._by_slot:
            self.slots[0] += KEY_BYTES * len(keys)
            return
        for key in keys:
            self.slots[slot_of(key)] += KEY_BYTES

    def add_overhead(self, overhead: Iterable[tuple[bytes, int]]) -> None:
        """Count what keys take besides what commands put."""
        for key, size in overhead:
            self.slots[slot_of(key) if self._by_slot else 0] += size


class Room:
    """What a server's memory is now, in bytes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        facts = {name: int(value) for name, value in server.info("memory").items() if value.isdigit()}
        self.used, self._data = facts["used_memory"], facts.get("used_memory_dataset", 0)
        self._configured = facts.get("maxmemory", 0)
        self.limit = self._configured or facts.get("total_system_memory", 0)
        self.policy = server.info("memory").get("maxmemory_policy", "noeviction")

    @property
    def at_most(self) -> int:
        """What would be free if nothing of what is there stayed."""
        return self.limit - self.used + self._data

    def check(self, needed: int, keys: Mapping[int, KeySpool], ranges: Ranges) -> None:
        """Refuse what does not fit beside what stays; keys by the number of their database.

        Raises:
            RestoreRefused: It does not fit.
        """
        free = self.limit - self.used
        if not self.limit or needed <= free:
            return
        total = max(1, sum(self._server.keyspace().values()))
        replaced = sum(self._existing(number, spool, ranges) for number, spool in keys.items())
        free += self._data * replaced // total
        if needed > free:
            raise self.refusal(needed, free)

    def _existing(self, database: int, spool: KeySpool, ranges: Ranges) -> int:
        steps = itertools.product(spool.steps(_STEP_KEYS), ranges)
        cuts = ((max(one, first), min(other, last)) for (one, other), (first, last) in steps)
        return sum(self._count(database, spool.between(*cut)) for cut in cuts if cut[0] < cut[1])

    def _count(self, database: int, keys: pa.LargeBinaryArray) -> int:
        found = 0
        with self._server.connection(database) as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys.slice(start, _AT_ONCE).to_pylist()
                asked = b"".join(packed("EXISTS", key) for key in some)
                replies = connection.checked(connection.ask(asked, len(some)), "EXISTS")
                found += sum(reply for reply in replies if isinstance(reply, int))
        return found

    def refusal(self, needed: int, free: int) -> RestoreRefused:
        """Say that so much does not fit."""
        limit = "maxmemory" if self._configured else "the memory of its machine"
        evicts = "" if self.policy == "noeviction" else f" (it would evict other keys: {self.policy})"
        return RestoreRefused(
            f"{self._server} has {max(0, free):,} bytes free of {limit}, the restore needs about {needed:,}{evicts}",
            hint="Raise maxmemory, restore fewer keys with --key, or restore to another server with --to.",
        )


def check_roughly(server: Server | Cluster, needed: int) -> Iterator[str]:
    """Refuse what could not fit even if it took the place of all that is there; say which servers evict keys.

    Raises:
        RestoreRefused: It cannot fit.
    """
    rooms = [Room(node) for node in server.nodes()]
    free = sum(room.at_most for room in rooms)
    if all(room.limit for room in rooms) and needed > free:
        raise min(rooms, key=lambda room: room.at_most).refusal(needed // len(rooms), free // len(rooms))
    for node, room in zip(server.nodes(), rooms, strict=True):
        if room.policy != "noeviction":
            yield f"{node} evicts keys by itself when its memory is full ({room.policy})."


def check_room(server: Server | Cluster, need: Need, keys: Mapping[int, KeySpool]) -> None:
    """Refuse what does not fit beside what stays, on one of the nodes.

    Raises:
        RestoreRefused: It does not fit.
    """
    if not isinstance(server, Cluster):
        Room(server).check(int(need.slots.sum()), keys, [(0, END)])
        return
    held: dict[Address, list[tuple[int, int]]] = {}
    for first, last in itertools.pairwise([0, *server.boundaries(), END]):
        held.setdefault(server.address_of(first >> 16), []).append((first, last))
    for address, ranges in held.items():
        needed = sum(int(need.slots[first >> 16 : last >> 16].sum()) for first, last in ranges)
        Room(server.node(address)).check(needed, keys, ranges)
