"""What is done to rows on the way down is undone on the way up."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import CorruptionDetected, UnsupportedState
from blocks.rows.canonical import DIGEST, KEY, to_canonical
from blocks.rows.changes import changes_between, changes_by_delta
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex
from blocks.rows.merge import merged
from blocks.rows.normalize import from_normal, to_normal
from blocks.rows.parquet import from_parquet, index_from_parquet, index_to_parquet, rows_to_parquet
from blocks.rows.variant import decode_variant
from tests.strategies import tables

DIGEST_OF = RowDigest(b"k" * 32, 32)


def rows_of(table: pa.Table) -> list[str]:
    """Rows as comparable text; repr keeps NaN, -0.0 and types apart."""
    return sorted(repr(sorted(row.items())) for row in table.to_pylist())


def normal(table: pa.Table) -> pa.Table:
    return to_normal(table, ("id",), DIGEST_OF)


def index_of(table: pa.Table) -> PartIndex:
    return PartIndex.of(table.column(KEY).combine_chunks(), table.column(DIGEST).combine_chunks())


@given(tables())
def test_denormalize_undoes_normalize(table: pa.Table) -> None:
    assert rows_of(from_normal(normal(table))) == rows_of(table)
    assert from_normal(normal(table)).schema.equals(table.schema, check_metadata=True)


@given(tables())
def test_decompress_undoes_compress(table: pa.Table) -> None:
    whole = changes_between(PartIndex([]), normal(table))
    rows = from_parquet(rows_to_parquet(whole.rows, whole.index.column(KEY).combine_chunks(), 3), "rows")
    assert rows.equals(whole.rows) or rows_of(rows) == rows_of(whole.rows)
    assert rows.schema.equals(whole.rows.schema, check_metadata=True)
    assert index_from_parquet(index_to_parquet(whole.index), "index").equals(whole.index)


@given(st.lists(tables(), min_size=1, max_size=5))
def test_merge_undoes_a_chain_of_diffs(states: list[pa.Table]) -> None:
    columns = list(states[0].column_names)
    segments, indexes = [], []
    for state in states:
        for name in columns:  # one collection keeps its columns; their types may change
            if name not in state.column_names:
                state = state.append_column(name, pa.nulls(state.num_rows, pa.null()))
        now = normal(state.select(columns))
        try:
            changes = changes_between(PartIndex(indexes), now)
            segments.append(changes.rows)
            indexes.append(changes.index)
            restored = from_normal(merged(segments, ("id",)))
        except UnsupportedState:
            return  # a timestamp became a text: no source does that within a chain
        assert values(restored) == values(state.select(columns))
        assert PartIndex(indexes).keys.to_pylist() == now.column(KEY).to_pylist() or len(segments) > 1


def values(table: pa.Table) -> list[str]:
    """Rows by value, whatever the column's type came to be."""
    columns = {}
    for field in table.schema:
        column = table.column(field.name)
        columns[field.name] = decode_variant(column) if field.metadata else column.to_pylist()
    return sorted(repr([(name, column[n]) for name, column in sorted(columns.items())]) for n in range(table.num_rows))


@given(tables(), tables())
def test_the_index_alone_tells_what_changed(old: pa.Table, new: pa.Table) -> None:
    before, after = normal(old.select(["id"])), normal(new.select(["id"]))
    changes = changes_between(index_of(before), after)
    ids = set(old.column("id").to_pylist()), set(new.column("id").to_pylist())
    assert changes.upserts == len(ids[1] - ids[0])
    assert changes.tombstones == len(ids[0] - ids[1])


def test_a_deleted_row_stays_deleted_until_it_is_put_again() -> None:
    one, none = (
        pa.table({"id": [1], "a": ["x"]}),
        pa.table({"id": pa.array([], pa.int64()), "a": pa.array([], pa.string())}),
    )
    indexes, segments = [], []
    for state, count in ((one, 1), (none, 0), (none, 0), (one, 1)):
        changes = changes_between(PartIndex(indexes), normal(state))
        indexes.append(changes.index)
        segments.append(changes.rows)
        assert merged(segments, ("id",)).num_rows == count


def test_unchanged_keys_count_as_present() -> None:
    base = normal(pa.table({"id": [1, 2, 3]}))
    now = normal(pa.table({"id": [2]}))
    kept = index_of(base).keys.slice(0, 1)
    changes = changes_between(index_of(base), now, kept)
    assert (changes.upserts, changes.tombstones) == (0, 1)


