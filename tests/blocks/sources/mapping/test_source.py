"""The mapping source: which objects it takes, and how it reads them."""

from __future__ import annotations

import asyncio
import copy
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import (
    ConfigurationError,
    LastgoodError,
    RestoreRefused,
    SourceChanged,
    SourceUnavailable,
    UnsupportedState,
)
from blocks.sources.mapping import MappingSource
from blocks.sources.mapping.view import STATE
from tests.blocks.sources.mapping import shop as mapping_shop
from tests.blocks.sources.mapping.kit import FALSY, MERGE, Shelf, keys_of, read, restore
from tests.blocks.sources.mapping.shop import Bag, Store


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(mapping_shop, name)


# -- which objects


def test_an_instance_a_class_and_a_factory_serve(shelf: Shelf) -> None:
    async def later() -> Bag:
        return Bag(a=3)

    for thing in (
        Bag(a=1),
        lambda: Bag(a=2),
        later,
        type("Made", (Bag,), {"__init__": lambda s: Bag.__init__(s, a=4)}),
    ):
        assert keys_of(shelf.source(thing)) == ["a"]


def test_what_a_factory_made_is_closed_and_an_instance_is_not(shelf: Shelf) -> None:
    closed = []

    class Closing(Bag):
        async def close(self) -> None:
            closed.append(self)

    read(shelf.source(Closing(a=1)))
    assert closed == []
    read(shelf.source(Closing))
    assert len(closed) == 1


@pytest.mark.parametrize("path", ["", "os", "os:", ":x", "a/b:c", "os.path", "os:path:x", "os:pa th", "../x:y"])
def test_an_object_is_named_by_an_import_path(path: str) -> None:
    with pytest.raises(ValidationError, match=r"package\.module:attribute"):
        MappingSource(object=path)


@pytest.mark.parametrize("path", ["no_such_module:x", f"{mapping_shop.__name__}:missing"])
def test_an_object_that_is_not_there_is_a_mistake_in_the_plan(path: str) -> None:
    with pytest.raises(ConfigurationError, match=path.rpartition(":")[2]), MappingSource(object=path).view():
        pass


def test_a_module_beside_the_plan_is_found(tmp_path: Path) -> None:
    name = f"shop_{uuid.uuid4().hex}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}.py").write_text(
        "class S:\n"
        "    def get_keys_by_pattern(self, pattern): return ['a']\n"
        "    def get_state(self, key): return 1\n"
        "state = S()\n"
    )
    source = MappingSource(object=f"{name}:state", search_path=["lib"])
    with pytest.raises(ConfigurationError), source.view():
        pass
    assert keys_of(source.anchored(tmp_path)) == ["a"]


def test_a_missing_method_is_named(shelf: Shelf) -> None:
    with pytest.raises(ConfigurationError, match="no method get_keys_by_pattern"), shelf.source(7).view():
        pass
    rows = read(shelf.source(Bag(a=1)))
    readable = type("R", (), {"get_state": Bag.get_state, "get_keys_by_pattern": Bag.get_keys_by_pattern, "values": {}})
    with pytest.raises(RestoreRefused, match="no method set_state"):
        restore(rows, shelf.source(readable()), MERGE)


def test_a_factory_that_fails_is_the_source_being_away(shelf: Shelf) -> None:
    def broken() -> Bag:
        raise OSError("no route to host")

    with pytest.raises(SourceUnavailable, match="no route to host"), shelf.source(broken).view():
        pass


# -- reading


def test_falsy_values_are_never_skipped(shelf: Shelf) -> None:
    source, empty = shelf.source(Bag(**FALSY)), Store()
    rows = read(source)
    assert rows.num_rows == len(FALSY)
    restore(rows, shelf.source(empty))
    assert empty.values == FALSY
    assert [type(empty.values[key]) for key in FALSY] == [type(value) for value in FALSY.values()]


def test_patterns_choose_keys_and_no_key_comes_twice(shelf: Shelf) -> None:
    bag = Bag(**{"a:1": 1, "a:2": 2, "b:1": 3})
    assert keys_of(shelf.source(bag, patterns=["a:*", "*:1", "a:1"])) == ["a:1", "a:2", "b:1"]
    assert keys_of(shelf.source(bag, patterns=["a:*"])) == ["a:1", "a:2"]
    with pytest.raises(ValidationError):
        MappingSource(object="a:b", patterns=[])


