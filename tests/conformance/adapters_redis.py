"""Redis under the conformance suite."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from blocks.sources.redis import RedisSource
from blocks.sources.redis.place import parse_place
from tests.blocks.sources.redis_kit import FAR_MS, RedisServer, without_times
from tests.conformance.suite import Picture, SourceAdapter

_READS = {
    b"string": lambda key: ("GET", key),
    b"hash": lambda key: ("HGETALL", key),
    b"list": lambda key: ("LRANGE", key, 0, -1),
    b"set": lambda key: ("SMEMBERS", key),
    b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
    b"stream": lambda key: ("XINFO", "STREAM", key, "FULL", "COUNT", 0),
}


class RedisAdapter(SourceAdapter):
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
        self._server, self._numbers = shared
        self._db = next(self._numbers)

    @property
    def source(self) -> RedisSource:
        return RedisSource(url=f"{self._server.url}/{self._db}", part_size_bytes=1500)

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        wide = [word for n in range(1200) for word in (f"f{n}", n)]
        odd = [("HSET", "wide", *wide), ("SET", b"\xff\x00", b"\xfe"), ("SADD", "members", "a", b"\xff")]
        odd += [("ZADD", "scores", "inf", "a", 0.1, "b"), ("SET", "goes", "x", "PXAT", FAR_MS)]
        odd += [("XADD", "events", "1-1", "a", "b"), ("XGROUP", "CREATE", "events", "g", "0")]
        odd += [("XREADGROUP", "GROUP", "g", "c", "STREAMS", "events", ">")]
        self._server.many(odd, db=self._db)

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        changes = [
            ("HSET", "wide", f"f{rng.randrange(1500)}", rng.random()),
            ("HDEL", "wide", f"f{rng.randrange(1200)}"),
        ]
        changes += [("XADD", "events", "*", "n", rng.random()), ("ZADD", "scores", rng.random(), "b")]
        changes += [("PEXPIREAT", "goes", FAR_MS + rng.randrange(9)), ("RPUSH", "items", rng.random())]
        self._server.many(changes, db=self._db)

    def clear(self) -> None:
        self._server("FLUSHDB", db=self._db)

    def put(self, key: str, n: int) -> None:
        kinds = [("SET", key, n), ("RPUSH", key, n, "x"), ("HSET", key, "n", n), ("SADD", key, n, "é")]
        self._server.many([("DEL", key), kinds[n % 4]], db=self._db)

    def remove(self, key: str) -> None:
        self._server("DEL", key, db=self._db)

    def picture(self, place: str | None = None) -> Picture:
        db = self._db if place is None else parse_place(place).database
        assert db is not None
        found: Picture = {}
        for key in self._keys(db):
            kind = self._server("TYPE", key, db=db)
            assert isinstance(kind, bytes)
            reply = self._server(*_READS[kind](key), db=db)
            if kind in (b"hash", b"set"):  # these have no order
                step = 2 if kind == b"hash" else 1
                reply = sorted(repr(reply[n : n + step]) for n in range(0, len(reply), step))  # type: ignore
            expiry = self._server("PEXPIRETIME", key, db=db)
            found["keys", key.decode("utf-8", "backslashreplace")] = (kind, expiry, without_times(reply))
        return found

    def _keys(self, db: int) -> list[bytes]:
        return self._server("KEYS", "*", db=db)  # type: ignore[return-value]

    def place(self) -> str:
        return f"{self._server.url}/{next(self._numbers)}"

    def unwritable(self) -> str:
        return str(self.folder / "missing" / "folder" / "x.rdb")
