"""Streams that an old Redis made, wherever their gaps are: the oracle is XINFO STREAM FULL."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.kit import RedisServer, prepare, read_all, write_all
from tests.blocks.sources.redis.old_streams import OldGroup, OldStream, random_stream, rdb_file

A, B, C, D = (1, 1), (2, 1), (3, 1), (4, 1)
PENDING = (1_600_000_000_000, 2)


@pytest.fixture
def other(redis_program: str, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other", program=redis_program)
    yield server
    server.kill()


def stream(living: str, pending: str) -> OldStream:
    """A stream of which those entries are there, in one node, and those are pending."""
    ids = dict(zip("abcd", (A, B, C, D), strict=True))
    node = [(ids[name], name.encode(), name not in living) for name in "abcd"]
    group = OldGroup(b"g", D, {b"alice": {ids[name]: PENDING for name in pending}})
    return OldStream([node] if living else [], D, [group])


def facts_of(server: RedisServer) -> tuple[object, object]:
    """All that a server says of its streams."""
    return server.groups(), server.digest()


def ids_of(server: RedisServer, key: bytes) -> list[bytes]:
    return [entry[0] for entry in server("XRANGE", key, "-", "+")]  # type: ignore[union-attr, index, misc]


@pytest.mark.parametrize("living", ["a", "d", "ad", "acd", "bc", "bd", "abcd", ""])
@pytest.mark.parametrize("pending", ["b", "bc", "ad", "abcd", ""])
def test_deleted_entries_that_are_pending_take_no_other_entry_with_them(
    live: RedisServer, other: RedisServer, living: str, pending: str
) -> None:
    live("RESTORE", "x", 0, stream(living, pending).dump())
    source, wanted = RedisSource(url=live.url), facts_of(live)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, other.url))
    assert ids_of(other, b"x") == ids_of(live, b"x")
    assert facts_of(other) == wanted
    live("XADD", "x", "9-9", "later", "x")
    write_all(backup, prepare(backup, source))
    assert facts_of(live) == wanted


@pytest.mark.parametrize("seed", range(6))
def test_any_stream_of_an_old_server_comes_back_as_it_was(live: RedisServer, other: RedisServer, seed: int) -> None:
    rng = random.Random(seed)
    live.many([("RESTORE", f"x{n}", 0, random_stream(rng).dump()) for n in range(60)])
    for n in range(0, 60, 3):  # some go on in the new server
        change(live, f"x{n}", rng)
    source, wanted = RedisSource(url=live.url, consistent=seed % 2 == 0), facts_of(live)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, other.url))
    assert facts_of(other) == wanted


def change(live: RedisServer, key: str, rng: random.Random) -> None:
    ids = ids_of(live, key.encode())
    if ids and rng.random() < 0.6:
        live("XDEL", key, rng.choice(ids))
    if rng.random() < 0.5:
        live("XTRIM", key, "MAXLEN", "=", rng.randrange(4))
    if rng.random() < 0.5 and b"18446744073709551" not in str(live("XINFO", "STREAM", key)).encode():
        live("XADD", key, f"{2**62}-{rng.randrange(9)}", "new", "x")
    for group in live("XINFO", "GROUPS", key):  # type: ignore[union-attr]
        live("XREADGROUP", "GROUP", group[1], "carol", "COUNT", 2, "STREAMS", key, ">")  # type: ignore[index]


def test_the_file_of_an_old_server_comes_back_as_it_was(redis_program: str, other: RedisServer, tmp_path: Path) -> None:
    rng = random.Random(1)
    (tmp_path / "old").mkdir()
    path = tmp_path / "old" / "dump.rdb"
    path.write_bytes(rdb_file({b"x%d" % n: random_stream(rng) for n in range(60)} | {b"x": stream("acd", "b")}))
    live = RedisServer(tmp_path / "old", program=redis_program)
    wanted = facts_of(live)
    assert len(live.groups()) == 61
    live.kill()
    source = RedisSource(url=str(path), server_program=redis_program)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, other.url))
    assert facts_of(other) == wanted
    write_all(backup, prepare(backup, source, str(tmp_path / "kept.rdb")))
    write_all(again := read_all(source.at(str(tmp_path / "kept.rdb"))), prepare(again, source, other.url))
    assert facts_of(other) == wanted