def test_keys_are_listed_once_and_fill_parts_evenly(shelf: Shelf) -> None:
    bag = Bag(**{f"key {n}": "x" * 50 for n in range(2000)})
    source = shelf.source(bag, part_size_bytes=10_000)
    with source.view() as view:
        bounds = view.partition(STATE)
        sizes = [view.read(STATE, b, None).rows.num_rows for b in bounds]
    assert bag.listed == 1
    assert len(sizes) == pytest.approx(12, abs=2)
    assert sum(sizes) == 2000
    assert max(sizes) < 1.5 * 2000 / len(sizes)


def test_a_chain_ends_when_its_parts_have_outgrown_their_size(shelf: Shelf) -> None:
    bag = Bag(**{f"key {n}": "x" * 50 for n in range(100)})
    source = shelf.source(bag, part_size_bytes=2_000)
    with source.view() as view:
        bounds = view.partition(STATE)
        assert not view.needs_repartition(STATE, bounds)
    bag.values.update({f"more {n}": "x" * 50 for n in range(500)})
    with source.view() as view:
        assert view.needs_repartition(STATE, bounds)
        assert not view.needs_repartition(STATE, view.partition(STATE))
    lone = shelf.source(Bag(a="x" * 100_000), part_size_bytes=1_000)
    with lone.view() as view:
        assert len(view.partition(STATE)) == 1
        assert not view.needs_repartition(STATE, view.partition(STATE))


@pytest.mark.parametrize("key", [b"k", 7, None, ("a",), "\ud800"])
def test_a_key_that_is_no_text_is_named(shelf: Shelf, key: Any) -> None:
    bag = type("Odd", (Bag,), {"get_keys_by_pattern": lambda self, pattern: [key]})()
    with pytest.raises(UnsupportedState, match="has the key"), shelf.source(bag).view():
        pass


def test_a_value_that_cannot_be_kept_names_its_key_and_place(shelf: Shelf) -> None:
    with pytest.raises(UnsupportedState, match=r"key 'orders' at \['x'\]\[0\] is of type threading:Event"):
        read(shelf.source(Bag(orders={"x": [threading.Event()]})))


def test_what_the_object_raises_is_said_with_the_key(shelf: Shelf) -> None:
    class Down(Bag):
        def get_state(self, key: str) -> object:
            raise ConnectionError("connection refused")

    with pytest.raises(SourceUnavailable, match=r"get_state\('a'\) failed: ConnectionError: connection refused"):
        read(shelf.source(Down(a=1)))


class Forgetful(Bag):
    """Loses a key after listing it; says so by an error or by None."""

    def __init__(self, silent: bool, still_listed: bool = False) -> None:
        super().__init__(a=1, b=2, none=None)
        self.silent, self.still_listed = silent, still_listed

    def get_state(self, key: str) -> object:
        if not self.still_listed:
            self.values.pop("b", None)
        if key == "b" and self.still_listed:
            raise KeyError(key)
        return self.values.get(key) if self.silent else self.values[key]


@pytest.mark.parametrize("silent", [True, False])
def test_a_key_that_goes_while_it_is_read_is_left_out(shelf: Shelf, silent: bool) -> None:
    assert keys_of(shelf.source(Forgetful(silent))) == ["a", "none"]


def test_a_key_that_is_listed_and_never_there_is_an_error(shelf: Shelf) -> None:
    with pytest.raises(SourceUnavailable, match=r"get_state\('b'\) raises KeyError"):
        read(shelf.source(Forgetful(silent=False, still_listed=True)))


def test_a_value_that_changes_while_it_is_looped_over_is_said_to_change(shelf: Shelf) -> None:
    class Busy(Bag):
        def get_state(self, key: str) -> object:
            raise RuntimeError("dictionary changed size during iteration")

    with pytest.raises(SourceChanged, match="changed size"):
        read(shelf.source(Busy(a=1)))


# -- async, and points in time


