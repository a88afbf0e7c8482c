"""Answers of many containers at once against the way that takes one element after the other."""

from __future__ import annotations

from binascii import crc_hqx

import hiredis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.sources.redis.net.packing import bulk
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.read.keys import SLOTS, position_of, positions_of, slot_of
from blocks.sources.redis.read.read_commands import SCANNED, read_commands, type_commands
from blocks.sources.redis.read.replies import lines_of_statistics, narrow
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import ELEMENTS, WIDE_ELEMENTS, RowBuilder, score_texts

GONE, FOREVER = -2, -1
ERROR = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
OURS = b"$32\r\n" + b"0" * 32 + b"\r\n"

# CRLF, and what RESP begins with, in the values; names around the eight bytes that are compared at once
texts = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"", b"\r\n", b"\r", b"a\r\nb", b"*1", b"$3\r\nabc", b"-ERR", b":1", b"abcdefg", b"abcdefg\0", b"a\0"]
    ),
    st.binary(min_size=7, max_size=9).map(lambda text: b"common prefix" + text),
)
scores = st.floats(allow_nan=False).map(lambda score: b"%.17g" % score)
expiries = st.sampled_from([FOREVER, 4_102_444_800_123, 10**14 + 4_102_444_800_123])


def answer(kind: str, at: int, items: list[bytes], cursor: bytes = b"0") -> bytes:
    elements = packed(*items) if items else b"*0\r\n"
    return (
        b":%d\r\n" % at + (b"*2\r\n" + b"$%d\r\n%b\r\n" % (len(cursor), cursor) if kind in SCANNED else b"") + elements
    )


def transaction(answers: list[bytes]) -> bytes:
    return b"*%d\r\n" % (2 * len(answers) + 1) + b"".join(answers) + OURS


def one_by_one(kind: str, containers: list[list[bytes]]) -> list[bytes]:
    rows = RowBuilder()
    assert all(rows.narrow(b"key", kind, items, None) for items in containers)
    return rows.table().column("value").to_pylist()


