"""Small parts share a blob, and each comes back as it was."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import CorruptionDetected
from blocks.rows.parquet import index_from_parquet
from blocks.rows.shared import MOST_BYTES, index_at, join_indexes, join_rows, rows_at, unpack
from tests.strategies import tables


@settings(max_examples=50)
@given(st.lists(tables(), min_size=1, max_size=6))
def test_each_part_comes_back(parts: list[pa.Table]) -> None:
    payload, places = join_rows(parts)
    plain = unpack(payload, "x")
    back = [rows_at(plain, place, "x") for place in places]
    assert [one.schema.equals(other.schema, check_metadata=True) for one, other in zip(back, parts, strict=True)]
    assert [repr(one.to_pylist()) for one in back] == [repr(one.to_pylist()) for one in parts]


def test_each_index_comes_back() -> None:
    indexes = [
        pa.table(
            {
                "_key": pa.array([b"%d" % n for n in range(count)], pa.large_binary()),
                "_digest": pa.array([(n + count) << 32 for n in range(count)], pa.uint64()),
                "_deleted": pa.array([n % 2 == 0 for n in range(count)], pa.bool_()),
            }
        )
        for count in (3, 0, 5, 1)
    ]
    data, places = join_indexes(indexes)
    whole = index_from_parquet(data, "x")
    assert [index_at(whole, place, "x").to_pylist() for place in places] == [one.to_pylist() for one in indexes]
    for lie in ((0, 10), (9, 1), (2**62, 1)):
        with pytest.raises(CorruptionDetected, match="segment 7"):
            index_at(whole, lie, "segment 7")


def test_eight_hundred_small_tables_take_few_bytes() -> None:
    no_key = pa.nulls(1, pa.large_binary())
    tables = [pa.table({"_key": no_key, f"column_{n}": [n], "note": [f"n{n}"]}) for n in range(800)]
    assert len(join_rows(tables)[0]) < 30_000


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"1234567", b"\xff" * 40, struct.pack(">Q", 5), struct.pack(">Q", MOST_BYTES + 1)),
        struct.pack(">Q", 5) + b"no frame",
    ],
)
def test_what_is_no_shared_blob_is_damage(payload: bytes) -> None:
    with pytest.raises(CorruptionDetected, match="blob 7"):
        unpack(payload, "blob 7")


@pytest.mark.parametrize("place", [(0, 5), (1, 100), (0, 10**9), (2**62, 2**62), (8, 0)])
def test_a_place_where_no_part_is_is_damage(place: tuple[int, int]) -> None:
    payload, _ = join_rows([pa.table({"a": [1]})])
    with pytest.raises(CorruptionDetected, match="segment 7"):
        rows_at(unpack(payload, "x"), place, "segment 7")
