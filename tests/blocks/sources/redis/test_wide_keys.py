"""Keys that are large by themselves: read and written in pieces, so that no object of Python lives for each element."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.errors import SourceUnavailable
from blocks.sources import runs
from blocks.sources.redis import RedisSource
from blocks.sources.redis import rows as redis_rows
from blocks.sources.redis.net import long_answers, wire
from blocks.sources.redis.net.long_answers import LongAnswer
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rdb import lzf
from blocks.sources.redis.rdb.read import RdbReader
from blocks.sources.redis.read import pieces, read_keys, spool
from blocks.sources.redis.read.keys import END
from blocks.sources.redis.read.read_keys import KeyReader
from blocks.sources.redis.read.spool import RowSpool
from blocks.sources.redis.rows import SCHEMA, interleaved
from blocks.sources.redis.views import view
from blocks.sources.redis.wide import BLOCK_ROWS, WideKey
from blocks.sources.redis.write import commands
from blocks.sources.redis.write.commands import CommandWriter
from blocks.sources.runs import Allowance
from tests.blocks.sources.redis.kit import RedisServer, prepare, read_all, write_all
from tests.blocks.sources.redis.newer import newer_redis
from tests.blocks.sources.redis.rdb_kit import cut, parsed, rdb_of, read

MB = 1_000_000
FILL = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do
  local name, text = string.format('field:%07d', i), string.sub(redis.sha1hex(i), 1, 28)
  redis.call('HSET', 'hash', name, text) redis.call('SADD', 'set', text) redis.call('RPUSH', 'list', text)
  redis.call('ZADD', 'zset', i * 0.37, name)
end"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("live"))
    yield server
    server.kill()


@pytest.fixture
def live(started: RedisServer) -> RedisServer:
    started("FLUSHALL")
    return started


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is kept apart for being large is so from some kilobytes on."""
    for module in (redis_rows, read_keys, spool, view):
        monkeypatch.setattr(module, "LARGE_BYTES", 20_000)
    monkeypatch.setattr(runs, "_FILE_BYTES", 20_000)
    monkeypatch.setattr(wire, "LONG_BYTES", 30_000)
    monkeypatch.setattr(long_answers, "_IN_PLACE_BYTES", 1_000)
    monkeypatch.setattr(commands, "_MANY_ELEMENTS", 1_500)
    monkeypatch.setattr(lzf, "_PIECE_BYTES", 1_000)


def fill(server: RedisServer, count: int) -> None:
    for start in range(0, count, 5_000):
        server("EVAL", FILL, 0, start, min(count, start + 5_000))