@given(tables(), tables(), st.data())
def test_rows_that_were_touched_tell_as_much_as_all_rows(old: pa.Table, new: pa.Table, data: st.DataObject) -> None:
    before, after = normal(old.select(["id"])), normal(new.select(["id"]))
    whole = changes_between(index_of(before), after)
    # what changed was touched, and others may have been
    changed = set(whole.index.column(KEY).to_pylist())
    others = sorted((set(before.column(KEY).to_pylist()) | set(after.column(KEY).to_pylist())) - changed)
    touched = changed | set(data.draw(st.lists(st.sampled_from(others)) if others else st.just([])))
    among = pa.array(sorted(touched), pa.large_binary())
    rows, keys = after.filter(pc.is_in(after.column(KEY), among)), index_of(before).keys
    found = changes_by_delta(index_of(before), rows, keys.filter(pc.is_in(keys, among)))
    assert found.count == whole.count
    assert (found.upserts, found.tombstones) == (whole.upserts, whole.tombstones)
    assert found.index.sort_by(KEY).equals(whole.index.sort_by(KEY))


def test_two_rows_with_one_key_are_refused() -> None:
    with pytest.raises(UnsupportedState, match="same key id"):
        normal(pa.table({"id": [1, 1]}))


def test_a_value_that_cannot_be_kept_exactly_is_refused_by_column() -> None:
    with pytest.raises(UnsupportedState, match="'a'"):
        to_canonical(pa.table({"a": pa.array([2**63], pa.uint64())}))


def test_bytes_that_are_no_parquet_are_named() -> None:
    with pytest.raises(CorruptionDetected, match="data of orders"):
        from_parquet(b"not parquet", "data of orders")


@given(tables(max_rows=8), st.integers(0, 7))
@settings(max_examples=60)
def test_a_digest_depends_on_the_row_alone(table: pa.Table, start: int) -> None:
    whole = DIGEST_OF(to_canonical(table)).to_pylist()
    piece = DIGEST_OF(to_canonical(table.slice(start, 3))).to_pylist()
    assert whole[start : start + 3] == piece


def test_a_change_of_type_alone_changes_the_digest() -> None:
    values = [(1, pa.int64()), (1.0, pa.float64()), ("1", pa.string()), (b"1", pa.binary()), (None, pa.null())]
    digests = [
        DIGEST_OF(to_canonical(pa.table({"a": pa.array([value], kind)}))).to_pylist()[0] for value, kind in values
    ]
    assert len(set(digests)) == len(digests)


def test_another_key_gives_other_digests() -> None:
    table = pa.table({"a": pa.array(["x"], pa.large_string())})
    assert DIGEST_OF(table).to_pylist() != RowDigest(b"l" * 32)(table).to_pylist()


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 7, 8, 9, 511, 512, 513, 1024])
def test_every_byte_of_a_value_counts(size: int) -> None:
    value = bytes(range(256)) * 5
    base = value[:size]
    seen = {DIGEST_OF(pa.table({"a": pa.array([base], pa.large_binary())})).to_pylist()[0]}
    for n in range(size):
        other = base[:n] + bytes([base[n] ^ 1]) + base[n + 1 :]
        seen.add(DIGEST_OF(pa.table({"a": pa.array([other], pa.large_binary())})).to_pylist()[0])
    seen.add(DIGEST_OF(pa.table({"a": pa.array([base + b"\0"], pa.large_binary())})).to_pylist()[0])
    assert len(seen) == size + 2


def test_a_million_small_rows_pass_without_python_per_row() -> None:
    rows = 1_000_000
    table = pa.table(
        {
            "id": pa.array(np.arange(rows)),
            "price": pa.array(np.linspace(0, 1, rows)),
            "side": pa.array(["buy", "sell"]).take(pa.array(np.arange(rows) % 2)),
            "note": pc.cast(pa.array(np.arange(rows)), pa.string()),
        }
    )
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        now = normal(table)
        changes = changes_between(index_of(normal(table.slice(0, rows // 2))), now)
        stored = from_parquet(rows_to_parquet(changes.rows, changes.index.column(KEY).combine_chunks(), 1), "rows")
        index_to_parquet(changes.index)
        back = from_normal(merged([stored], ("id",)))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert back.num_rows == rows // 2
    assert calls < rows / 50