class Later(Bag):
    """An async object whose lock belongs to the loop it was first used on."""

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        self.lock = asyncio.Lock()
        self.threads: set[str] = set()
        self.batches: list[int] = []

    async def _once(self) -> None:
        async with self.lock:
            await asyncio.sleep(0)
            self.threads.add(threading.current_thread().name)

    async def get_keys_by_pattern(self, pattern: str) -> AsyncIterator[str]:  # type: ignore[override]
        for key in self.values:
            await self._once()
            yield key

    async def get_state(self, key: str) -> object:
        await self._once()
        return self.values[key]

    async def set_state(self, key: str, value: object) -> None:  # type: ignore[override]
        raise AssertionError("the object offers batches")

    async def batch_set_state(self, values: dict[str, object]) -> None:
        await self._once()
        self.batches.append(len(values))
        self.values |= values

    async def delete_state(self, key: str) -> None:
        await self._once()
        del self.values[key]


def test_an_async_object_is_always_used_on_the_same_loop(shelf: Shelf) -> None:
    later = Later(a=1, b=None)
    source = shelf.source(later)
    rows = read(source)
    later.values = {"b": 5, "c": 6}
    restore(rows, source)
    assert later.values == {"a": 1, "b": None}
    assert keys_of(source) == ["a", "b"]
    assert later.threads == {"lastgood-mapping"}


def test_values_are_set_in_batches_where_the_object_can(shelf: Shelf) -> None:
    later = Later()
    restore(read(shelf.source(Bag(**{f"k{n}": n for n in range(1200)}))), shelf.source(later))
    assert sum(later.batches) == len(later.values) == 1200
    assert len(later.batches) == 3


def test_an_async_call_that_takes_too_long_is_the_source_being_away(shelf: Shelf) -> None:
    class Stuck(Later):
        async def get_state(self, key: str) -> object:
            await asyncio.Event().wait()
            return None

    with pytest.raises(SourceUnavailable, match="took longer than"):
        read(shelf.source(Stuck(a=1), timeout_seconds=0.05))


class Moments(Store):
    """Has points in time; the state goes on changing after each reading."""

    def __init__(self, **values: object) -> None:
        super().__init__(**values)
        self.open = 0

    def get_state(self, key: str) -> object:
        raise AssertionError("only snapshots are read")

    def create_snapshot(self) -> Bag:
        owner, values = self, copy.deepcopy(self.values)
        self.open += 1

        class Snapshot(Bag):
            def get_state(self, key: str) -> object:
                owner.values = {"later": owner.values}
                return super().get_state(key)

            def close(self) -> None:
                owner.open -= 1

        return Snapshot(**values)


def test_a_snapshot_is_what_is_read_and_is_closed(shelf: Shelf) -> None:
    moments = Moments(a=[1], b=[2], c=[3])
    source = shelf.source(moments, part_size_bytes=1)
    with source.view() as view:
        assert view.warnings == ()
        assert moments.open == 1
    assert sorted(read(source).column("value").to_pylist()) == ["[1]", "[2]", "[3]"]
    assert moments.open == 0
    assert keys_of(source) == ["later"]


def test_without_points_in_time_the_backup_says_so(shelf: Shelf) -> None:
    with shelf.source(Bag(a=1)).view() as view:
        assert "create_snapshot" in view.warnings[0]


@pytest.mark.parametrize("answer", [object(), "snapshot-7", True, 7, ["a"]])
def test_a_snapshot_that_cannot_be_read_is_refused(shelf: Shelf, answer: object) -> None:
    source = shelf.source(type("S", (Bag,), {"create_snapshot": lambda self: answer})(a=1))
    with pytest.raises(ConfigurationError, match=r"create_snapshot\(\) (has no method|answered a)"), source.view():
        pass


def test_a_snapshot_that_is_none_falls_back_to_reading(shelf: Shelf) -> None:
    async def later(self: Bag) -> None:
        return None

    for answer in (lambda self: None, later):
        source = shelf.source(type("S", (Bag,), {"create_snapshot": answer})(a=1))
        with source.view() as view:
            assert "create_snapshot() answered None" in view.warnings[0]
        assert read(source).to_pylist() == [{"key": "a", "value": "1"}]