def peak_of(work: Callable[[], object]) -> int:
    """How many bytes Python's own objects, and those of numpy, take at most while something is done."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["hash", "set", "zset", "list"])
@pytest.mark.share(2)
def test_a_wide_key_is_read_and_written_without_an_object_for_each_element(live: RedisServer, kind: str) -> None:
    fill(live, 100_000)
    connections, found = (live.connection(), live.connection()), list[pa.Table]()
    names = pa.array([kind.encode()], pa.large_binary())
    assert peak_of(lambda: found.append(KeyReader(connections).read(names))) < 8 * MB
    assert found[0].num_rows == 100_001
    raw, tables = rdb_of(live), list[tuple[int, pa.Table]]()
    chunks = cut(raw, repeat(64 * 1024))
    reader = RdbReader(
        chunks, lambda made_at: 0, wanted=lambda keys: [key == kind.encode() for key in keys], batch_bytes=100_000
    )
    assert peak_of(lambda: tables.extend(reader.tables())) < 8 * MB
    assert pa.concat_tables([table for _, table in tables]).equals(found[0])
    writer = CommandWriter(0, False)
    assert peak_of(lambda: sum(len(payload) for payload, _, _ in writer.frames(found[0]))) < 8 * MB
    assert writer.keys == [kind.encode()]


def put_everything(server: RedisServer) -> None:
    fill(server, 4_000)
    server.many([("SET", f"k{n}", n) for n in range(300)])
    server.many(
        [("SET", "even", "abcdefgh" * 30_000, "PXAT", 4_102_444_800_123), ("SET", "odd", bytes(range(256)) * 400)]
    )
    server.many(
        [("SET", "long", b"".join(b"%07d" % (n * n) for n in range(20_000))), ("PEXPIREAT", "set", 4_102_444_800_123)]
    )
    server.many([("XADD", "stream", f"{n}-1", "field", "x" * 30) for n in range(1, 2_000)])
    server.many([("RPUSH", "few", *("y" * 9_000 for _ in range(8))), ("HSET", "few:h", "a", "z" * 90_000, "b", "c")])


@pytest.mark.usefixtures("small")
def test_large_keys_are_read_alike_in_every_way_and_come_back(live: RedisServer) -> None:
    put_everything(live)
    digest, everything = live.digest(), read(live)
    assert read(live, consistent=True) == everything
    raw = rdb_of(live)
    for size in (777, 5_000, 50_000, len(raw)):
        assert parsed(raw, cut(raw, repeat(size)), batch_bytes=4_096) == everything
    backup = read_all(source := RedisSource(url=live.url))
    live("FLUSHALL")
    write_all(backup, prepare(backup, source))
    assert live.digest() == digest
    write_all(backup, prepare(backup, source))  # over what is there
    assert live.digest() == digest


def in_key_order(table: pa.Table) -> bool:
    keys = list(zip(*(table.column(name).to_pylist() for name in ("key", "element")), strict=True))
    return keys == sorted(keys, key=lambda pair: (pair[0], pair[1] is not None, pair[1] or b""))


@pytest.mark.usefixtures("small")
def test_rows_of_parts_with_large_keys_are_in_order(live: RedisServer, tmp_path: Path) -> None:
    put_everything(live)
    raw = rdb_of(live)
    for memory_bytes in (0, 300_000, 10**9):
        found = RowSpool(tmp_path, Allowance(memory_bytes))
        for _, table in RdbReader(cut(raw, repeat(999)), lambda made_at: 0, batch_bytes=4_096).tables():
            found.add(table)
        found.end()
        assert in_key_order(found.between(0, END))
    assert all(map(in_key_order, read_all(RedisSource(url=live.url)).rows["db0"]))


@pytest.mark.usefixtures("small")
def test_large_keys_that_are_not_wanted_or_damaged_are_passed_over_or_noticed(live: RedisServer) -> None:
    put_everything(live)
    raw = rdb_of(live)
    few = parsed(raw, cut(raw, repeat(999)), batch_bytes=4_096, wanted=lambda keys: [key == b"k7" for key in keys])
    assert [row[0] for row in few["db0"]] == [b"k7"]
    assert parsed(raw, cut(raw, repeat(999)), batch_bytes=4_096, databases={1}) == {}
    late = parsed(raw, cut(raw, repeat(999)), moment_ms=4_102_444_800_124, batch_bytes=4_096)
    assert {row[0] for row in late["db0"]}.isdisjoint({b"even", b"set"})
    for key in (b"hash", b"zset", b"list", b"even", b"long"):
        # keys come in any order: what is 15,000 bytes after the last one may be all of it
        torn = raw[: min(raw.index(bytes([len(key)]) + key) + 15_000, len(raw) - 20)]
        with pytest.raises(SourceUnavailable, match="damaged"):
            parsed(torn, cut(torn, repeat(999)), batch_bytes=4_096)


def test_a_field_that_is_given_twice_counts_once_and_as_it_was_later() -> None:
    found = WideKey("hash")
    found.add([b"b", b"1", b"a", b"1"])
    found.add([b"c", b"1", b"b", b"2"])
    found.settle()
    assert found.is_narrow
    assert found.items() == [b"a", b"1", b"b", b"2", b"c", b"1"]


@pytest.mark.parametrize("count", [BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 5])
def test_blocks_of_a_list_are_numbered_through(count: int) -> None:
    found = WideKey("list")
    found.add([b"%d" % n for n in range(count)])
    found.settle()
    rows = found.rows(b"l", 7)
    assert rows.num_rows == count + 1
    assert rows.slice(count).to_pylist() == [
        {
            "key": b"l",
            "element": (count - 1).to_bytes(8, "big"),
            "type": "list",
            "value": b"%d" % (count - 1),
            "expires_ms": None,
        }
    ]
    assert rows.slice(0, 1).column("expires_ms").to_pylist() == [7]


def test_large_keys_stand_where_they_belong_among_others() -> None:
    def of(*keys: bytes) -> pa.Table:
        return SCHEMA.empty_table().from_pylist(
            [{"key": key, "type": "string", "value": b"v"} for key in keys], schema=SCHEMA
        )

    rows = interleaved(of(b"d", b"b", b"f"), [of(b"e"), of(b"a"), of(b"g"), of(b"c")])
    assert rows.column("key").to_pylist() == [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
    assert interleaved(SCHEMA.empty_table(), [of(b"a")]).num_rows == 1


@pytest.mark.parametrize("size", [1, 2, 3, 50, 10**6])
def test_a_long_answer_is_parsed_from_whatever_pieces_it_comes_in(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_answers, "_IN_PLACE_BYTES", 20)
    words = [b"", b"\r\n", b"x" * 19, b"y" * 20, b"$5\r\n" * 30]
    raw = b"*5\r\n:-7\r\n$-1\r\n-ERR no\r\n*-1\r\n" + packed(*words)
    left = [bytes(piece) for piece in cut(raw, repeat(size))]
    first = [left.pop(0)]

    def fill(room: memoryview) -> None:
        while len(room):
            piece = left.pop(0)
            some, rest = piece[: len(room)], piece[len(room) :]
            room[: len(some)] = some
            room = room[len(some) :]
            if rest:
                left.insert(0, rest)

    answer = LongAnswer(first, lambda: left.pop(0), fill).take()
    assert isinstance(answer, list)
    assert [answer[0], answer[1], str(answer[2]), *answer[3:]] == [-7, None, "ERR no", None, words]


@pytest.mark.usefixtures("small")
def test_a_large_key_is_read_once_also_for_the_estimate_of_parts(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", n) for n in range(300)])
    live("HSET", "wide", *(word for n in range(20_000) for word in (f"f{n}", "x" * 20)))
    live("CONFIG", "RESETSTAT")
    read_all(RedisSource(url=live.url))
    sent = live.info("stats", "total_net_output_bytes")
    assert sent < 1.5 * 20_000 * 40


def test_the_expiries_of_the_fields_of_a_wide_hash_are_read_with_its_pieces(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "_MOST", 300)
    newer = RedisServer(tmp_path_factory.mktemp("newer"), program=newer_redis())
    try:
        newer("HSET", "wide", *(word for n in range(3_000) for word in (f"f{n:04}", n)))
        for n in range(0, 3_000, 7):
            newer("HPEXPIREAT", "wide", 4_102_444_800_000 + n, "FIELDS", 1, f"f{n:04}")
        found = {row[1]: row[4] for row in read(newer)["db0"]}
        assert len(found) == 3_001
        assert {k: v for k, v in found.items() if v} == {
            b"f%04d" % n: 4_102_444_800_000 + n for n in range(0, 3_000, 7)
        }
    finally:
        newer.kill()
