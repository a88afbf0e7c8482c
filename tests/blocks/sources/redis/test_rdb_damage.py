"""Datasets that are not what a server sent: an error in our words, or the rows that they hold; never anything else."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from contextlib import suppress
from struct import pack

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import SourceUnavailable
from blocks.sources.redis.rdb.layout import PADDING, UnknownForm
from blocks.sources.redis.rdb.listpacks import intset_items, listpack_items
from blocks.sources.redis.rdb.lzf import decompressed, decompressed_one
from blocks.sources.redis.rdb.skip import read_length
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer, streams
from tests.blocks.sources.redis.rdb_kit import parsed, rdb_of

HEADER = b"REDIS0010\xfe\x00\xfb\x01\x00"
CHECKSUM = bytes(8)
SEED, DAMAGES = 7, 400


@pytest.fixture(scope="module")
def raw(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small dataset of every form."""
    live = RedisServer(tmp_path_factory.mktemp("live"), program=redis_program)
    live.many([words for words in streams() if words[1] != "x:wide"])
    live.many([("SET", "packed", "x" * 100 + "abc" * 30), ("SET", "n", 42), ("SET", "m", -70_000), ("SET", "e", "")])
    live.many([("HSET", "h", "f", "v", "n", "1"), ("RPUSH", "l", "a", 1, -5_000, "b" * 70, 70_000, 2**33)])
    live.many([("SADD", "ints", 1, 2, 70_000), ("SADD", "s", "a", "b", 1), ("PEXPIREAT", "h", FAR_MS)])
    live.many([("ZADD", "z", 1, "a", "2.5", "b", "inf", "c"), ("ZADD", "z:table", 1, "a" * 100, "inf", "c")])
    live.many([("HSET", "h:table", "f", "v" * 100), ("SADD", "s:table", "a" * 100, "b"), ("SET", "there", 1)])
    live.many([("RPUSH", "l:nodes", *["c" * 5_000 + str(n) for n in range(3)]), ("RPUSH", "l:plain", "z" * 20_000)])
    live("SET", "only", "x", db=3)
    if redis_program != "redis-server":
        live.many([("HSET", "h:fields", "a", 1, "b", 2), ("HPEXPIREAT", "h:fields", FAR_MS, "FIELDS", 1, "b")])
        live.many([("HSET", "h:long", "a", "x" * 70), ("HPEXPIREAT", "h:long", FAR_MS, "FIELDS", 1, "a")])
    made = rdb_of(live)
    live.kill()
    return made


def sound_or_said(raw: bytes, **how: int) -> bool:
    """Read what is damaged; returns whether there were rows."""
    try:
        parsed(raw, **how)
    except (SourceUnavailable, UnknownForm):
        return False
    return True


def test_a_dataset_that_ends_early_is_damaged(raw: bytes, redis_program: str) -> None:
    parsed(raw)
    ends = [*range(0, 400), *range(400, len(raw) - 400, 37), *range(len(raw) - 400, len(raw))]
    # every other one of each version's: all of them are noticed at the same three places
    for end in ends[redis_program == "redis-server" :: 2]:
        with pytest.raises(SourceUnavailable, match="damaged"):
            parsed(raw[:end])


def test_more_than_a_dataset_is_damaged(raw: bytes) -> None:
    with pytest.raises(SourceUnavailable, match="does not end where it says"):
        parsed(raw + b"x")


def test_bits_that_flip_are_said_or_change_a_value(raw: bytes) -> None:
    rng = random.Random(SEED)
    said = 0
    for n in range(DAMAGES):
        damaged = bytearray(raw)
        damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        # small batches and large ones in turn: what is noticed is noticed at the same place in both
        said += not sound_or_said(bytes(damaged), batch_bytes=(500, 1 << 20)[n % 2])
    assert said


def test_bytes_that_are_lengths_of_anything_are_said_or_change_a_value(raw: bytes) -> None:
    rng = random.Random(SEED)
    lengths = [b"\xff" * 9, b"\x80\xff\xff\xff\xff", b"\x81" + b"\xff" * 8, b"\x81\x7f" + b"\xff" * 7, b"\xf0\xff\xff"]
    for _ in range(DAMAGES):
        at, length = rng.randrange(9, len(raw)), rng.choice(lengths)
        sound_or_said(raw[:at] + length + raw[at + len(length) * rng.randrange(2) :])


