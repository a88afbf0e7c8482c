"""The original system's state manager: values go to their tiers, and errors that it swallows are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import LastgoodError, Partial, RestoreRefused, SourceUnavailable
from blocks.sources.mapping import MappingSource
from tests.blocks.sources.mapping import shop
from tests.blocks.sources.mapping.kit import EXACT, MERGE, Shelf, keys_of, read, restore
from tests.blocks.sources.mapping.shop import Bag, Store
from tests.tiered_manager import StateCategory, StateManager

HOT, WARM, COLD = StateCategory
STATE: dict[str, object] = {
    "position:EURUSD": {"size": 7},
    "order:1": [1, None, ""],
    "ml_model:ridge": b"\0weights",
    "config:risk": {"limit": 0},
    "archive:2023": "old",
}


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(shop, name)


def tiered(shelf: Shelf, thing: object, **fields: Any) -> MappingSource:
    return shelf.source(thing, protocol="tiered", **fields)


def test_every_key_goes_to_its_tier(shelf: Shelf) -> None:
    manager = StateManager()
    rows = read(shelf.source(Bag(**STATE)))
    restore(rows, tiered(shelf, manager))
    assert {category: sorted(tier) for category, tier in manager.tiers.items()} == {
        HOT: ["archive:2023", "order:1", "position:EURUSD"],
        WARM: ["config:risk", "ml_model:ridge"],
        COLD: [],
    }
    assert manager.values == STATE
    restore(rows, tiered(shelf, manager, categories={"archive:*": "cold", "ml_model:r*": "hot"}))
    assert {category: sorted(tier) for category, tier in manager.tiers.items()} == {
        HOT: ["ml_model:ridge", "order:1", "position:EURUSD"],
        WARM: ["config:risk"],
        COLD: ["archive:2023"],
    }


def test_the_state_comes_back_and_what_came_later_goes(shelf: Shelf) -> None:
    manager = StateManager()
    source = tiered(shelf, manager)
    restore(read(shelf.source(Bag(**STATE))), source)
    rows = read(source)
    manager.tiers[HOT] = {"later:1": 1, "order:1": "changed"}
    manager.tiers[WARM].clear()
    restore(rows, source)
    assert manager.values == STATE
    assert sorted(manager.tiers[WARM]) == ["config:risk", "ml_model:ridge"]


def test_a_manager_without_batches_gets_the_category_with_each_key(shelf: Shelf) -> None:
    class Word(Store):
        def set_state(self, key: str, value: object, category: object = None) -> None:  # type: ignore[override]
            self.values[key] = value
            seen.append((key, category))

    Word.__module__ = "a.module.without.categories"

    class Level(Enum):
        Cold = 3
        Warm = 2
        Hot = 1

    class Named(Word):
        def set_state(self, key: str, value: object, category: Level | None = Level.Hot) -> None:
            super().set_state(key, value, category)

    for kind, hot, warm in ((Word, "hot", "warm"), (Named, Level.Hot, Level.Warm)):
        seen: list[tuple[str, object]] = []
        restore(read(shelf.source(Bag(**{"a": 1, "config:b": 2}))), tiered(shelf, kind()))
        assert sorted(seen) == [("a", hot), ("config:b", warm)]


@pytest.mark.parametrize(
    ("failing", "error"), [("set_state", Partial), ("delete_state", Partial), ("get_state", LastgoodError)]
)
def test_an_error_that_the_manager_swallows_is_no_success(
    shelf: Shelf, failing: str, error: type[LastgoodError]
) -> None:
    manager = StateManager()
    manager.tiers[HOT]["later"] = 1
    manager.failing.add(failing)
    with pytest.raises(error) as caught:
        restore(read(shelf.source(Bag(**STATE))), tiered(shelf, manager))
    assert caught.value.exit_code != 0
    assert manager.values.get("later") == 1


def test_a_value_that_a_listed_key_does_not_give_stops_the_backup(shelf: Shelf) -> None:
    manager = StateManager()
    manager.tiers[HOT] = {"a": 1, "b": 2}
    manager.failing = {"get_state", "create_snapshot"}
    with pytest.raises(SourceUnavailable, match=r"get_state\('a'\) answers None"):
        read(tiered(shelf, manager))
    manager.failing = {"create_snapshot"}
    assert keys_of(tiered(shelf, manager)) == ["a", "b"]


def test_a_snapshot_that_fails_is_read_key_by_key_with_a_warning(shelf: Shelf) -> None:
    manager = StateManager()
    manager.tiers[WARM] = {"config:x": 1}
    manager.failing = {"create_snapshot"}
    with tiered(shelf, manager).view() as view:
        assert "create_snapshot() answered None" in view.warnings[0]
    assert keys_of(tiered(shelf, manager)) == ["config:x"]


def test_a_category_that_is_none_is_refused_in_the_plan(shelf: Shelf) -> None:
    with pytest.raises(ValidationError, match="categories"):
        tiered(shelf, StateManager(), categories={"a:*": "lukewarm"})


def test_a_restore_of_one_key_leaves_the_tiers_of_others(shelf: Shelf) -> None:
    manager = StateManager()
    manager.tiers = {HOT: {"a": 0}, WARM: {}, COLD: {"b": 1}}
    restore(read(shelf.source(Bag(a=1, b=2))), tiered(shelf, manager), MERGE, ("a",))
    assert manager.tiers == {HOT: {"a": 1}, WARM: {}, COLD: {"b": 1}}


# -- what is left alone


def test_a_restore_leaves_keys_alone_whose_values_cannot_be_kept(shelf: Shelf) -> None:
    lock = object()
    store = Store(a=0, lock=lock, gone=1)
    rows = read(shelf.source(Bag(a=1)))
    notes = restore(rows, shelf.source(store, on_unsupported="skip"))
    assert store.values == {"a": 1, "lock": lock}
    assert any("left alone" in note for note in notes)
    taken = Store(a=lock)
    source = shelf.source(taken, on_unsupported="skip")
    with pytest.raises(RestoreRefused, match="'a'"):
        restore(rows, source, EXACT, guarded=True)
    assert taken.values == {"a": lock}


# -- read again after the end


def test_what_a_store_drops_when_it_is_closed_is_noticed(shelf: Shelf) -> None:
    kept: dict[str, object] = {}

    class Buffering(Store):
        """Writes what it was given when it is closed, or so it says."""

        loses = True

        def __init__(self) -> None:
            self.values, self.listed = dict(kept), 0

        def close(self) -> None:
            if not self.loses:
                kept.update(self.values)

    rows = read(shelf.source(Bag(**{f"k{n}": n for n in range(500)})))
    with pytest.raises(Partial, match="after the end"):
        restore(rows, shelf.source(Buffering))
    Buffering.loses = False
    restore(rows, shelf.source(Buffering))
    assert len(kept) == 500