def test_a_snapshot_that_is_a_dict_is_the_state(shelf: Shelf) -> None:
    class Frozen(Bag):
        def create_snapshot(self) -> dict[str, object]:
            return {"a:1": 1, "a:2": None, "b:1": 3}

        def get_state(self, key: str) -> object:
            raise AssertionError("only the snapshot is read")

    frozen = Frozen(**{"a:1": "live", "c": "live"})
    with shelf.source(frozen).view() as view:
        assert view.warnings == ()
    assert read(shelf.source(frozen)).to_pylist() == [
        {"key": "a:1", "value": "1"},
        {"key": "a:2", "value": "null"},
        {"key": "b:1", "value": "3"},
    ]
    assert keys_of(shelf.source(frozen, patterns=["a:*"])) == ["a:1", "a:2"]
    regular = type("Regular", (Frozen,), {"get_keys_by_pattern": lambda self, pattern: ["a:1"]})()
    assert keys_of(shelf.source(regular, patterns=["^a"])) == ["a:1"], "the object says what its patterns mean"
    odd = type("Odd", (Bag,), {"create_snapshot": lambda self: {1: 2}})()
    with pytest.raises(UnsupportedState, match="key 1, which is no text"):
        read(shelf.source(odd))


@pytest.mark.parametrize("answer", ["abc", b"abc", bytearray(b"a"), None, 7, True])
def test_keys_that_come_as_something_else_are_refused(shelf: Shelf, answer: object) -> None:
    source = shelf.source(type("S", (Bag,), {"get_keys_by_pattern": lambda self, pattern: answer})(a=1))
    with pytest.raises(UnsupportedState, match=r"get_keys_by_pattern\('\*'\) answered .* no list of keys"):
        read(source)


@pytest.mark.parametrize("kind", [list, tuple, set, dict.fromkeys, iter])
def test_keys_may_come_in_any_collection(shelf: Shelf, kind: Any) -> None:
    source = shelf.source(type("S", (Bag,), {"get_keys_by_pattern": lambda self, pattern: kind(["a", "b"])})(a=1, b=2))
    assert keys_of(source) == ["a", "b"]


# -- values that cannot be kept


def test_values_that_cannot_be_kept_are_left_out_with_a_warning_where_the_plan_says_so(shelf: Shelf) -> None:
    bag = Bag(a=1, lock=threading.Lock(), none=None, deep=[{"x": threading.Event()}])
    source = shelf.source(bag, on_unsupported="skip")
    with source.view() as view:
        reads = [view.read(STATE, bounds, None) for bounds in view.partition(STATE)]
    assert sorted(key for one in reads for key in one.rows.column("key").to_pylist()) == ["a", "none"]
    warnings = sorted(warning for one in reads for warning in one.warnings)
    assert [("'deep'" in w, "'lock'" in w, w.endswith("it is left out.")) for w in warnings] == [
        (True, False, True),
        (False, True, True),
    ]
    with pytest.raises(UnsupportedState, match=r"'(lock|deep)'"):
        read(shelf.source(bag))


def test_a_value_that_cannot_be_read_is_never_left_out(shelf: Shelf) -> None:
    class Broken(Bag):
        def get_state(self, key: str) -> object:
            raise OSError("I/O error")

    with pytest.raises(SourceUnavailable, match="I/O error"):
        read(shelf.source(Broken(a=1), on_unsupported="skip"))


def test_code_that_wants_to_end_the_process_wherever_it_is_has_failed(shelf: Shelf) -> None:
    class Rude:
        def __getattr__(self, name: str) -> object:
            raise SystemExit(0)

    class Words(Exception):
        def __str__(self) -> str:
            raise SystemExit(0)

    def wordy(self: Bag, key: str) -> object:
        raise Words

    def listing(self: Bag, pattern: str) -> Any:
        yield "a"
        raise SystemExit(0)

    def cancelled(self: Bag, key: str) -> object:
        raise asyncio.CancelledError

    rude = shelf.source(Rude())
    with pytest.raises(LastgoodError), rude.view():
        pass
    for method in ({"get_state": wordy}, {"get_keys_by_pattern": listing}, {"get_state": cancelled}):
        with pytest.raises(SourceUnavailable):
            read(shelf.source(type("S", (Bag,), method)(a=1)))
