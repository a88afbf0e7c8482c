"""Segments and indexes as Parquet: whatever encoding a column was written in, it comes back as it was."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import CorruptionDetected
from blocks.rows.parquet import ROW_GROUP_ROWS, _repeating, from_parquet, index_from_parquet, index_to_parquet
from blocks.rows.parquet import rows_to_parquet as written

texts = st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "ä" * 40]), st.text(max_size=5)), max_size=60)


def rows_to_parquet(rows: pa.Table, level: int) -> pa.Buffer:
    keys = [b"%08d" % n for n in range(rows.num_rows)]
    return written(rows, pa.array(keys, pa.large_binary()), level)


def read_as_dictionary(data: pa.Buffer) -> list[str]:
    return _repeating(pq.ParquetFile(pa.BufferReader(data)))


@given(texts, st.integers(1, 30))
def test_texts_come_back_whatever_they_are(values: list[str | None], times: int) -> None:
    column = values * times
    binary = [None if value is None else value.encode() for value in column]
    rows = pa.table({"a.b": pa.array(column, pa.large_string()), "_x": pa.array(binary, pa.large_binary())})
    assert from_parquet(rows_to_parquet(rows, 1), "x").equals(rows, check_metadata=False)


def test_what_repeats_is_read_as_a_dictionary_and_comes_back_as_it_was() -> None:
    count = 2 * ROW_GROUP_ROWS + 7
    rng = random.Random(5)
    few = [rng.choice(["", " " * 84, "x", None]) for _ in range(count)]
    rows = pa.table(
        {
            "number": pa.array(range(count), pa.int64()),
            "few": pa.array(few, pa.large_string()),
            "nothing": pa.nulls(count, pa.large_string()),
            "many": pa.array([f"{n:x}" * 9 for n in range(count)], pa.large_string()),
            # of these there are more than a dictionary holds, which is noticed only while they are written
            "late": pa.array(["same"] * 1_000 + [f"{n:x}" * 30 for n in range(count - 1_000)], pa.large_binary()),
        }
    )
    data = rows_to_parquet(rows, 1)
    assert "few" in read_as_dictionary(data)
    assert not {"many", "late", "number"} & set(read_as_dictionary(data))
    back = from_parquet(data, "x")
    assert back.schema.equals(rows.schema)
    assert back.equals(rows)


def test_a_table_of_nothing_comes_back() -> None:
    rows = pa.table({"a": pa.array([], pa.large_string())})
    assert from_parquet(rows_to_parquet(rows, 1), "x").equals(rows)


def test_the_keys_of_an_index_are_read_as_they_are() -> None:
    index = pa.table(
        {
            "_key": pa.array([b"%08d" % n for n in range(500)], pa.large_binary()),
            "_digest": pa.array([n << 32 for n in range(500)], pa.uint64()),
            "_deleted": pa.array([False] * 500),
        }
    )
    data = index_to_parquet(index)
    assert read_as_dictionary(data) == []
    assert index_from_parquet(data, "x").equals(index)


def test_what_is_no_parquet_is_damage_and_named() -> None:
    whole = rows_to_parquet(pa.table({"few": pa.array(["a", "a"] * 500, pa.large_string())}), 1).to_pybytes()
    for damaged in (b"", b"PAR1", whole[:-9], whole[:4] + bytes(len(whole) - 40) + whole[-36:]):
        with pytest.raises(CorruptionDetected, match="segment 7"):
            from_parquet(damaged, "segment 7")
