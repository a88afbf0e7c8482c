"""What a source returns of a part: no kind of reading passes for another one, and all come to the same changes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.rows.canonical import DIGEST, KEY
from blocks.rows.changes import Changes
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex
from blocks.rows.normalize import to_normal
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.part_changes import changes_since
from blocks.sources.reading import BaseLookup, Delta, FullRead, Reading, Unchanged, Updates
from blocks.sources.view import read_whole
from tests.strategies import tables

SPEC = CollectionSpec("orders", ("id",), ("id",), (("id", "int64"),))
ROWS = pa.table({"id": [1]})
KEYS = pa.array([b"1"], pa.large_binary())
DIGEST_OF = RowDigest(b"k" * 32)


class Returning:
    """What is needed of a view here: it returns the same reading of every part."""

    system = "a source of somebody else's"

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> Reading:
        return self._reading


@pytest.mark.parametrize("reading", [Delta(ROWS), Delta(ROWS, KEYS), Updates(ROWS), Unchanged(), FullRead(ROWS, KEYS)])
def test_what_relies_on_a_base_is_refused_where_there_is_none(reading: Any) -> None:
    view: Any = Returning(reading)
    with pytest.raises(TypeError, match="somebody else's: orders was read without a base"):
        read_whole(view, SPEC, {})


def test_a_full_read_without_a_base_is_taken_as_it_is() -> None:
    reading = FullRead(ROWS, warnings=("said",))
    view: Any = Returning(reading)
    assert read_whole(view, SPEC, {}) is reading


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (FullRead, {"rows": ROWS, "reread": KEYS}),
        (Delta, {"rows": ROWS, "unchanged": KEYS}),
        (Delta, {"reread": KEYS}),
        (Updates, {"rows": ROWS, "reread": KEYS}),
        (Updates, {"rows": ROWS, "unchanged": KEYS}),
        (Unchanged, {"rows": ROWS}),
        (Unchanged, {"unchanged": KEYS}),
    ],
)
def test_what_contradicts_itself_cannot_be_built(kind: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind(**fields)


@pytest.mark.parametrize("reading", [FullRead(ROWS), Delta(ROWS), Updates(ROWS), Unchanged()])
def test_a_reading_stays_what_it_was_built_as(reading: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        reading.warnings = ("late",)


def normal(table: pa.Table) -> pa.Table:
    return to_normal(table, ("id",), DIGEST_OF)


def index_of(table: pa.Table) -> PartIndex:
    return PartIndex.of(table.column(KEY).combine_chunks(), table.column(DIGEST).combine_chunks())


@given(tables(), tables(), st.data())
def test_each_kind_of_reading_leads_to_the_same_part(old: pa.Table, new: pa.Table, data: st.DataObject) -> None:
    before, after = normal(old.select(["id"])), normal(new.select(["id"]))
    base = index_of(before)
    there = pc.is_in(after.column(KEY), base.keys)
    kept, new_rows = after.filter(there), after.filter(pc.invert(there))
    some = pa.array(data.draw(st.lists(st.booleans(), min_size=len(kept), max_size=len(kept))), pa.bool_())
    read_again, left = kept.filter(some), kept.filter(pc.invert(some)).column(KEY).combine_chunks()
    read = pa.concat_tables([new_rows, read_again]).sort_by(KEY)
    not_left = base.keys.filter(pc.invert(pc.is_in(base.keys, left)))
    whole = changes_since(base, FullRead(after))
    for reading in (FullRead(read, left), Delta(read, not_left)):
        assert same_changes(changes_since(base, reading), whole)
    if not new_rows.num_rows and len(kept) == len(before):
        assert same_changes(changes_since(base, Updates(read)), whole)


def same_changes(one: Changes, other: Changes) -> bool:
    counts = [(changes.upserts, changes.tombstones, changes.count) for changes in (one, other)]
    return counts[0] == counts[1] and bool(one.index.sort_by(KEY).equals(other.index.sort_by(KEY)))


def test_updates_keep_all_other_records() -> None:
    before = normal(pa.table({"id": [1, 2, 3], "a": ["x", "y", "z"]}))
    rows = normal(pa.table({"id": [2, 3], "a": ["changed", "z"]}))
    changes = changes_since(index_of(before), Updates(rows))
    assert (changes.upserts, changes.tombstones, changes.count) == (1, 0, 3)