def contents(kind: str, words: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    if kind in ("list", "set"):
        return st.lists(words, min_size=1, max_size=12, unique=kind == "set")
    pairs = st.dictionaries(words, scores if kind == "zset" else words, min_size=1, max_size=12)
    return pairs.map(lambda found: [word for pair in found.items() for word in pair])


@given(st.data(), st.sampled_from(sorted(ELEMENTS)))
def test_what_is_taken_at_once_is_what_is_taken_one_by_one(data: st.DataObject, kind: str) -> None:
    containers = data.draw(st.lists(contents(kind, texts), min_size=1, max_size=20))
    at = data.draw(st.lists(expiries, min_size=len(containers), max_size=len(containers)))
    raw = transaction([answer(kind, *each) for each in zip(at, containers, strict=True)])
    taken = narrow(kind, raw, len(containers))
    if taken is None:
        assert any(b"\r\n" in item for items in containers for item in items)
        return
    assert taken.found.all()
    assert taken.values.to_pylist() == one_by_one(kind, containers)
    assert taken.expiries.tolist() == at


@given(st.data(), st.sampled_from(sorted(ELEMENTS)))
def test_ordinary_answers_are_all_taken_at_once(data: st.DataObject, kind: str) -> None:
    plain = st.binary(max_size=20).map(lambda text: text.replace(b"\r\n", b""))
    containers = data.draw(st.lists(contents(kind, plain), min_size=1, max_size=20))
    taken = narrow(kind, transaction([answer(kind, FOREVER, items) for items in containers]), len(containers))
    assert taken is not None
    assert taken.found.all()


@given(st.data(), st.sampled_from(sorted(ELEMENTS)))
def test_what_is_out_of_the_ordinary_is_left_and_the_rest_taken(data: st.DataObject, kind: str) -> None:
    width = 2 if kind in ("hash", "zset") else 1
    wide = [b"%d" % n for n in range(WIDE_ELEMENTS * width + width)]
    odd = {
        "gone": answer(kind, GONE, []),
        "error": b":%d\r\n" % FOREVER + ERROR,
        "wide": answer(kind, FOREVER, wide),
        "long": answer(kind, FOREVER, [b"1" * 40_000, b"2" * 40_000][:width] * (3 - width)),
    }
    if kind in SCANNED:
        odd["goes on"] = answer(kind, FOREVER, [b"1"] * width, cursor=b"10")
        odd["goes on from 0..."] = answer(kind, FOREVER, [b"1"] * width, cursor=b"07")
        odd["twice"] = answer(kind, FOREVER, [b"1"] * 2 * width)
    if kind == "zset":
        odd["long"] = answer(kind, FOREVER, [b"1" * 70_000, b"2"])
    if kind == "set":
        odd["long"] = answer(kind, FOREVER, [b"1" * 40_000, b"2" * 40_000])
    chosen = data.draw(st.lists(st.sampled_from(["plain", *odd]), min_size=1, max_size=12))
    plain = [b"b", b"2", b"a", b"1"]
    answers = [odd.get(what) or answer(kind, 7, plain) for what in chosen]
    taken = narrow(kind, transaction(answers), len(answers))
    assert taken is not None
    assert taken.found.tolist() == [what == "plain" for what in chosen]
    assert taken.values.to_pylist() == one_by_one(kind, [plain]) * chosen.count("plain")
    assert taken.expiries.tolist() == [7] * chosen.count("plain")


@given(
    st.lists(contents("hash", st.sampled_from([b"a", b"b", b"# Keyspace", b"subexpiry=0"])), min_size=1),
    st.integers(0, 3),
)
def test_hashes_are_taken_at_once_where_no_field_expires(hashes: list[list[bytes]], database: int) -> None:
    info = b"# Keyspace\r\ndb1:keys=9,expires=0,avg_ttl=0,subexpiry=2\r\ndb2:keys=1,expires=1,avg_ttl=1,subexpiry=0\r\n"
    statistics = b"$%d\r\n%b\r\n" % (len(info), info)
    raw = transaction([answer("hash", 7, items) for items in hashes] + [statistics])
    behind = lines_of_statistics(raw, database)
    assert (behind is None) == (database != 2)
    if behind is not None:
        taken = narrow("hash", raw, len(hashes), behind)
        assert taken is not None
        assert taken.values.to_pylist() == one_by_one("hash", hashes)
    assert lines_of_statistics(transaction([answer("hash", 7, items) for items in hashes]), 2) is None


def test_an_answer_with_another_number_of_containers_is_none() -> None:
    raw = transaction([answer("list", FOREVER, [b"a"])] * 3)
    assert narrow("list", raw, 3) is not None
    assert narrow("list", raw, 2) is None
    assert narrow("list", raw, 4) is None
    assert narrow("hash", raw, 3) is None


@given(st.lists(st.one_of(scores, st.integers(-(10**17), 10**17).map(lambda n: b"%d" % n)), max_size=30))
def test_scores_are_written_as_one_by_one(written: list[bytes]) -> None:
    found = score_texts(pa.array(written, pa.large_binary()))
    assert found.to_pylist() == [b"%a" % float(score) for score in written]


@pytest.mark.parametrize(
    "score",
    [
        "0",
        "-0",
        "inf",
        "-inf",
        "1e-4",
        "0.0001",
        "9.9999e-5",
        "999999999999999.9",
        "9999999999.5",
        "10000000000.5",
        "1e10",
        "1e15",
        "1e16",
        "9999999999999998",
        "5e-324",
        "1e308",
    ],
)
def test_scores_at_the_edges(score: str) -> None:
    found = score_texts(pa.array([score.encode(), b"1"], pa.large_binary()))
    assert found.to_pylist() == [b"%a" % float(score), b"1.0"]


@given(st.lists(st.one_of(st.binary(max_size=40), st.from_regex(rb"[a-z]*\{[a-z{]*\}[a-z}]*", fullmatch=True))))
def test_positions_of_many_keys_are_those_of_each(keys: list[bytes]) -> None:
    positions = positions_of(pa.array(keys, pa.large_binary()))
    assert positions.dtype == np.uint32
    assert positions.tolist() == [position_of(key) for key in keys]
    assert [position >> 16 for position in positions.tolist()] == [slot_of(key) for key in keys]
    assert all(position & 0xFFFF == crc_hqx(key, 0) for key, position in zip(keys, positions.tolist(), strict=True))
    assert all(position >> 16 < SLOTS for position in positions.tolist())


def commands(payload: bytes) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(payload)
    found = []
    while (words := reader.gets()) is not False:
        found.append(words)
    return found


@given(
    st.lists(st.binary(max_size=20), min_size=1, max_size=20),
    st.sampled_from([None, *ELEMENTS, "string", "stream", "mod"]),
)
def test_packed_commands_are_whole(keys: list[bytes], kind: str | None) -> None:
    column = pa.array([b"before", *keys], pa.large_binary()).slice(1)
    payload, count = read_commands(kind, column)
    asked = commands(b"".join(payload))
    assert len(asked) == count
    if kind is None:
        assert asked == [*([b"PEXPIRETIME", key] for key in keys), [b"MGET", *keys]]
        return
    assert asked[::2] == [[b"PEXPIRETIME", key] for key in keys]
    assert [words[2 if kind == "stream" else 1] for words in asked[1::2]] == keys
    assert commands(type_commands(column)) == [[b"TYPE", key] for key in keys]
    assert b"".join(bulk(column).to_pylist()) == packed(*keys).partition(b"\r\n")[2]


@given(
    st.lists(st.from_regex(rb"[ab]{0,2}:?[a-c]", fullmatch=True), max_size=60, unique=True),
    st.lists(
        st.tuples(st.from_regex(rb"[ab]{0,2}:[a-c]", fullmatch=True), st.sampled_from(sorted(ELEMENTS))), max_size=6
    ),
    st.booleans(),
)
def test_keys_are_sorted_out_by_their_guessed_types(
    keys: list[bytes], learnt: list[tuple[bytes, str]], in_order: bool
) -> None:
    guesses = Guesses()
    for key, kind in learnt:
        guesses.learn(key, kind)
    column = pa.array(sorted(keys) if in_order else keys, pa.large_binary())
    found = [(kind, key) for kind, some in guesses.sorted_out(column) for key in some.to_pylist()]
    assert sorted(key for _, key in found) == sorted(keys)
    if in_order:
        assert all(kind == guesses.of(key) for kind, key in found)