def one_key(kind: int, value: bytes) -> bytes:
    return HEADER + bytes([kind]) + b"\x01k" + value + b"\xff" + CHECKSUM


LARGE = (b"\x80\xff\xff\xff\xff", b"\x81" + b"\xff" * 8)


@pytest.mark.parametrize("length", LARGE)
@pytest.mark.parametrize("kind", [0, 2, 4, 5, 11, 16, 17, 18, 19, 20, 21, 24, 25])
def test_lengths_beyond_the_end_are_damaged_at_once(kind: int, length: bytes) -> None:
    for before in (b"", bytes(8)):
        with pytest.raises(SourceUnavailable, match="damaged"):
            parsed(one_key(kind, before + length + b"abc"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (16, b"\x08" + pack("<IH", 8, 2) + b"\x01\x01"),  # no end
        (16, b"\x09" + pack("<IH", 9, 2) + b"\x01\x01\xff"),  # one entry, not two
        (16, b"\x09" + pack("<IH", 9, 1) + b"\x01\x01\xff"),  # a field without a value
        (16, b"\x0d" + pack("<IH", 13, 4) + b"\x01\x01\x02\x01\x01\x01\xff"),  # a size that is not its own
        (16, b"\x0f" + pack("<IH", 15, 4) + b"\x01\x01\x02\x01\x01\x01\x03\x01\xff"),  # a field twice
        (20, b"\x0b" + pack("<IH", 11, 2) + b"\x01\x01\x01\x01\xff"),  # a member twice
        (16, b"\x0a" + pack("<IH", 10, 1) + b"\x85ab\xff"),  # a text that goes beyond the end
        (16, b"\x0b" + pack("<IH", 11, 1) + b"\xf5abc\xff"),  # no form of an entry
        (11, b"\x0a" + pack("<II", 3, 1) + b"\x01\x02"),  # integers of three bytes
        (11, b"\x0a" + pack("<II", 2, 2) + b"\x01\x02"),  # one integer, not two
        (17, b"\x0c" + pack("<IH", 12, 2) + b"\x81a\x02\x81b"),  # no end
        (17, b"\x0d" + pack("<IH", 13, 2) + b"\x81a\x02\x81b\x02\xff"),  # a score that is no number
        (0, b"\xc3\x02\x05\x00a"),  # decompressed it is one byte
        (0, b"\xc3\x03\x05\x20\x05a"),  # a copy of what was before the text
        (0, b"\xc3\x02\x05\x05a"),  # a literal that goes beyond the end
        (0, b"\xc5"),  # no form of a string
        (18, b"\x01\x03\x01a"),  # no kind of a node
        (19, b"\x01\x01a\x01b" + bytes(9)),  # the id of a node is one byte
        (19, b"\x00\x01" + bytes(8)),  # an entry without a node
    ],
)
def test_values_that_no_server_writes_are_damaged(kind: int, value: bytes) -> None:
    with pytest.raises(SourceUnavailable, match="damaged"):
        parsed(one_key(kind, value))


@pytest.mark.parametrize("kind", [1, 3, 6, 7, 9, 10, 12, 13, 14, 15, 22, 23, 26, 100, 200])
def test_values_of_other_forms_are_left_to_a_server(kind: int) -> None:
    with pytest.raises(UnknownForm):
        parsed(one_key(kind, b"\x01a"))


@pytest.mark.parametrize("begin", [b"REDIS0009", b"REDIS0013", b"VALKEY080", b"something"])
def test_datasets_of_other_forms_are_left_to_a_server(begin: bytes) -> None:
    with pytest.raises(UnknownForm):
        parsed(begin + b"\xff" + CHECKSUM)


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_keys_than_was_said_is_damaged(count: int) -> None:
    raw = b"REDIS0010\xfe\x00\xfb%c\x00\x00\x01k\x01v" % count
    for rest in (b"\xff" + CHECKSUM, b"\xfe\x01\xfb\x00\x00\xff" + CHECKSUM):
        with pytest.raises(SourceUnavailable, match="another number of keys"):
            parsed(raw + rest)


def test_what_is_of_no_concern_is_passed_over() -> None:
    module = b"\xf7\x81" + bytes(8) + b"\x02\x01\x05\x03abc\x01\x05\x03\x00\x00\x80\x3f\x04" + bytes(8) + b"\x00"
    others = b"\xfa\x03new\x04aux!\xf5\x40\x50" + b"f" * 80 + b"\xf4\x40\x64\x01\x00" + module
    key = b"\xfd\x01\x00\x00\x7f\xf9\x05\xf8\x40\x64\x00\x01k\x01v"
    raw = HEADER + others + key + others + b"\xff" + CHECKSUM
    assert parsed(raw) == {"db0": [(b"k", None, "string", b"v", 0x7F000001 * 1000)]}


