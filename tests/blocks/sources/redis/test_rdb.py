"""What is read out of a dataset as it is sent, against what is read key by key from the same server."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.sources.redis.net.wire import Word
from tests.blocks.sources.redis.kit import FAR_MS, ODD, RedisServer, fill_gallery
from tests.blocks.sources.redis.rdb_kit import cut, parsed, rdb_of, read

Commands = list[tuple[Word, ...]]

# how servers lay containers out: as ever, as listpacks of any size, as tables and lists of many nodes
LAYOUTS = (
    {},
    {"hash-max-listpack-entries": 5_000, "zset-max-listpack-entries": 5_000, "hash-max-listpack-value": 100_000,
     "zset-max-listpack-value": 100_000, "set-max-intset-entries": 5_000, "list-max-listpack-size": -5},
    {"hash-max-listpack-entries": 0, "zset-max-listpack-entries": 0, "set-max-intset-entries": 0,
     "list-max-listpack-size": 2, "rdbcompression": "no", "maxmemory-policy": "allkeys-lru"},
    {"list-max-listpack-size": 2, "list-compress-depth": 1, "maxmemory-policy": "allkeys-lfu"},
)  # fmt: skip
_USUAL = {
    "hash-max-listpack-entries": 128, "zset-max-listpack-entries": 128, "hash-max-listpack-value": 64,
    "zset-max-listpack-value": 64, "set-max-intset-entries": 512, "list-max-listpack-size": -2,
    "list-compress-depth": 0, "rdbcompression": "yes", "maxmemory-policy": "noeviction",
}  # fmt: skip
# where integers need another form in a listpack, an intset or a string
NUMBERS = [sign * (1 << bits) + more for bits in (0, 6, 7, 12, 13, 15, 16, 23, 24, 31, 32, 62) for sign in (1, -1)
           for more in (-1, 0, 1)] + [2**63 - 1, -(2**63), 2**63, -(2**63) - 1]  # fmt: skip
SIZES = [0, 1, 11, 12, 20, 21, 63, 64, 65, 126, 127, 128, 129, 4_094, 4_095, 4_096, 16_375, *range(16_379, 16_387)]
SCORES = ["inf", "-inf", "0", "-0.0", "0.1", "1e-320", "1.7976931348623157e308", "3", "1e16", "-12345678901.5", "1e21"]


@pytest.fixture(scope="module")
def live(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("live"), program=redis_program)
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _empty(live: RedisServer) -> None:
    live("FLUSHALL")
    lay_out(live, {})


def lay_out(live: RedisServer, layout: dict[str, object]) -> None:
    live("CONFIG", "SET", *[str(word) for pair in (_USUAL | layout).items() for word in pair])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_types_are_read_as_key_by_key(live: RedisServer, layout: dict[str, object]) -> None:
    lay_out(live, layout)
    fill_gallery(live)
    assert parsed(rdb_of(live)) == read(live)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_around_every_limit_are_read_as_key_by_key(live: RedisServer, layout: dict[str, object]) -> None:
    lay_out(live, layout)
    live.many([("SET", f"number:{n}", n) for n in NUMBERS] + [("SET", n, n) for n in NUMBERS])
    rng = random.Random(1)
    for size in SIZES:
        for form, text in (("plain", rng.randbytes(size)), ("packed", b"ab" * (size // 2) + b"c" * (size % 2))):
            live.many([("SET", f"{form}:{size}", text), ("SET", text + b":key", "x"), ("RPUSH", f"l:{form}", text)])
            live.many([("RPUSH", f"l:{form}:{size}", text, size, text), ("SADD", f"s:{form}:{size}", text, "a")])
            live.many([("HSET", f"h:{form}:{size}", text, size, "b" + "x" * size, text)])
            live.many([("ZADD", f"z:{form}:{size}", size / 3, text, size, "other")])
    live.many([("RPUSH", "l:numbers", *NUMBERS), ("SADD", "s:numbers", *NUMBERS), ("HSET", "h:numbers", *NUMBERS)])
    live.many([("ZADD", "z:numbers", *[word for n in NUMBERS for word in (n, n)])])
    live.many([("ZADD", "z:scores", *[word for n, score in enumerate(SCORES) for word in (score, f"m{n}")])])
    live.many([("SADD", f"ints:{n}", *NUMBERS[: n * 6 + 1]) for n in range(1, 12)])
    assert parsed(rdb_of(live)) == read(live)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_containers_are_wide_from_the_same_size_on(live: RedisServer, layout: dict[str, object]) -> None:
    lay_out(live, layout)
    for count in (127, 128, 129, 512, 513, 999, 1_000, 1_001):
        live.many([("HSET", f"h:{count}", *range(2 * count)), ("RPUSH", f"l:{count}", *range(count))])
        live.many([("SADD", f"s:{count}", *range(count)), ("SADD", f"t:{count}", *map(hex, range(count)))])
        live.many([("ZADD", f"z:{count}", *range(2 * count))])
    for frame in range(8):  # what RESP needs besides the bytes of two items of two and so many bytes
        size = 64 * 1024 - 20 - frame
        live.many([("RPUSH", f"l:bytes:{size}", "ab", "x" * size), ("HSET", f"h:bytes:{size}", "ab", "x" * size)])
        live.many([("SADD", f"s:bytes:{size}", "ab", "x" * size), ("ZADD", f"z:bytes:{size}", 1, "x" * size)])
    rows = parsed(rdb_of(live))
    assert rows == read(live)
    wide = {key for key, element, *_ in rows["db0"] if element is not None}
    assert {b"l:1001", b"h:1001"} <= wide
    assert not {b"l:1000", b"h:1000"} & wide
    assert 0 < sum(b"l:bytes" in key for key in wide) < 8  # type: ignore[operator]


def test_keys_with_expiries_tags_and_line_ends_are_read_as_key_by_key(live: RedisServer) -> None:
    for n in range(300):
        words = [b"%b%d" % (odd, n % k) for odd, k in ((b"a\r\n$1\r\nb", 3), (ODD, 5), (b"*1", 7))]
        live.many([("HSET", f"{{t}}h:{n}", *words, n), ("RPUSH", f"l{{t}}:{n}", *words), ("SADD", f"s:{n}", *words)])
        live.many([("ZADD", f"z:{{}}:{n}", n / 7, words[0], n * 10**9, words[1]), ("SET", ODD + words[2], words[2])])
        live.many([("PEXPIREAT", f"{{t}}h:{n}", FAR_MS + n), ("PEXPIREAT", f"l{{t}}:{n}", FAR_MS - n)])
    live.many([("SET", "{in 3}", 1), ("SET", "", "")], db=3)
    rows = parsed(rdb_of(live))
    assert rows.keys() == {"db0", "db3"}
    assert rows == read(live)


def test_fields_that_expire_are_read_as_field_by_field(live: RedisServer, redis_program: str) -> None:
    if redis_program == "redis-server":
        pytest.skip("fields expire since 7.4")
    for count in (3, 127, 1_200):
        names = [f"f{n}" for n in range(count)]
        live("HSET", f"h:{count}", *[word for name in names for word in (name, name)])
        for step, name in enumerate(names[::2]):
            live("HPEXPIREAT", f"h:{count}", FAR_MS + step % 3, "FIELDS", 1, name)
    live.many([("HSET", "h:once", "a", 1, "b", 2), ("HPEXPIREAT", "h:once", FAR_MS, "FIELDS", 1, "a")])
    live.many([("HPERSIST", "h:once", "FIELDS", 1, "a"), ("HSET", "h:long", "a", "x" * 100, "b", 2)])
    live.many([("HPEXPIREAT", "h:long", FAR_MS, "FIELDS", 2, "a", "b"), ("PEXPIREAT", "h:long", FAR_MS)])
    raw = rdb_of(live)
    assert parsed(raw) == read(live)
    later = parsed(raw, moment_ms=FAR_MS + 3)["db0"]
    assert not any(key == b"h:long" for key, *_ in later)
    assert {key for key, *_ in later} == {b"h:3", b"h:127", b"h:1200", b"h:once"}
    assert all(expires is None for *_, expires in later)


def test_what_expired_before_the_moment_is_left_out(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", n, "PXAT", FAR_MS + n) for n in range(3)] + [("RPUSH", "stays", "x")])
    raw = rdb_of(live)
    for n in range(4):
        kept = {key for key, *_ in parsed(raw, moment_ms=FAR_MS + n)["db0"]}
        assert kept == {b"stays", *[b"k%d" % m for m in range(n, 3)]}


def test_only_what_is_wanted_is_read(live: RedisServer) -> None:
    live.many([("SET", f"a:{n}", n) for n in range(10)] + [("SET", "b", 1), ("HSET", "c", "a", 1)])
    live("SET", "a:far", 1, db=7)
    raw = rdb_of(live)
    assert parsed(raw, databases=[7]).keys() == {"db7"}
    found = parsed(raw, wanted=lambda keys: [key.startswith(b"a") for key in keys])
    assert {name: len(rows) for name, rows in found.items()} == {"db0": 10, "db7": 1}
    assert parsed(raw, databases=[3]) == {}


@pytest.mark.parametrize("batch_bytes", [1, 1_000, 50_000])
def test_where_the_bytes_are_cut_does_not_matter(live: RedisServer, batch_bytes: int) -> None:
    fill_gallery(live)
    live.many([("DEL", "big"), ("DEL", "h:wide")])
    raw = rdb_of(live)
    rng = random.Random(batch_bytes)
    sizes = iter(lambda: min(rng.choice([1, 2, 9, 100, 5_000]), 10 * batch_bytes), None)
    assert parsed(raw, cut(raw, sizes), batch_bytes=batch_bytes) == parsed(raw)


def test_a_value_that_is_larger_by_far_than_what_is_sent_is_read(live: RedisServer) -> None:
    live.many([("SETBIT", f"bits{n}", 8 * 20_000_000, 1) for n in range(3)])
    live.many([("APPEND", "text", f'{{"id": {n}, "name": "some name", "open": true}}') for n in range(20_000)])
    raw = rdb_of(live)
    assert len(raw) < 10_000_000
    assert parsed(raw) == read(live)


words = st.one_of(
    st.binary(max_size=12),
    st.integers(-(2**63), 2**63).map(lambda n: b"%d" % n),
    st.sampled_from([b"", b"\r\n", b"$1\r\na", b"-0", b"007", b"inf", b"abcdefg", b"abcdefgh", b"abcdefg\0"]),
    st.sampled_from(SIZES[:14]).map(lambda size: b"ab" * (size // 2)),
    st.binary(min_size=7, max_size=9).map(lambda text: b"common prefix" + text),
)
scores = st.floats(allow_nan=False).map(lambda score: b"%.17g" % score)
pairs = st.dictionaries(words, words, min_size=1, max_size=20).map(lambda found: [w for p in found.items() for w in p])
ranked = st.dictionaries(words, scores, min_size=1, max_size=20).map(lambda d: [w for p in d.items() for w in p[::-1]])
commands = st.one_of(
    st.tuples(st.just("SET"), words, words).map(list),
    st.tuples(words, pairs).map(lambda made: ["HSET", made[0], *made[1]]),
    st.tuples(words, ranked).map(lambda made: ["ZADD", made[0], *made[1]]),
    st.tuples(st.sampled_from(["RPUSH", "SADD"]), words, st.lists(words, min_size=1, max_size=20)).map(
        lambda made: [made[0], made[1], *made[2]]
    ),
    st.tuples(words, pairs).map(lambda made: ["XADD", made[0], "*", *made[1]]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(commands, st.integers(0, 1), st.booleans()), max_size=30), st.sampled_from(LAYOUTS))
def test_any_state_is_read_as_key_by_key(
    live: RedisServer, made: list[tuple[list[Word], int, bool]], layout: dict[str, object]
) -> None:
    live("FLUSHALL")
    lay_out(live, layout)
    for n, ((verb, key, *rest), database, expires) in enumerate(made):
        live("DEL", key, db=database)
        live(verb, key, *rest, db=database)
        if expires:
            live("PEXPIREAT", key, FAR_MS + n, db=database)
    raw = rdb_of(live)
    assert parsed(raw) == read(live)
    assert parsed(raw, cut(raw, itertools.repeat(17)), batch_bytes=100) == parsed(raw)
