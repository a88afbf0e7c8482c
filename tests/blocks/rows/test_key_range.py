"""What says which keys a segment can hold never denies one that it holds."""

from __future__ import annotations

import base64
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import CorruptionDetected
from blocks.records import KeyRange
from blocks.rows.digest import RowDigest
from blocks.rows.key_range import MOST_FILTER_BYTES, check_range, key_range, near
from blocks.rows.keys import encode_keys
from blocks.rows.variant import encode_variant, variant_field
from blocks.rows.wanted import WantedKeys

DIGEST = RowDigest(b"k" * 32)


def may_hold(range_: KeyRange, key: bytes, digest: RowDigest) -> bool:
    return bool(near(range_, WantedKeys(frozenset([key])), digest))


def segment(values: list[object], kind: pa.DataType) -> tuple[pa.Table, pa.LargeBinaryArray]:
    """Rows of one key column, sorted by it, and their keys."""
    column = pa.array(values, kind)
    keys = encode_keys(pa.table({"id": column}), ["id"])
    order = pa.compute.sort_indices(keys)
    rows = pa.table({"_key": pa.nulls(len(column), pa.large_binary()), "id": column}).take(order)
    return rows, keys.take(order)


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=300, unique=True), st.binary(max_size=100))
def test_a_key_that_is_there_is_never_denied(values: list[bytes], other: bytes) -> None:
    rows, keys = segment(values, pa.large_binary())
    made = key_range(rows, keys, ("id",), DIGEST)
    assert all(may_hold(made, key, DIGEST) for key in keys.to_pylist())
    check_range(made, keys, rows, ("id",), DIGEST, "x")
    (wanted,) = encode_keys(pa.table({"id": pa.array([other], pa.large_binary())}), ["id"]).to_pylist()
    unfiltered = made.model_copy(update={"filter": None})
    assert may_hold(unfiltered, wanted, DIGEST) or not keys[0].as_py() <= wanted <= keys[-1].as_py()


@given(
    st.lists(
        st.binary(max_size=3).map(lambda one: one * 40) | st.binary(max_size=100), min_size=1, max_size=50, unique=True
    ),
    st.binary(min_size=1, max_size=100),
    st.integers(1, 110),
)
def test_keys_that_begin_in_a_way_are_never_denied(values: list[bytes], other: bytes, length: int) -> None:
    rows, keys = segment(values, pa.large_binary())
    made = key_range(rows, keys, ("id",), DIGEST)
    for begin in {key[:length] for key in (*keys.to_pylist(), b"\x30" + other)}:
        wanted = WantedKeys(beginnings=frozenset([begin]))
        held = [key.startswith(begin) for key in keys.to_pylist()]
        assert wanted.among(keys).to_pylist() == held
        first, last = keys[0].as_py(), keys[-1].as_py()
        outside = last[:64] < begin[:64] or (first[:64] > begin and not first.startswith(begin))
        assert bool(near(made, wanted, DIGEST)) >= any(held)
        assert bool(near(made, wanted, DIGEST)) != outside or begin.startswith(first)


@pytest.mark.parametrize(("count", "most"), [(1_000, 0.02), (3_276, 0.02), (8_000, 0.2), (16_000, 0.45)])
def test_a_filter_denies_most_others_and_has_a_bounded_size(count: int, most: float) -> None:
    rng = random.Random(7)
    numbers = rng.sample(range(10**9), 2 * count)
    rows, keys = segment(list(numbers[:count]), pa.int64())
    made = key_range(rows, keys, ("id",), DIGEST)
    assert made.filter is not None
    assert len(base64.b64decode(made.filter)) <= MOST_FILTER_BYTES + 1
    others = encode_keys(pa.table({"id": pa.array(numbers[count : count + 2_000], pa.int64())}), ["id"]).to_pylist()
    inside = made.model_copy(update={"first": "", "last": base64.b64encode(b"\xff" * 64).decode()})
    assert sum(may_hold(inside, key, DIGEST) for key in others) / len(others) < most


def test_where_a_filter_would_say_little_there_is_none() -> None:
    rows, keys = segment(list(range(20_000)), pa.int64())
    assert key_range(rows, keys, ("id",), DIGEST).filter is None
    assert key_range(*segment([1], pa.int64()), ("id",), None).filter is None


def test_the_types_of_keys_are_named() -> None:
    assert key_range(*segment([1, 2], pa.int64()), ("id",), None).kinds == ("i",)
    assert key_range(*segment(["a", None], pa.large_string()), ("id",), None).kinds == ("nt",)
    assert key_range(*segment([True], pa.bool_()), ("id",), None).kinds == ("o",)
    column = encode_variant([1, 1.5, "t", b"b", bytearray(b"\xff"), None])
    schema = pa.schema([pa.field("_key", pa.large_binary()), variant_field("id")])
    rows = pa.table([pa.nulls(6, pa.large_binary()), column], schema=schema)
    keys = encode_keys(rows, ["id"])
    assert set(key_range(rows, keys, ("id",), None).kinds[0]) == set("iftbon")


@pytest.mark.parametrize(
    "lie",
    [
        {"first": base64.b64encode(b"\x10\x80\0\0\0\0\0\0\x02").decode()},
        {"last": base64.b64encode(b"\x10\x80\0\0\0\0\0\0\x02").decode()},
        {"kinds": ("t",)},
        {"kinds": ()},
        {"filter": base64.b64encode(bytes([7]) + bytes(40)).decode()},
    ],
)
def test_a_range_that_leaves_out_a_key_is_found(lie: dict[str, object]) -> None:
    rows, keys = segment([1, 2, 3], pa.int64())
    lying = key_range(rows, keys, ("id",), DIGEST).model_copy(update=lie)
    with pytest.raises(CorruptionDetected, match="segment 7"):
        check_range(lying, keys, rows, ("id",), DIGEST, "segment 7")


@pytest.mark.parametrize(
    "changes", [{"first": "?"}, {"filter": "?"}, {"filter": ""}, {"filter": "AA=="}, {"filter": "AAAA"}]
)
def test_what_is_no_range_is_damage(changes: dict[str, str]) -> None:
    made = KeyRange(first="", last=base64.b64encode(b"\xff").decode(), kinds=("i",)).model_copy(update=changes)
    with pytest.raises(CorruptionDetected, match="range of keys"):
        may_hold(made, b"\x10", DIGEST)
