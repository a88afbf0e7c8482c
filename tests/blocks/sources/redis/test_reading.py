"""Reading while the application writes, and how keys are laid out."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Answers, Connection, packed, unpacked
from blocks.sources.redis.read.keys import END, KeySpool, slot_of
from blocks.sources.redis.read.read_keys import KeyReader
from blocks.sources.redis.read.streams import Group, Pending, StreamHead
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import ELEMENTS, RowBuilder, list_elements
from blocks.sources.redis.write.commands import CommandWriter
from tests.blocks.sources.redis.kit import FAR_MS, ODD, RedisServer, fill_gallery, free_port, read_all


@pytest.fixture(scope="module")
def live(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("live"), "--cluster-enabled", "no", program=redis_program)
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _empty(live: RedisServer) -> None:
    live("FLUSHALL")


def test_slots_are_those_of_redis_cluster(tmp_path: Path) -> None:
    node = RedisServer(tmp_path / "node", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    keys = [
        b"",
        b"a",
        b"123456789",
        b"{tag}a",
        b"x{tag}",
        b"{}a",
        b"{a",
        b"a}{b}",
        b"{{a}}",
        b"a{b}{c}",
        ODD,
        b"\x00" * 99,
    ]
    assert [slot_of(key) for key in keys] == [node("CLUSTER", "KEYSLOT", key) for key in keys]
    assert slot_of(b"123456789") == 0x31C3
    node.kill()


@given(st.lists(st.binary(max_size=12), max_size=300), st.integers(1, 4000), st.lists(st.integers(0, END), max_size=5))
def test_every_key_is_in_one_range_once(
    tmp_path_factory: pytest.TempPathFactory, keys: list[bytes], run_bytes: int, cuts: list[int]
) -> None:
    spool = KeySpool(tmp_path_factory.mktemp("spool"), run_bytes)
    for start in range(0, len(keys), 7):
        spool.add(keys[start : start + 7])
    spool.end()
    edges = [0, *sorted(cuts), END]
    found = [key for pair in itertools.pairwise(edges) for key in spool.between(*pair).to_pylist()]
    assert sorted(found) == sorted(set(keys))


def test_parts_of_keys_that_share_a_tag_stay_small(live: RedisServer) -> None:
    live.many([("SET", f"{{app}}:{n}", "x" * 100) for n in range(5_000)])
    backup = read_all(RedisSource(url=live.url, part_size_bytes=50_000))
    sizes = [table.num_rows for table in backup.rows["db0"]]
    assert sum(sizes) == 5_000
    assert max(sizes) < 1_000


def test_a_part_that_grew_by_far_ends_the_chain(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", "x" * 100) for n in range(500)])
    source = RedisSource(url=live.url, part_size_bytes=50_000, track_changes=False)
    with source.view() as view:
        [spec] = view.collections()
        bounds = view.partition(spec)
        assert not view.needs_repartition(spec, bounds)
    live.many([("SET", f"k{n}", "x" * 100) for n in range(5_000)])
    with source.view() as view:
        assert view.needs_repartition(spec, bounds)


def test_keys_that_go_or_change_their_type_meanwhile_never_stop_a_backup(live: RedisServer) -> None:
    live.many([("SET", f"stays{n}", n) for n in range(3_000)])
    live.many([("RPUSH", "busy", *range(15_000)), ("HSET", "hot", *[w for n in range(15_000) for w in (n, n)])])
    ended = threading.Event()

    def write() -> None:
        connection, n = live.connection(), 0
        while not ended.is_set():
            n += 1
            key = f"odd{n % 50}"
            change = [("SET", key, n), ("DEL", key), ("HSET", key, "a", n), ("DEL", key), ("ZADD", key, n, "m")]
            change += [("PEXPIRE", key, 1), ("RPUSH", "busy", n), ("HSET", "hot", n % 15_000, n), ("DEL", key)]
            connection.ask(b"".join(packed(*words) for words in change), len(change))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            backup = read_all(RedisSource(url=live.url))
            rows = backup.table().to_pylist()
            values = {row["key"]: row["value"] for row in rows if row["key"].startswith(b"stays")}
            assert values == {b"stays%d" % n: b"%d" % n for n in range(3_000)}
            items = [int(row["value"]) for row in rows if row["key"] == b"busy" and row["element"] is not None]
            assert items[:15_000] == list(range(15_000))
            assert (
                items[15_000:] == list(range(items[15_000], items[15_000] + len(items) - 15_000))
                or items[15_000:] == []
            )
            assert sum(row["key"] == b"hot" for row in rows) == 15_001
            assert all(row["value"] is not None for row in rows if row["type"] == "string")
    finally:
        ended.set()
        writer.join()


def test_a_key_that_is_gone_is_no_record(live: RedisServer) -> None:
    live.many([("SET", "a", 1), ("HSET", "h", "a", "b"), ("XADD", "x", "1-0", "a", "b")])
    connections = live.connection(), live.connection()
    reader = KeyReader(connections)
    keys = pa.array([b"a", b"gone", b"h", b"x"], pa.large_binary())
    live("DEL", "h")
    assert set(reader.read(keys).column("key").to_pylist()) == {b"a", b"x"}
    assert KeyReader(connections).read(pa.array([], pa.large_binary())).num_rows == 0


class Parsed(Connection):
    """A connection whose answers are all taken one by one."""

    def end_raw(self, count: int) -> Answers | None:
        answers = super().end_raw(count)
        return None if answers is None else self.parsed(answers)


def test_what_is_read_at_once_is_what_is_read_one_by_one(live: RedisServer) -> None:
    fill_gallery(live)
    odd = [b"\r\n", b"a\r\n$1\r\nb", b"*1", b"-ERR", b":2", b"\xff" * 9, b"plain"]
    for n in range(300):
        words, at = [odd[n % 7] + b"%d" % (n % k) for k in (3, 5, 7)], ("PEXPIREAT", f"h:{n}", FAR_MS + n)
        live.many([("HSET", f"h:{n}", *words, n), ("RPUSH", f"l:{n}", *words), ("SADD", f"s:{n}", *words), at])
        live.many([("ZADD", f"z:{n}", n / 7, words[0], n * 10**9, words[1]), ("SET", f"h:{n}:name", words[2])])
        live.many([("HSET", f"plain:{n}", "b", n, "a", -n), ("SADD", f"l:{n}:set", n, "a"), ("SET", f"t:{n}", n)])
    keys = sorted(cast("list[bytes]", live("KEYS", "*")))
    for asked in (keys, keys[::-1], [*keys, b"h:gone", b"l:gone", b"plain:gone"]):
        tables = []
        for kind in (Connection, Parsed):
            one, other = (kind(socket.create_connection(("127.0.0.1", live.port), 20), "test") for _ in range(2))
            guesses = Guesses()
            for key, guess in ((b"h:", "hash"), (b"l:", "list"), (b"s:", "set"), (b"z:", "zset"), (b"plain:", "hash")):
                guesses.learn(key, guess)
            rows = KeyReader((one, other), guesses=guesses).read(pa.array(asked, pa.large_binary()))
            tables.append(rows.sort_by([("key", "ascending"), ("element", "ascending")]))
        assert tables[0].equals(tables[1])
        assert set(tables[0].column("key").to_pylist()) == set(keys)


def test_rows_of_sorted_keys_are_sorted(live: RedisServer) -> None:
    kinds = [
        ("SET", "a:{}", 1),
        ("HSET", "b:{}", "f", 1),
        ("RPUSH", "c:{}", 1),
        ("SET", "d:{}", 1),
        ("ZADD", "e:{}", 1, 1),
    ]
    live.many([(verb, key.format(n), *rest) for n in range(5_000) for verb, key, *rest in kinds])
    keys = [row["key"] for table in read_all(RedisSource(url=live.url)).rows["db0"] for row in table.to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 25_000


def test_reading_changes_nothing_and_two_reads_are_equal(live: RedisServer) -> None:
    fill_gallery(live)
    before = live.digest()
    first, second = (read_all(RedisSource(url=live.url)).table().sort_by("key") for _ in range(2))
    assert first.num_rows == second.num_rows
    assert sorted(first.to_pylist(), key=str) == sorted(second.to_pylist(), key=str)
    assert live.digest() == before


def test_rows_do_not_depend_on_how_the_server_laid_a_key_out(live: RedisServer) -> None:
    live.many([("HSET", "h", "b", 1, "a", 2), ("SADD", "s", "b", "a"), ("ZADD", "z", 2, "a", "1e0", "b", "0.1", "c")])
    one = read_all(RedisSource(url=live.url)).table().to_pylist()
    live("FLUSHALL")
    live.many([("HSET", "h", "a", 2, "x", "y" * 1000, "b", 1), ("HDEL", "h", "x"), ("SADD", "s", "a", "z" * 100, "b")])
    live.many([("SREM", "s", "z" * 100), ("ZADD", "z", "1", "b", "1e-1", "c", "2.0", "a")])
    assert sorted(read_all(RedisSource(url=live.url)).table().to_pylist(), key=str) == sorted(one, key=str)


def test_functions_are_in_the_definition_or_named_where_the_user_may_not_list_them(live: RedisServer) -> None:
    code = "#!lua name=mine\nredis.register_function('f', function() return 1 end)"
    live("FUNCTION", "LOAD", code)
    live("SET", "a", 1)
    backup = read_all(RedisSource(url=live.url))
    assert backup.definition["functions"] == [{"name": "mine", "engine": "LUA", "code": code}]
    assert backup.warnings == []
    live("ACL", "SETUSER", "reader", "on", ">p", "~*", "+@all", "-function")
    backup = read_all(RedisSource(url=live.url, user="reader", password=SecretStr("p")))
    assert "functions" not in backup.definition
    assert "1 functions" in backup.warnings[0]
    live("ACL", "DELUSER", "reader")
    live("FUNCTION", "DELETE", "mine")


words = st.binary(max_size=8)
scores = st.floats(allow_nan=False).map(lambda score: b"%a" % score)


@given(
    st.one_of(
        st.tuples(
            st.just("hash"), st.dictionaries(words, words, min_size=1).map(lambda d: [w for p in d.items() for w in p])
        ),
        st.tuples(st.just("list"), st.lists(words, min_size=1)),
        st.tuples(st.just("set"), st.lists(words, min_size=1, unique=True)),
        st.tuples(
            st.just("zset"), st.dictionaries(words, scores, min_size=1).map(lambda d: [w for p in d.items() for w in p])
        ),
    )
)
def test_narrow_values_read_back(made: tuple[str, list[bytes]]) -> None:
    kind, flat = made
    elements, rows = ELEMENTS[kind](flat), RowBuilder()
    assert rows.narrow(b"k", kind, flat, None)
    [row] = rows.table().to_pylist()
    items = unpacked(row["value"])
    pairs = [(item, b"") for item in items] if kind == "set" else list(zip(items[::2], items[1::2], strict=False))
    assert elements == (list_elements(items) if kind == "list" else pairs)
    assert list(CommandWriter(0, False).frames(rows.table()))


names = st.lists(words, max_size=3, unique=True).map(tuple)
groups = st.builds(
    Group, words, words, words, names, st.lists(st.builds(Pending, words, words, words, words)).map(tuple)
)


@given(st.builds(StreamHead, words, words, words, st.lists(groups, max_size=3).map(tuple)))
def test_heads_of_streams_read_back(head: StreamHead) -> None:
    assert StreamHead.decode(head.encode()) == head
