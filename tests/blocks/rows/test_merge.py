"""A chain is laid over its full piece by piece, and keys are looked for so, as if it were all at once."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.rows import index, keys, overlay
from blocks.rows.canonical import KEY
from blocks.rows.index import positions
from blocks.rows.keys import encode_keys
from blocks.rows.merge import merged

Layer = Mapping[bytes, int | None]
"""Values by key; None for a tombstone."""

names = st.binary(min_size=1, max_size=2)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_BLOCK_ROWS", 3)
    monkeypatch.setattr(index, "_BLOCK_KEYS", 3)
    monkeypatch.setattr(keys, "_BATCH_ROWS", 3)


def segment(layer: Layer) -> pa.Table:
    upserts = sorted(key for key, value in layer.items() if value is not None)
    gone = sorted(key for key, value in layer.items() if value is None)
    encoded = encode_keys(pa.table({"k": pa.array(gone, pa.large_binary())}), ["k"]).to_pylist()
    return pa.table(
        {
            KEY: pa.array([None] * len(upserts) + encoded, pa.large_binary()),
            "k": pa.array([*upserts, *(None for _ in gone)], pa.large_binary()),
            "v": pa.array([layer.get(key) for key in upserts] + [None] * len(gone), pa.int64()),
        }
    )


@given(
    st.dictionaries(names, st.integers(0, 9), min_size=1, max_size=20),
    st.lists(st.dictionaries(names, st.none() | st.integers(0, 9), max_size=8), max_size=3),
)
def test_the_newest_of_each_key_counts_and_all_is_in_order(full: Layer, later: list[Layer]) -> None:
    wanted: dict[bytes, int | None] = dict(full)
    for layer in later:
        wanted |= layer
    alive = sorted((key, value) for key, value in wanted.items() if value is not None)
    rows = merged([segment(full), *map(segment, later)], ("k",))
    assert list(zip(rows.column("k").to_pylist(), rows.column("v").to_pylist(), strict=True)) == alive
    assert rows.column(KEY).combine_chunks().equals(encode_keys(rows, ["k"]))


@given(st.sets(names, max_size=30), st.sets(names, max_size=30))
def test_ascending_keys_are_found_as_any_are(some: set[bytes], others: set[bytes]) -> None:
    looked, among = (pa.array(sorted(each), pa.large_binary()) for each in (some, others))
    assert positions(looked, among).to_pylist() == pc.index_in(looked, among).to_pylist()


@given(st.lists(st.tuples(names, st.none() | names), max_size=12))
def test_keys_of_several_batches_are_those_of_one(pairs: list[tuple[bytes, bytes | None]]) -> None:
    rows = pa.table(
        {
            "a": pa.array([a for a, _ in pairs], pa.large_binary()),
            "b": pa.array([b for _, b in pairs], pa.large_binary()),
        }
    )
    alone = [encode_keys(rows.slice(n, 1), ["a", "b"]).to_pylist()[0] for n in range(len(pairs))]
    assert encode_keys(rows, ["a", "b"]).to_pylist() == alone
