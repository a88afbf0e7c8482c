"""Whether there is room for a restore: an estimate that is neither far below nor far above what a server then takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Word
from tests.blocks.sources.redis.kit import RedisServer, prepare, read_all, write_all

COUNT = 20_000
Commands = list[tuple[Word, ...]]


def containers(kind: str, size: int, long: int) -> Commands:
    """Containers of so many elements each, of about so many bytes."""
    command = {"hash": "HSET", "set": "SADD", "zset": "ZADD"}[kind]
    made: Commands = []
    for start in range(0, COUNT, min(size, 1_000)):
        members = [f"{n}{'x' * long}" for n in range(start, start + min(size, 1_000))]
        words = members if kind == "set" else [word for n, member in enumerate(members) for word in (n, member)]
        if kind == "hash":
            words = [word for member in members for word in (f"f{member}", 1)]
        made.append((command, f"{kind}{start // size}", *words))
    return made


@pytest.fixture
def other(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other", program=redis_program)
    yield server
    server.kill()


@pytest.mark.parametrize("long", [4, 80])
@pytest.mark.parametrize("size", [200, COUNT])
@pytest.mark.parametrize("kind", ["zset", "hash", "set"])
def test_what_does_not_fit_is_refused_before_the_first_write_and_what_fits_is_not(
    live: RedisServer, other: RedisServer, kind: str, size: int, long: int
) -> None:
    live.many(containers(kind, size, long))
    source = RedisSource(url=live.url)
    backup, empty = read_all(source), other.info("memory", "used_memory")
    write_all(backup, prepare(backup, source, other.url))
    taken = other.info("memory", "used_memory") - empty
    other("FLUSHALL")
    other("SET", "stays", 1)
    used = other.info("memory", "used_memory")
    other("CONFIG", "SET", "maxmemory", used + int(taken * 0.9))
    before = other.digest()
    with pytest.raises(RestoreRefused, match="bytes free of maxmemory"):
        write_all(backup, prepare(backup, source, other.url))
    assert other.digest() == before
    other("CONFIG", "SET", "maxmemory", used + int(taken * 2) + 2_000_000)
    write_all(backup, prepare(backup, source, other.url))
    assert other.digest() == live.digest()
