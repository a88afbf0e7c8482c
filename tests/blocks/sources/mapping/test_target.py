"""Restores into state objects and files: what is refused, what is written, and what is left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    Partial,
    RestoreRefused,
)
from blocks.rows.selection import Selection
from blocks.sources.mapping import MappingSource
from blocks.sources.mapping.view import STATE
from blocks.sources.target import KeepsGoing, RestoreScope
from tests.blocks.sources.mapping import shop as mapping_shop
from tests.blocks.sources.mapping.kit import EXACT, FALSY, MERGE, Shelf, definition, keys_of, read, restore
from tests.blocks.sources.mapping.shop import Bag, Point, Side, Store


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(mapping_shop, name)


# -- restoring


def test_without_delete_state_only_merging_is_possible(shelf: Shelf) -> None:
    rows, bag = read(shelf.source(Bag(a=1))), Bag(b=2)
    with pytest.raises(RestoreRefused, match="no method delete_state") as caught:
        restore(rows, shelf.source(bag))
    assert "merge" in caught.value.hint
    assert bag.values == {"b": 2}
    restore(rows, shelf.source(bag), MERGE)
    assert bag.values == {"a": 1, "b": 2}


def test_exact_deletes_only_what_the_backup_and_the_plan_both_cover(shelf: Shelf) -> None:
    old = shelf.source(Store(**{"a:1": 1}), patterns=["a:*"])
    store = Store(**{"a:1": 0, "a:2": 0, "b:1": 0})
    restore(read(old), shelf.source(store, patterns=["*"]), patterns=["a:*"])
    assert store.values == {"a:1": 1, "b:1": 0}
    store = Store(**{"a:1": 0, "a:2": 0, "b:1": 0})
    restore(read(old), shelf.source(store, patterns=["b:*"]), patterns=["a:*"])
    assert store.values == {"a:1": 1, "a:2": 0, "b:1": 0}
    store = Store(**{"a:1": 0, "a:2": 0, "a:3": 0})
    notes = restore(read(old), shelf.source(store), keys=("a:[12]",))
    assert store.values == {"a:1": 1, "a:3": 0}
    assert notes[0].startswith("1 keys")


def test_an_error_before_the_first_key_changes_nothing_and_a_later_one_says_how_far_it_got(shelf: Shelf) -> None:
    class Full(Store):
        room = 0

        def set_state(self, key: str, value: object) -> None:
            if len(self.values) >= self.room:
                raise OSError("no space left")
            super().set_state(key, value)

    rows, full = read(shelf.source(Bag(a=1, b=2, c=3))), Full()
    with pytest.raises(RestoreRefused, match="no space left"):
        restore(rows, shelf.source(full))
    assert full.values == {}
    full.room = 2
    with pytest.raises(Partial, match=r"stopped after 2 keys: .*set_state\('c'\) failed"):
        restore(rows, shelf.source(full))


def test_classes_that_values_name_are_checked_before_anything_is_written(shelf: Shelf, tmp_path: Path) -> None:
    source = shelf.source(Store(a=Side.BUY, b=[Point(1.0)]))
    shop = mapping_shop.__name__
    types = definition(source)["types"]
    assert types == [f"{shop}:Point", f"{shop}:Side"]
    rows = read(source)
    copied = Store()
    restore(rows, shelf.source(copied), types=types)
    assert copied.values == {"a": Side.BUY, "b": [Point(1.0)]}
    elsewhere, place = MappingSource(object="json:decoder"), str(tmp_path / "state.db")
    for named in (types, []):  # a manifest that does not name them gets no further
        scope = RestoreScope({"patterns": ["*"], "types": named}, ((STATE, 2),), MERGE, Selection(), 1)
        target = elsewhere.target(scope, place)
        first = target.preflight if named else partial(target.apply, STATE, rows)
        with pytest.raises(RestoreRefused, match=f"{shop}:.* does not allow"):
            first()
        target.abort()


def test_a_restore_that_keeps_going_names_values_of_classes_that_are_not_there(shelf: Shelf, tmp_path: Path) -> None:
    source = shelf.source(Store(a=Side.BUY, b=1, c=[Point(1.0)]))
    rows, types = read(source), definition(source)["types"]
    elsewhere, place = MappingSource(object="json:decoder"), str(tmp_path / "state.db")
    scope = RestoreScope({"patterns": ["*"], "types": types}, ((STATE, 3),), EXACT, Selection(), 1, keep_going=True)
    target = elsewhere.target(scope, place)
    target.preflight()
    assert target.apply(STATE, rows) == 1
    target.commit()
    assert keys_of(elsewhere.at(place)) == ["b"]
    assert isinstance(target, KeepsGoing)
    assert [left.name for left in target.not_rebuilt] == ["key 'a'", "key 'c'"]
    assert all("does not allow" in left.reason for left in target.not_rebuilt)


def test_a_restore_imports_no_object_of_another_package(shelf: Shelf) -> None:
    with pytest.raises(ConfigurationError, match="os:abort is outside of the package"):
        restore(read(shelf.source(Bag(a=1))), shelf.source(Store()), to="os:abort")
    assert MappingSource(object="a.b:c", types=["x:*"]).at("x:y")


@pytest.mark.parametrize("fields", [{"patterns": None}, {"types": "os:system"}, {"types": [1]}, {"patterns": {}}])
def test_a_manifest_of_another_kind_is_refused(shelf: Shelf, fields: dict[str, Any]) -> None:
    with pytest.raises(CorruptionDetected):
        restore(read(shelf.source(Bag(a=1))), shelf.source(Store()), **fields)


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"key": ["a"], "other": ["1"]}),
        pa.table({"key": ["a"], "value": [None]}),
        pa.table({"key": [None], "value": ["1"]}),
        pa.table({"key": ["a"], "value": [[1]]}),
        pa.table({"key": ["a"], "value": ["{"]}),
    ],
)
def test_rows_that_no_backup_holds_are_damage(shelf: Shelf, rows: pa.Table) -> None:
    store = Store(a=7)
    with pytest.raises(CorruptionDetected):
        restore(rows, shelf.source(store))
    assert store.values == {"a": 7}


def test_bounds_that_were_never_drawn_are_damage(shelf: Shelf) -> None:
    with shelf.source(Bag(a=1)).view() as view, pytest.raises(CorruptionDetected):
        view.read(STATE, {"from": "5", "below": "4"}, None)


# -- files


def test_a_restore_to_a_file_can_be_read_back_with_its_types(shelf: Shelf, tmp_path: Path) -> None:
    source = shelf.source(Bag(**FALSY, side=Side.SELL), patterns=["*"])
    path = str(tmp_path / "state.db")
    rows = read(source)
    restore(rows, source, to=path)
    assert sorted(read(source.at(path)).to_pylist(), key=str) == sorted(rows.to_pylist(), key=str)
    assert Path(path).stat().st_mode & 0o777 == 0o600
    restore(read(shelf.source(Bag(extra=1))), source, MERGE, to=path)
    assert len(keys_of(source.at(path))) == len(FALSY) + 2
    restore(rows, source, to=path)
    assert "extra" not in keys_of(source.at(path))


def test_a_file_that_is_something_else_is_refused_and_stays_as_it_is(shelf: Shelf, tmp_path: Path) -> None:
    source, rows = shelf.source(Bag(a=1)), read(shelf.source(Bag(a=1)))
    text = tmp_path / "notes.txt"
    text.write_text("precious" * 100)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE precious (a)")
    db.close()
    before = other.read_bytes()
    for place in (text, other, tmp_path, tmp_path / "missing" / "x"):
        with pytest.raises(RestoreRefused):
            restore(rows, source, to=str(place))
    assert text.read_text() == "precious" * 100
    assert other.read_bytes() == before


def test_a_preflight_alone_makes_no_file(shelf: Shelf, tmp_path: Path) -> None:
    source = shelf.source(Bag(a=1))
    scope = RestoreScope({"patterns": ["*"], "types": []}, ((STATE, 1),), EXACT, Selection(), 1)
    target = source.target(scope, str(tmp_path / "x.db"))
    target.preflight()
    target.abort()
    assert list(tmp_path.iterdir()) == []
