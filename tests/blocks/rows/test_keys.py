"""Keys sort as their columns do."""

from __future__ import annotations

import math
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.rows import keys as encoding
from blocks.rows.keys import encode_keys, encode_parents, under_parents
from blocks.rows.variant import encode_variant, variant_field
from tests.strategies import TYPED, scalars, text

KINDS = [kind for kind in TYPED if kind != pa.float64()]


def keys(values: list[object], kind: pa.DataType) -> list[bytes]:
    return encode_keys(pa.table({"k": pa.array(values, kind)}), ["k"]).to_pylist()


@given(st.sampled_from(KINDS).flatmap(lambda k: st.tuples(st.just(k), st.lists(TYPED[k], max_size=8))))
def test_keys_of_one_column_sort_as_its_values(case: tuple[pa.DataType, list[object]]) -> None:
    kind, values = case
    encode = (lambda v: v.encode()) if kind == pa.large_string() else (lambda v: v)
    by_value = sorted(values, key=encode)
    assert sorted(keys(values, kind)) == keys(by_value, kind)


@given(st.lists(st.floats(allow_nan=False), max_size=8))
def test_floats_sort_and_negative_zero_comes_before_zero(values: list[float]) -> None:
    by_value = sorted(values, key=lambda v: (v, math.copysign(1, v)))
    assert sorted(keys(values, pa.float64())) == keys(by_value, pa.float64())


@given(st.lists(st.tuples(st.binary(max_size=4), st.integers(-5, 5)), unique=True, max_size=10))
def test_composites_sort_column_by_column(pairs: list[tuple[bytes, int]]) -> None:
    def encode(rows: list[tuple[bytes, int]]) -> list[bytes]:
        table = pa.table(
            {"p": pa.array([p for p, _ in rows], pa.large_binary()), "o": pa.array([o for _, o in rows], pa.int64())}
        )
        return encode_keys(table, ["p", "o"]).to_pylist()

    assert sorted(encode(pairs)) == encode(sorted(pairs))
    assert len(set(encode(pairs))) == len(pairs)


@given(st.lists(st.tuples(text, text), unique=True, max_size=10))
def test_different_composites_of_text_never_share_a_key(pairs: list[tuple[str, str]]) -> None:
    table = pa.table(
        {
            "a": pa.array([a for a, _ in pairs], pa.large_string()),
            "b": pa.array([b for _, b in pairs], pa.large_string()),
        }
    )
    assert len(set(encode_keys(table, ["a", "b"]).to_pylist())) == len(pairs)


@given(st.lists(scalars.filter(lambda v: v == v), max_size=8))
def test_a_variant_key_is_that_of_the_value_in_a_plain_column(values: list[object]) -> None:
    table = pa.Table.from_arrays([encode_variant(values)], schema=pa.schema([variant_field("k")]))
    plain = {
        int: pa.int64(),
        float: pa.float64(),
        str: pa.large_string(),
        bytes: pa.large_binary(),
        type(None): pa.null(),
    }
    for value, key in zip(values, encode_keys(table, ["k"]).to_pylist(), strict=True):
        if isinstance(value, bytearray):
            assert key == b"\x20" + bytes(value)
        else:
            assert key == keys([value], plain.get(type(value), pa.null()))[0]


def test_null_sorts_before_everything() -> None:
    assert keys([None, -(2**63)], pa.int64())[0] < keys([-(2**63)], pa.int64())[0]


def test_a_parent_is_the_prefix_of_the_keys_below_it() -> None:
    table = pa.table({"p": pa.array([b"a\x00b", b"a"], pa.large_binary()), "o": pa.array([0, 1], pa.int64())})
    for parent, key in zip(
        encode_parents(table.column("p")).to_pylist(), encode_keys(table, ["p", "o"]).to_pylist(), strict=True
    ):
        assert key[:-9] == parent


_SOME_BYTES = st.binary(max_size=3) | st.sampled_from([b"", b"\x00", b"\x00\x01", b"\x01", b"\x05", b"a\x00\x01\x05"])


@given(st.lists(st.tuples(_SOME_BYTES | st.none(), _SOME_BYTES | st.none())), st.lists(_SOME_BYTES))
def test_keys_below_parents_are_found_whatever_their_bytes(
    pairs: list[tuple[bytes | None, bytes | None]], parents: list[bytes]
) -> None:
    schema = pa.schema([("p", pa.large_binary()), ("o", pa.large_binary())])
    table = pa.Table.from_pylist([{"p": p, "o": o} for p, o in pairs], schema=schema)
    found = under_parents(encode_keys(table, ["p", "o"]), pa.array(parents, pa.large_binary()))
    assert found.to_pylist() == [p in parents for p, _ in pairs]


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1))), st.lists(st.text(max_size=3)))
def test_keys_below_parents_are_found_by_text_and_number(pairs: list[tuple[str, int]], parents: list[str]) -> None:
    schema = pa.schema([("p", pa.large_string()), ("o", pa.int64())])
    table = pa.Table.from_pylist([{"p": p, "o": o} for p, o in pairs], schema=schema)
    found = under_parents(encode_keys(table, ["p", "o"]), pa.array(parents, pa.large_string()))
    assert found.to_pylist() == [p in parents for p, _ in pairs]


def test_keys_are_not_there_twice_while_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array([f"{n:0100}" for n in range(100_000)], pa.large_string())
    table = pa.table({"k": texts, "n": pa.array(range(100_000), pa.int64())})
    whole = encode_keys(table, ["k", "n"])
    monkeypatch.setattr(encoding, "_BATCH_ROWS", 7_000)
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        pieces = encode_keys(table, ["k", "n"])
        peak = pool.max_memory() + tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert pieces.equals(whole)
    assert peak < 1.7 * whole.nbytes
