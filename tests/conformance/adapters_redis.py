"""Redis under the conformance suite."""

from __future__ import annotations

import os
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Reply, Word
from blocks.sources.redis.place import parse_place
from tests.blocks.sources.redis.cluster_kit import RedisCluster
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, without_times
from tests.conformance.suite import Cause, Fault, Picture, SourceAdapter, Unbuildable

PART_BYTES = 8_000
"""Makes several parts of what `fill` puts in."""

_READS = {
    b"string": lambda key: ("GET", key),
    b"hash": lambda key: ("HGETALL", key),
    b"list": lambda key: ("LRANGE", key, 0, -1),
    b"set": lambda key: ("SMEMBERS", key),
    b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
    b"stream": lambda key: ("XINFO", "STREAM", key, "FULL", "COUNT", 0),
}
_PASSWORD = "CONFORMANCE_REDIS_PASSWORD"


class _Keys(SourceAdapter):
    """Keys of every type, wherever they are."""

    @abstractmethod
    def do(self, *words: Word) -> Reply:
        """Do one command on the live state."""

    @abstractmethod
    def many(self, commands: list[tuple[Word, ...]]) -> None:
        """Do many commands on the live state."""

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        wide = [word for n in range(1200) for word in (f"f{n}", n)]
        odd = [("HSET", "wide", *wide), ("SET", b"\xff\x00", b"\xfe"), ("SADD", "members", "a", b"\xff")]
        odd += [("ZADD", "scores", "inf", "a", 0.1, "b"), ("SET", "goes", "x", "PXAT", FAR_MS)]
        odd += [("XADD", "events", "1-1", "a", "b"), ("XGROUP", "CREATE", "events", "g", "0")]
        odd += [("XREADGROUP", "GROUP", "g", "c", "STREAMS", "events", ">")]
        self.many(odd)

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        changes = [
            ("HSET", "wide", f"f{rng.randrange(1500)}", rng.random()),
            ("HDEL", "wide", f"f{rng.randrange(1200)}"),
        ]
        changes += [("XADD", "events", "*", "n", rng.random()), ("ZADD", "scores", rng.random(), "b")]
        changes += [("PEXPIREAT", "goes", FAR_MS + rng.randrange(9)), ("RPUSH", "items", rng.random())]
        self.many(changes)

    def put(self, key: str, n: int) -> None:
        kinds = [("SET", key, n), ("RPUSH", key, n, "x"), ("HSET", key, "n", n), ("SADD", key, n, "é")]
        self.many([("DEL", key), kinds[n % 4]])

    def remove(self, key: str) -> None:
        self.do("DEL", key)

    def narrowed(self) -> tuple[RedisSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"patterns": ["[ka]:*"]}), lambda key: key[1][:2] not in ("k:", "a:")

    @property
    @abstractmethod
    def servers(self) -> list[RedisServer]:
        """All servers that hold keys."""

    @abstractmethod
    def _reached(self, user: str = "", port: int | None = None) -> RedisSource:
        """The source as another user, or at a port where nobody listens."""

    def _configure(self, *words: Word) -> None:
        for server in self.servers:
            server(*words)

    def put_unbuildable(self) -> Unbuildable:
        self.do("SET", "unbuildable", "x" * 1_100_000)

        def spoil() -> None:
            self.do("SET", "unbuildable", "live")
            self._configure("CONFIG", "SET", "proto-max-bulk-len", 1_048_576)

        return Unbuildable("key db0/unbuildable", spoil, ("keys", "unbuildable"), rows=1, blamed="unbuildable")

    def faults(self) -> Iterator[Fault]:
        yield Fault(Cause.DOWN, "127.0.0.1:1", self._reached(port=1))
        self._configure("ACL", "SETUSER", "reader", "on", ">right", "~*", "&*", "+@all")
        os.environ[_PASSWORD] = "wrong"
        yield Fault(Cause.PASSWORD, "127.0.0.1", self._reached("reader"))
        os.environ[_PASSWORD] = "right"
        self._configure("ACL", "SETUSER", "reader", "-scan", "-get")
        yield Fault(Cause.RIGHTS, "scan", self._reached("reader"))
        del os.environ[_PASSWORD]

    def close(self) -> None:
        self._configure("CONFIG", "SET", "proto-max-bulk-len", 512 << 20)
        self._configure("ACL", "DELUSER", "reader")

    def unwritable(self) -> str:
        return str(self.folder / "missing" / "folder" / "x.rdb")


