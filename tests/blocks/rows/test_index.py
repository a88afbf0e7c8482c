"""The indexes of a chain, laid over each other: looking into each layer finds what the merged index holds."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from blocks.rows.canonical import DIGEST, KEY
from blocks.rows.index import PartIndex
from blocks.rows.overlay import DELETED

_KEYS = [b"\x10" + bytes([n]) for n in range(12)]
_DIGESTS = st.one_of(st.none(), st.integers(0, 2**64 - 1))


def layer(entries: dict[bytes, int | None]) -> pa.Table:
    """Make an index table; None is a tombstone."""
    return pa.table(
        {
            KEY: pa.array(list(entries), pa.large_binary()),
            DIGEST: pa.array([digest or 0 for digest in entries.values()], pa.uint64()),
            DELETED: pa.array([digest is None for digest in entries.values()], pa.bool_()),
        }
    )


@given(
    st.lists(st.dictionaries(st.sampled_from(_KEYS), _DIGESTS), max_size=4),
    st.lists(st.sampled_from(_KEYS), unique=True),
)
def test_layers_are_as_good_as_merged(layers: list[dict[bytes, int | None]], wanted: list[bytes]) -> None:
    expected: dict[bytes, int | None] = {}
    for entries in layers:
        expected |= entries
    expected = {key: digest for key, digest in expected.items() if digest is not None}
    index = PartIndex([layer(entries) for entries in layers])
    found = index.find(pa.array(wanted, pa.large_binary()))
    assert found.to_pylist() == [expected.get(key) for key in wanted]
    assert dict(zip(index.keys.to_pylist(), index.digests.to_pylist(), strict=True)) == expected
    assert len(index) == len(expected)


def test_few_keys_among_many_are_found_in_several_chunks() -> None:
    keys = [f"{n:06d}".encode() for n in range(1000)]
    tables = [layer(dict.fromkeys(keys[at : at + 100], 7)) for at in range(0, 1000, 100)]
    index = PartIndex([pa.concat_tables(tables), layer({keys[500]: None, keys[501]: 9})])
    assert index.find(pa.array([keys[0], b"none", keys[500], keys[501], keys[999]], pa.large_binary())).to_pylist() == [
        7,
        None,
        None,
        9,
        7,
    ]


def test_the_number_of_records_is_told_without_merging() -> None:
    assert len(PartIndex([layer({_KEYS[0]: 1})], rows=5)) == 5
    assert len(PartIndex([])) == 0
    assert PartIndex([]).find(pa.array(_KEYS, pa.large_binary())).null_count == len(_KEYS)


@given(st.dictionaries(st.binary(min_size=3, max_size=3), _DIGESTS, min_size=1), st.lists(st.binary(max_size=4)))
def test_keys_of_one_length_are_found_among_keys_in_order(
    entries: dict[bytes, int | None], others: list[bytes]
) -> None:
    index = PartIndex([layer(dict(sorted(entries.items())))])
    for wanted in ([key] for key in [*entries, *others]):
        found = index.find(pa.array(wanted, pa.large_binary())).to_pylist()
        assert found == [entries.get(wanted[0])]


def test_keys_of_one_length_are_found_in_a_slice_and_without_order() -> None:
    keys = [f"{n:03d}".encode() for n in range(100)]
    upside_down = PartIndex([layer({key: n for n, key in reversed(list(enumerate(keys)))})])
    wanted = pa.array([b"xxx", keys[3], keys[99], b"yyy", b"zz\x00"], pa.large_binary())
    for index in (upside_down, PartIndex([layer({key: n for n, key in enumerate(keys)})])):
        assert index.find(wanted.slice(1, 3)).to_pylist() == [3, 99, None]
        assert index.find(wanted.slice(1)).to_pylist() == [3, 99, None, None]
        assert index.find(wanted.slice(0, 0)).to_pylist() == []
