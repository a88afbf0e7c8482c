"""Globs over collections and keys: a person's words, matched on columns as `fnmatch` would match each value."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocks.rows.selection import Selection, glob_regex, label_text
from blocks.rows.variant import encode_variant, variant_field

pieces = ["*", "?", "[ab]", "[!ab]", "[!]a]", "[a-c]", "[]]", "[^a]", "[", "]", "!", "-", "\\", ".", "é"]
globs = st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=2)), max_size=5).map("".join)
words = st.text(st.sampled_from("abc]![^-\\.é\n:"), max_size=6)


@given(globs, st.lists(words, max_size=8))
@example("[^a]", ["a", "^", "b"])
@example("[c-a]", ["a", "c-a", "b"])
@example("[!c-a]", ["a", "b", ""])
@example("[[:alpha:]]", ["a", ":]", "p]"])
@example("[a", ["[a", "a"])
@example("\\d", ["1", "\\d"])
@settings(max_examples=300)
def test_a_glob_matches_as_fnmatch_does(glob: str, values: list[str]) -> None:
    found = pc.match_substring_regex(pa.array(values, pa.large_string()), glob_regex(glob)).to_pylist()
    assert found == [fnmatchcase(value, glob) for value in values]


def rows(**columns: object) -> pa.Table:
    return pa.table(columns)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, -20, None]), ["1", "-20", ""]),
        (pa.array(["a", "", None], pa.large_string()), ["a", "", ""]),
        (pa.array([b"a/\xff", None], pa.large_binary()), [b"a/\xff", b""]),
        (pa.array([Decimal("1.50")]), ["1.50"]),
        (pa.array([datetime(2026, 1, 2, 3, tzinfo=UTC)], pa.timestamp("us", "UTC")), ["2026-01-02 03:00:00.000000Z"]),
        (pa.array([True]), ["true"]),
        (pa.nulls(2), ["", ""]),
    ],
)
def test_a_label_is_the_key_as_a_person_types_it(values: pa.Array, texts: list[object]) -> None:
    assert label_text(rows(k=values), ("k",)).to_pylist() == texts


def test_a_label_of_mixed_types_is_bytes() -> None:
    column = encode_variant([1, 2.5, "é", b"\xff", None, bytearray(b"\xfe")])
    table = pa.Table.from_arrays([column], schema=pa.schema([variant_field("k")]))
    assert label_text(table, ("k",)).to_pylist() == [b"1", b"2.5", "é".encode(), b"\xff", b"", b"\xfe"]


def test_several_key_columns_are_joined_by_colons() -> None:
    table = rows(
        a=pa.array([1, None]), b=pa.array(["x", "y"], pa.large_string()), c=pa.array([b"\xff", b""], pa.large_binary())
    )
    assert label_text(table, ("a", "b")).to_pylist() == ["1:x", ":y"]
    assert label_text(table, ("b", "c")).to_pylist() == [b"x:\xff", b"y:"]


def test_keys_are_any_of_the_globs() -> None:
    table = rows(k=pa.array(["position:1", "order:1", "position", ""], pa.large_string()))
    assert Selection(keys=("position:*", "ord*")).rows(table, ("k",)).column("k").to_pylist() == [
        "position:1",
        "order:1",
    ]
    assert Selection(keys=("*",)).rows(table, ("k",)).num_rows == 4
    assert Selection(keys=("",)).rows(table, ("k",)).column("k").to_pylist() == [""]
    assert Selection(keys=("nothing",)).rows(table, ("k",)).num_rows == 0
    assert Selection().mask(table, ("k",)) is None


def test_a_second_set_of_keys_narrows_further() -> None:
    table = rows(k=pa.array(["a1", "a2", "b1"], pa.large_string()))
    chosen = Selection(keys=("*1",), within=("a*", "c*"))
    assert chosen.rows(table, ("k",)).column("k").to_pylist() == ["a1"]
    assert Selection(within=("a*",)).rows(table, ("k",)).num_rows == 2
    assert not Selection(within=("a*",)).everything


def test_paths_are_matched_as_bytes() -> None:
    table = rows(path=pa.array(["models/ü.bin".encode(), b"models/\xff", b"other"], pa.large_binary()))
    assert Selection(keys=("models/*",)).rows(table, ("path",)).num_rows == 2
    assert Selection(keys=("*/ü.bin",)).rows(table, ("path",)).num_rows == 1
    assert Selection(keys=("models/?",)).rows(table, ("path",)).num_rows == 1
    for odd in ("[c-a]", "[€]", "[é-ü]", "[!c-a]", "[", "\\"):
        assert Selection(keys=(odd,)).rows(table, ("path",)).num_rows == 0


def test_an_empty_table_has_no_selected_rows() -> None:
    table = rows(k=pa.array([], pa.int64()))
    assert Selection(keys=("1*",)).rows(table, ("k",)).num_rows == 0


def test_collections_are_chosen_by_their_full_name() -> None:
    chosen = Selection(collections=("ledger/*", "cache/a?"))
    held = ["ledger/orders", "ledger", "cache/ab", "cache/abc", "Ledger/orders"]
    assert [name for name in held if chosen.has_collection(name)] == ["ledger/orders", "cache/ab"]
    assert all(map(Selection().has_collection, held))


def test_everything_means_that_nothing_is_narrowed() -> None:
    assert Selection().everything
    assert not Selection(collections=("*",)).everything
    assert not Selection(keys=("*",)).everything