def padded(*values: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    sizes = np.array([len(value) for value in values], np.int64)
    ends = np.cumsum(sizes)
    return np.frombuffer(b"".join(values) + PADDING, np.uint8), ends - sizes, ends


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_any_bytes_are_items_or_damaged(values: list[bytes]) -> None:
    readers: list[Callable[..., object]] = [listpack_items, intset_items]
    for value in values:
        framed = pack("<IH", len(value) + 7, 0xFFFF) + value + b"\xff"
        for reader in readers:
            try:
                reader(*padded(framed, value))
                reader(*padded(framed))
            except SourceUnavailable:
                continue


# literals and copies that LZF may hold: what is copied, from how far back
tokens = st.lists(
    st.one_of(st.binary(min_size=1, max_size=32), st.tuples(st.integers(3, 264), st.integers(1, 8192))), max_size=30
)


def packed_and_plain(made: list[bytes | tuple[int, int]]) -> tuple[bytes, bytes]:
    plain, packed = bytearray(b"a"), bytearray(b"\x00a")
    for token in made:
        if isinstance(token, bytes):
            plain += token
            packed += bytes([len(token) - 1]) + token
            continue
        length, distance = token[0], min(token[1], len(plain))
        for _ in range(length):
            plain.append(plain[-distance])
        high, low = (distance - 1) >> 8, (distance - 1) & 0xFF
        packed += bytes([(length - 2) << 5 | high, low] if length < 9 else [0xE0 | high, length - 9, low])
    return bytes(packed), bytes(plain)


@given(st.lists(tokens, min_size=1, max_size=30))
def test_what_is_compressed_is_decompressed(made: list[list[bytes | tuple[int, int]]]) -> None:
    packed, plain = zip(*map(packed_and_plain, made), strict=True)
    data, begins, ends = padded(*packed)
    texts = np.array([len(text) for text in plain])
    assert decompressed(data, begins, ends - begins, texts).to_pylist() == list(plain)
    assert [decompressed_one(*each) for each in zip(packed, texts.tolist(), strict=True)] == list(plain)
    with pytest.raises(SourceUnavailable, match="damaged"):
        decompressed_one(packed[0], len(plain[0]) + 1)
    with pytest.raises(SourceUnavailable, match="damaged"):
        decompressed(data, begins, ends - begins, texts + 1)


def test_nothing_is_decompressed_to_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    assert decompressed(np.zeros(0, np.uint8), nothing, nothing, nothing) == pa.array([], pa.large_binary())
    data, begins, ends = padded(b"", b"")
    assert decompressed(data, begins, ends - begins, np.zeros(2, np.int64)).to_pylist() == [b"", b""]


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.integers(0, 100)), min_size=1, max_size=20))
def test_any_bytes_are_decompressed_or_damaged(made: list[tuple[bytes, int]]) -> None:
    data, begins, ends = padded(*[value for value, _ in made])
    one_by_one: list[bytes] | None = None
    with suppress(SourceUnavailable):
        one_by_one = [decompressed_one(*each) for each in made]
    try:
        texts = decompressed(data, begins, ends - begins, np.array([size for _, size in made]))
    except SourceUnavailable:
        assert one_by_one is None
        return
    assert texts.to_pylist() == one_by_one


def test_a_long_text_is_decompressed(raw: bytes) -> None:
    rng = random.Random(SEED)
    made = [rng.choice([rng.randbytes(rng.randrange(1, 32)), (rng.randrange(3, 264), rng.randrange(1, 8000))])
            for _ in range(20_000)]  # fmt: skip
    packed, plain = packed_and_plain(made)
    data, begins, ends = padded(packed)
    [text] = decompressed(data, begins, ends - begins, np.array([len(plain)])).to_pylist()
    assert zlib.crc32(text) == zlib.crc32(plain)


@pytest.mark.parametrize("first", [0x82, 0xA0, 0xBF, 0xC0, 0xFF])
def test_a_length_of_no_form_is_damaged(first: int) -> None:
    with pytest.raises(SourceUnavailable, match="damaged"):
        read_length(bytes([first]) + bytes(9), 0)
