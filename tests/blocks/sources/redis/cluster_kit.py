"""Real Redis Clusters on free ports, and hash slots that are moved at will."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from blocks.sources.redis.net.wire import Reply, Word
from blocks.sources.redis.read.keys import slot_of
from tests.blocks.sources.redis.kit import RedisServer, containers, free_port, streams, strings

_READY_SECONDS = 30
_POLL_SECONDS = 0.02
_DB0 = hashlib.sha1(hashlib.sha1(bytes(4)).digest()).digest()

FREE_PORT = "a free port"
"""Stands for another port in the options of each server."""

EVEN = ((0, 5460), (5461, 10922), (10923, 16383))
"""The slots of three masters, as redis-cli would share them out."""


class RedisCluster:
    """Masters with given ranges of slots, and replicas of the first ones.

    Args:
        folder: Where they live.
        ranges: First and last slot of each range; the masters take turns with them.
        masters: How many there are.
        replicas: How many of the masters have a replica.
        options: Of all servers.
        program: What they are.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        ranges: Sequence[tuple[int, int]] = EVEN,
        masters: int = 3,
        replicas: int = 0,
        program: str = "redis-server",
    ) -> None:
        self.program = program
        self._options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "no", *options]
        self._bus: dict[int, int] = {}
        self._known: dict[int, int] = {}
        self.servers = [self._started(folder / str(n)) for n in range(masters + replicas)]
        self.masters, self.replicas = self.servers[:masters], self.servers[masters:]
        for n, server in enumerate(self.servers):
            server("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for n, (first, last) in enumerate(ranges):
            self.masters[n % masters]("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in self.servers[1:]:
            server("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port, self._bus[self.servers[0].port])
        self._wait(lambda: all(len(self._lines(server)) == len(self.servers) for server in self.servers))
        for replica, master in zip(self.replicas, self.masters, strict=False):
            replica("CLUSTER", "REPLICATE", id_of(master))
        self.settle()

    def _started(self, folder: Path) -> RedisServer:
        bus = free_port()
        options = [str(free_port()) if word == FREE_PORT else word for word in self._options]
        server = RedisServer(folder, *options, "--cluster-port", str(bus), program=self.program)
        self._bus[server.port] = bus
        return server

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def settle(self) -> None:
        """Wait until all nodes that are up agree that all slots are served and all replicas follow."""
        self._wait(lambda: all(b"cluster_state:ok" in server("CLUSTER", "INFO") for server in self.servers))  # type: ignore
        self._wait(lambda: all(b"master_link_status:up" in r("INFO", "replication") for r in self.replicas))  # type: ignore
        self._wait(lambda: len({self._owners(server) for server in self.servers}) == 1)

    def owner(self, key: Word) -> RedisServer:
        """The master that holds the slot of a key."""
        slot = slot_of(_bytes(key))
        if slot not in self._known:
            self._known = self._by_slot()
        return self._at(self._known[slot])

    def other(self, *servers: RedisServer) -> RedisServer:
        """A master that is none of these."""
        return next(server for server in self.masters if server not in servers)

    def many(self, commands: Sequence[tuple[Word, ...]]) -> list[Reply]:
        """Send each command to the master of its key; return the answers."""
        shares: dict[int, dict[int, tuple[Word, ...]]] = {}
        for n, words in enumerate(commands):
            shares.setdefault(self.owner(key_word(words)).port, {})[n] = words
        answers: dict[int, Reply] = {}
        for port, some in shares.items():
            answers |= zip(some, self._at(port).many(list(some.values())), strict=True)
        return [answers[n] for n in range(len(commands))]

    def __call__(self, *words: Word) -> Reply:
        return self.owner(key_word(words))(*words)

    def keys(self) -> set[bytes]:
        return {key for server in self.masters for key in server("KEYS", "*")}  # type: ignore[union-attr]

    def clear(self) -> None:
        for server in self.masters:
            server("FLUSHALL")

    def digest(self) -> bytes:
        """What DEBUG DIGEST would say if all keys were in database 0 of one server."""
        digest = bytearray(_DB0)
        for server in self.masters:
            said = bytes.fromhex(server.digest().decode())  # type: ignore[union-attr]
            if any(said):
                digest = bytearray(a ^ b ^ c for a, b, c in zip(digest, said, _DB0, strict=True))
        return digest.hex().encode() if self.keys() else bytes(20).hex().encode()

    def groups(self) -> dict[tuple[int, bytes], object]:
        found: dict[tuple[int, bytes], object] = {}
        for server in self.masters:
            found |= server.groups(databases=1)
        return found

    def fill_gallery(self) -> None:
        """Put keys of every type, narrow and wide, odd ones too."""
        self.many(strings() + containers() + streams())

    # -- moving slots

    def open(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Begin to move a slot."""
        target("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
        source("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))

    def migrate(self, source: RedisServer, target: RedisServer, *keys: Word) -> None:
        """Move some keys of a slot that is open."""
        for key in keys:
            assert source("MIGRATE", "127.0.0.1", target.port, key, 0, 10_000) == b"OK"

    def close(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """End the move of a slot, whose keys are all moved."""
        self._known = {}
        target("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))
        # or a master of the same epoch may be believed in its place, and the slot end with none
        target("CLUSTER", "BUMPEPOCH")
        source("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))

    def move(self, slot: int, target: RedisServer) -> None:
        """Move a slot with all that is in it."""
        source = self._at(self._by_slot()[slot])
        self.open(slot, source, target)
        keys = source("CLUSTER", "GETKEYSINSLOT", slot, 10_000)
        assert isinstance(keys, list)
        self.migrate(source, target, *keys)  # type: ignore[arg-type]
        self.close(slot, source, target)

    def take_over(self, replica: RedisServer) -> None:
        """Wait until a replica has become a master, and all nodes have noticed."""
        self._known = {}
        self._wait(lambda: b"role:master" in replica("INFO", "replication"))  # type: ignore[operator]
        alive = [server for server in self.servers if server.running]
        self._wait(lambda: all(b"cluster_state:ok" in server("CLUSTER", "INFO") for server in alive))  # type: ignore[operator]

    def _at(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    def _by_slot(self) -> dict[int, int]:
        """The port of the master of each slot, as the masters themselves say."""
        found: dict[int, int] = {}
        for server in self.servers:
            if not server.running:
                continue
            for line in self._lines(server):
                if "myself" in line[2] and "master" in line[2]:
                    for word in line[8:]:
                        first, _, last = word.partition("-")
                        if not word.startswith("["):
                            found |= dict.fromkeys(range(int(first), int(last or first) + 1), server.port)
        return found

    def _lines(self, server: RedisServer) -> list[list[str]]:
        reply = server("CLUSTER", "NODES")
        assert isinstance(reply, bytes)
        return [line.split() for line in reply.decode().splitlines()]

    def _owners(self, server: RedisServer) -> tuple[tuple[str, ...], ...]:
        return tuple(sorted((line[0], *line[8:]) for line in self._lines(server)))

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                raise RuntimeError("the Redis Cluster does not get ready")
            time.sleep(_POLL_SECONDS)


def id_of(server: RedisServer) -> str:
    reply = server("CLUSTER", "MYID")
    assert isinstance(reply, bytes)
    return reply.decode()


def key_word(words: Sequence[Word]) -> Word:
    """Find the key among the words of a command."""
    if "STREAMS" in words:
        return words[words.index("STREAMS") + 1]
    return words[2] if words[0] in ("XGROUP", "XINFO") else words[1]


def _bytes(word: Word) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


def in_slot(slot: int, count: int, name: str = "k") -> list[str]:
    """Names of so many keys in a slot, without a tag."""
    found: list[str] = []
    n = 0
    while len(found) < count:
        if slot_of(f"{name}{n}".encode()) == slot:
            found.append(f"{name}{n}")
        n += 1
    return found