def picture_of(keys: Iterable[bytes], many: Callable[[list[tuple[Word, ...]]], list[Reply]]) -> Picture:
    """Look at keys with single commands."""
    found: Picture = {}
    names = list(keys)
    kinds = many([("TYPE", key) for key in names])
    replies = many([_READS[kind](key) for key, kind in zip(names, kinds, strict=True)])  # type: ignore
    expiries = many([("PEXPIRETIME", key) for key in names])
    for key, kind, reply, expiry in zip(names, kinds, replies, expiries, strict=True):
        if kind in (b"hash", b"set"):  # these have no order
            step = 2 if kind == b"hash" else 1
            reply = sorted(repr(reply[n : n + step]) for n in range(0, len(reply), step))  # type: ignore
        found["keys", key.decode("utf-8", "backslashreplace")] = (kind, expiry, without_times(reply))
    return found


class RedisAdapter(_Keys):
    """A database of a server that all tests share; each test and each place has one of its own."""

    name = "redis"

    @classmethod
    @contextmanager
    def share(cls, folder: Path) -> Iterator[tuple[RedisServer, Any]]:
        server = RedisServer(folder, "--databases", "5000")
        yield server, count(1)
        server.kill()

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._server: RedisServer
        self._server, self._numbers = shared
        self._server("FLUSHALL")  # what other tests left would be looked through again and again
        self._db = next(self._numbers)

    @property
    def source(self) -> RedisSource:
        return RedisSource(url=f"{self._server.url}/{self._db}", part_size_bytes=PART_BYTES)

    @property
    def servers(self) -> list[RedisServer]:
        return [self._server]

    def _reached(self, user: str = "", port: int | None = None) -> RedisSource:
        host = f"{user}@127.0.0.1" if user else "127.0.0.1"
        url = f"redis://{host}:{port or self._server.port}/{self._db}"
        return self.source.model_copy(update={"url": url, "password_env": _PASSWORD if user else None})

    def put_unbuildable(self) -> Unbuildable:
        return replace(super().put_unbuildable(), name=f"key db{self._db}/unbuildable")

    def do(self, *words: Word) -> Reply:
        return self._server(*words, db=self._db)

    def many(self, commands: list[tuple[Word, ...]]) -> None:
        self._server.many(commands, db=self._db)

    def clear(self) -> None:
        self.do("FLUSHDB")

    def picture(self, place: str | None = None) -> Picture:
        db = self._db if place is None else parse_place(place).database
        assert db is not None
        return picture_of(self._server("KEYS", "*", db=db), partial(self._server.many, db=db))  # type: ignore[arg-type]

    def spellings(self) -> list[str]:
        port, db = self._server.port, self._db
        return [f"redis://localhost:{port}/{db}", f"unix://{self._server.socket}?db={db}"]

    def place(self) -> str:
        return f"{self._server.url}/{next(self._numbers)}"


class RedisMomentAdapter(RedisAdapter):
    """The same, of which each backup is one moment."""

    name = "redis-consistent"
    restores_as = "redis"  # what it reads is of one moment; what it writes is compared with what is there, as ever

    @property
    def source(self) -> RedisSource:
        return super().source.model_copy(update={"consistent": True, "part_size_bytes": 1_500})


class RedisClusterAdapter(_Keys):
    """A cluster that all tests share, emptied for each; places are files, since a cluster has but one database."""

    name = "redis-cluster"

    @classmethod
    @contextmanager
    def share(cls, folder: Path) -> Iterator[RedisCluster]:
        cluster = RedisCluster(folder)
        yield cluster
        cluster.kill()

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._cluster: RedisCluster = shared
        self._numbers = count(1)
        self.clear()

    @property
    def source(self) -> RedisSource:
        return RedisSource(url=self._cluster.url, part_size_bytes=PART_BYTES)

    @property
    def servers(self) -> list[RedisServer]:
        return self._cluster.servers

    def _reached(self, user: str = "", port: int | None = None) -> RedisSource:
        nodes = [f"127.0.0.1:{port}"] if port else [f"127.0.0.1:{server.port}" for server in self.servers]
        url = f"redis+cluster://{f'{user}@' if user else ''}{','.join(nodes)}"
        return self.source.model_copy(update={"url": url, "password_env": _PASSWORD if user else None})

    def do(self, *words: Word) -> Reply:
        return self._cluster(*words)

    def many(self, commands: list[tuple[Word, ...]]) -> None:
        self._cluster.many(commands)

    def clear(self) -> None:
        self._cluster.clear()

    def picture(self, place: str | None = None) -> Picture:
        if place is None:
            return picture_of(self._cluster.keys(), self._cluster.many)
        if not Path(place).exists():
            return {}
        server = RedisServer(Path(place).parent, "--dbfilename", Path(place).name)
        try:
            return picture_of(server("KEYS", "*"), server.many)  # type: ignore[arg-type]
        finally:
            server.kill()

    def spellings(self) -> list[str]:
        return [self._cluster.url.replace("127.0.0.1", "localhost")]

    def place(self) -> str:
        folder = self.folder / f"place{next(self._numbers)}"
        folder.mkdir()
        return str(folder / "dump.rdb")
