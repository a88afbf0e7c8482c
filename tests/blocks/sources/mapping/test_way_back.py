"""Restores into state objects: nothing is overwritten that the backup before the restore does not hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import LastgoodError, Partial, RestoreRefused, SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.mapping import MappingSource
from blocks.sources.mapping.view import STATE
from blocks.sources.target import RestoreMode, RestoreScope, Target
from blocks.sources.view import Salvaging, Unread, View
from tests.blocks.sources.mapping import shop
from tests.blocks.sources.mapping.kit import EXACT, MERGE, Shelf, read, restore
from tests.blocks.sources.mapping.shop import Bag, Store


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf()
    yield made
    for name in made.names:
        delattr(shop, name)


def scope_of(
    source: MappingSource, mode: RestoreMode = EXACT, keys: tuple[str, ...] = (), **fields: Any
) -> RestoreScope:
    patterns = fields.pop("patterns", source.patterns)
    return RestoreScope({"patterns": patterns, "types": []}, ((STATE, 1),), mode, Selection(keys=keys), 1, **fields)


def rows_of(view: View) -> pa.Table:
    return pa.concat_tables([view.read(STATE, bounds, None).rows for bounds in view.partition(STATE)])


def guarded(source: MappingSource, rows: pa.Table, scope: RestoreScope) -> tuple[Target, pa.Table]:
    """Go as far as a restore goes before it commits; return the rows of the backup before it, too."""
    target = source.target(scope)
    target.preflight()
    target.hold()
    with source.salvage() as view:
        target.guard(view)
        before = rows_of(view)
        assert isinstance(view, Salvaging)
        target.keep_aside(view.unread)
    target.begin()
    target.apply(STATE, scope.selection_of("state").rows(rows, STATE.label))
    return target, before


# -- between the backup before a restore and its commit


def set_one(store: Store) -> None:
    store.values["a"] = "later"


def set_doomed(store: Store) -> None:
    store.values["gone"] = "later"


def add(store: Store) -> None:
    store.values["new"] = None


def add_restored(store: Store) -> None:
    store.values["b"] = None


def delete(store: Store) -> None:
    del store.values["a"]


def make_unreadable(store: Store) -> None:
    store.values["a"] = threading.Event()


WRITES = [set_one, set_doomed, add, add_restored, delete, make_unreadable]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("asked", [True, False])
def test_what_was_written_since_stops_the_restore(shelf: Shelf, write: Callable[[Store], None], asked: bool) -> None:
    rows = read(shelf.source(Store(a=1, b=2)))
    store = Store(a="now", gone="now")
    source = shelf.source(store)
    target, _ = guarded(source, rows, scope_of(source))
    write(store)
    then = dict(store.values)
    with pytest.raises(RestoreRefused, match=r"(was written to|somebody else wrote|is of type)"):
        target.check_unwritten() if asked else target.commit()
    assert not target.changed
    target.abort()
    assert store.values == then


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_other_keys_may_be_written_to_all_the_time(shelf: Shelf, mode: RestoreMode) -> None:
    rows = read(shelf.source(Store(**{"a:1": 1})))
    store = Store(**{"a:1": "now", "b:1": "now"})
    source = shelf.source(store)
    target, _ = guarded(source, rows, scope_of(source, mode, ("a:*",)))
    store.values |= {"b:1": "later", "b:2": "new"}
    target.check_unwritten()
    target.commit()
    assert store.values == {"a:1": 1, "b:1": "later", "b:2": "new"}


class Snapping(Store):
    """Has points in time."""

    def create_snapshot(self) -> Bag:
        return Bag(**self.values)


def test_a_point_in_time_is_what_live_values_are_compared_with(shelf: Shelf) -> None:
    rows, store = read(shelf.source(Bag(a=1))), Snapping(a="now")
    source = shelf.source(store)
    target = source.target(scope_of(source))
    with source.salvage() as view:
        target.guard(view)
        store.values["a"] = "after the point in time, before it was read"
        rows_of(view)
    target.apply(STATE, rows)
    with pytest.raises(RestoreRefused, match="key 'a'"):
        target.check_unwritten()


def test_a_key_that_is_written_while_others_are_set_is_not_overwritten(shelf: Shelf) -> None:
    class Busy(Store):
        def set_state(self, key: str, value: object) -> None:
            super().set_state(key, value)
            self.values["c"] = "meanwhile"

    rows, busy = read(shelf.source(Bag(a=1, b=2, c=3))), Busy(a=0, b=0, c=0)
    source = shelf.source(busy)
    target, _ = guarded(source, rows, scope_of(source))
    with pytest.raises(Partial, match="key 'c'"):
        target.commit()
    assert target.changed
    assert busy.values["c"] == "meanwhile"


def test_falsy_and_odd_values_are_no_writes(shelf: Shelf) -> None:
    class Polite(Store):
        """Says None of a key that is not there."""

        def get_state(self, key: str) -> object:
            return self.values.get(key)

    rows = read(shelf.source(Bag(a=None, b=1, nan=float("nan"), big=10**50)))
    polite = Polite(a=0, c=None, nan=float("nan"), s={3, 1, 2})
    source = shelf.source(polite)
    target, _ = guarded(source, rows, scope_of(source))
    target.check_unwritten()
    target.commit()
    assert polite.values.keys() == {"a", "b", "nan", "big"}
    assert polite.values["a"] is None


# -- what cannot be read before


class Holed(Store):
    """Some keys cannot be read."""

    holes = ("bad",)

    def get_state(self, key: str) -> object:
        if key in self.holes:
            raise OSError("I/O error")
        return super().get_state(key)


UNREADABLE = [Holed(a=0, bad=1), Store(a=0, bad=threading.Event()), Store(a=0, bad=[threading.Event()])]


@pytest.mark.parametrize("bad", UNREADABLE)
def test_what_cannot_be_read_is_named_and_the_rest_is_read(shelf: Shelf, bad: Store) -> None:
    with shelf.source(bad).salvage() as view:
        assert rows_of(view).column("key").to_pylist() == ["a"]
        assert isinstance(view, Salvaging)
        ((unread),) = view.unread
    assert (unread.collection, unread.key) == ("state", "bad")
    assert "bad" in unread.reason


def test_a_value_that_is_read_at_the_second_attempt_is_not_missing(shelf: Shelf) -> None:
    class Flapping(Store):
        asked = 0

        def get_state(self, key: str) -> object:
            self.asked += 1
            if self.asked % 3:
                raise RuntimeError("dictionary changed size during iteration")
            return super().get_state(key)

    with shelf.source(Flapping(a=1, b=2)).salvage() as view:
        assert rows_of(view).column("key").to_pylist() == ["a", "b"]
        assert isinstance(view, Salvaging)
        assert view.unread == []


def test_an_object_that_answers_nothing_is_given_up_soon(shelf: Shelf) -> None:
    class Down(Store):
        asked = 0

        def get_state(self, key: str) -> object:
            self.asked += 1
            raise ConnectionError("no route to host")

    down = Down(**{f"k{n}": n for n in range(10_000)})
    with pytest.raises(SourceUnavailable, match="no route to host"), shelf.source(down).salvage() as view:
        rows_of(view)
    assert down.asked < 100


@pytest.mark.parametrize(
    ("mode", "keys", "refused"),
    [(EXACT, (), True), (EXACT, ("bad",), True), (EXACT, ("a",), False), (MERGE, (), False), (MERGE, ("a",), False)],
)
def test_a_key_that_could_not_be_read_is_neither_deleted_nor_lost(
    shelf: Shelf, mode: RestoreMode, keys: tuple[str, ...], refused: bool
) -> None:
    rows, holed = read(shelf.source(Bag(a=1))), Holed(a=0, bad="precious")
    source = shelf.source(holed)
    if refused:
        with pytest.raises(RestoreRefused, match="'bad'"):
            guarded(source, rows, scope_of(source, mode, keys))
        assert holed.values == {"a": 0, "bad": "precious"}
        return
    target, _ = guarded(source, rows, scope_of(source, mode, keys))
    target.check_unwritten()
    target.commit()
    assert holed.values == {"a": 1, "bad": "precious"}


def test_a_key_that_could_not_be_read_is_not_overwritten(shelf: Shelf) -> None:
    rows, holed = read(shelf.source(Bag(a=1, bad=2))), Holed(a=0, bad="precious")
    source = shelf.source(holed)
    with pytest.raises(RestoreRefused, match="key 'bad'"):
        guarded(source, rows, scope_of(source, MERGE))
    assert holed.values == {"a": 0, "bad": "precious"}


def test_an_object_that_cannot_be_read_at_all_is_not_restored_to(shelf: Shelf) -> None:
    source = shelf.source(Store(a=1))
    with pytest.raises(RestoreRefused, match="no route"):
        source.target(scope_of(source)).keep_aside([Unread("no route to host")])


# -- what methods answer, and what they do


def fewer(store: Store, values: dict[str, object]) -> object:
    store.values |= dict(list(values.items())[:-1])
    return len(values) - 1


def refused(store: Store, values: dict[str, object]) -> object:
    return False


def some_refused(store: Store, values: dict[str, object]) -> object:
    first, *rest = values
    store.values |= {key: values[key] for key in rest}
    return {first: False} | dict.fromkeys(rest, True)


def silent(store: Store, values: dict[str, object]) -> object:
    store.values |= dict(list(values.items())[1:])
    return None


def rounded(store: Store, values: dict[str, object]) -> object:
    store.values |= {key: str(value) for key, value in values.items()}
    return True


@pytest.mark.parametrize("answer", [fewer, refused, some_refused, silent, rounded])
def test_a_batch_that_was_not_set_as_a_whole_is_an_error(shelf: Shelf, answer: Callable[..., object]) -> None:
    batching = type("Batching", (Store,), {"batch_set_state": answer})()
    rows = read(shelf.source(Bag(a=1, b=2, c=3)))
    with pytest.raises(Partial):
        restore(rows, shelf.source(batching))


@pytest.mark.parametrize("answer", [None, True, 3, {"a": True}, "OK"])
def test_what_says_nothing_against_it_is_no_error(shelf: Shelf, answer: object) -> None:
    def batch(store: Store, values: dict[str, object]) -> object:
        store.values |= values
        return answer

    batching = type("Batching", (Store,), {"batch_set_state": batch})()
    restore(read(shelf.source(Bag(a=1, b=2, c=3))), shelf.source(batching))
    assert batching.values == {"a": 1, "b": 2, "c": 3}


def test_a_method_that_says_false_or_does_nothing_is_an_error(shelf: Shelf) -> None:
    rows = read(shelf.source(Bag(a=1, b=2)))
    no = type("No", (Store,), {"set_state": lambda self, key, value: False})()
    with pytest.raises(Partial, match="answered False"):
        restore(rows, shelf.source(no))
    idle = type("Idle", (Store,), {"set_state": lambda self, key, value: None})()
    with pytest.raises(Partial, match="do not hold"):
        restore(rows, shelf.source(idle))
    keeping = type("Keeping", (Store,), {"delete_state": lambda self, key: False})(c=3)
    with pytest.raises(Partial, match="still there"):
        restore(rows, shelf.source(keeping))
    assert keeping.values == {"a": 1, "b": 2, "c": 3}


def test_a_batch_that_fails_in_its_middle_changed_something(shelf: Shelf) -> None:
    class Halfway(Store):
        def batch_set_state(self, values: dict[str, object]) -> None:
            self.values |= dict(list(values.items())[:1])
            raise OSError("no space left")

    rows, halfway = read(shelf.source(Bag(a=1, b=2))), Halfway()
    source = shelf.source(halfway)
    target = source.target(scope_of(source))
    target.apply(STATE, rows)
    with pytest.raises(Partial, match="no space left"):
        target.commit()
    assert target.changed
    target.abort()


class Ending(Store):
    """A method wants to end the process."""

    ends = "set_state"
    by: type[BaseException] = SystemExit

    def _end(self, method: str) -> None:
        if method == self.ends:
            raise self.by(0)

    def get_state(self, key: str) -> object:
        self._end("get_state")
        return super().get_state(key)

    def set_state(self, key: str, value: object) -> None:
        self._end("set_state")
        super().set_state(key, value)

    def delete_state(self, key: str) -> None:
        self._end("delete_state")
        super().delete_state(key)


class EndingLater(Ending):
    """The same, async, the last one in a task of its own."""

    async def get_state(self, key: str) -> object:
        return super().get_state(key)

    async def set_state(self, key: str, value: object) -> None:  # type: ignore[override]
        super().set_state(key, value)

    async def delete_state(self, key: str) -> None:  # type: ignore[override]
        async def ending() -> None:
            super(EndingLater, self).delete_state(key)

        await asyncio.ensure_future(ending())


@pytest.mark.parametrize("method", ["get_state", "set_state", "delete_state"])
@pytest.mark.parametrize(
    ("kind", "by"), [(Ending, SystemExit), (EndingLater, SystemExit), (EndingLater, KeyboardInterrupt)]
)
def test_an_object_that_wants_to_end_the_process_has_failed(
    shelf: Shelf, kind: type[Ending], by: type[BaseException], method: str
) -> None:
    rows, ending = read(shelf.source(Bag(a=1, b=2))), kind(b=3, c=4)
    ending.ends, ending.by = method, by
    with pytest.raises((RestoreRefused, Partial)):
        restore(rows, shelf.source(ending))
    restore(rows, shelf.source(Store()))  # the loop of all objects runs on


def test_a_person_who_interrupts_is_obeyed_and_told_what_was_changed(shelf: Shelf) -> None:
    rows, interrupted = read(shelf.source(Bag(a=1, b=2))), Ending(c=4)
    interrupted.ends, interrupted.by = "delete_state", KeyboardInterrupt
    source = shelf.source(interrupted)
    target, _ = guarded(source, rows, scope_of(source))
    with pytest.raises(KeyboardInterrupt):
        target.commit()
    assert target.changed
    target.abort()
    target.abort()


def test_a_module_or_a_factory_that_ends_the_process_has_failed(shelf: Shelf, tmp_path: Any) -> None:
    (tmp_path / "ending_module.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(LastgoodError), MappingSource(object="ending_module:x", search_path=[str(tmp_path)]).view():
        pass

    def factory() -> Bag:
        raise SystemExit(0)

    with pytest.raises(SourceUnavailable), shelf.source(factory).view():
        pass


# -- there and back


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("keys", [(), ("k:1*",)])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_the_backup_before_a_restore_takes_it_back(
    shelf: Shelf, mode: RestoreMode, keys: tuple[str, ...], half: bool
) -> None:
    class Failing(Store):
        left = 10**9

        def set_state(self, key: str, value: object) -> None:
            self.left -= 1
            if self.left < 0:
                raise OSError("no space left")
            super().set_state(key, value)

    rows = read(shelf.source(Bag(**{f"k:{n}": n for n in range(20)})))
    then: dict[str, object] = {f"k:{n}": [n, None] for n in range(10, 30)} | {"other": float("inf")}
    store = Failing(**then)
    source = shelf.source(store)
    target, before = guarded(source, rows, scope_of(source, mode, keys))
    store.left = 5 if half else store.left
    if half:
        with pytest.raises(Partial):
            target.commit()
        store.left = 10**9
    else:
        target.commit()
        assert store.values != then
    back, _ = guarded(source, before, scope_of(source, EXACT, keys))
    back.check_unwritten()
    back.commit()
    assert store.values == then


def test_a_merge_is_taken_back_by_removing_what_it_added(shelf: Shelf) -> None:
    store = Store(a=1, b=2, c=3)
    source = shelf.source(store, patterns=["[ab]"])
    target = source.target(scope_of(source, MERGE))
    with source.salvage() as view:
        target.guard(view)
        rows_of(view)
    target.apply(STATE, pa.table({"key": ["a"], "value": ["7"]}))
    assert target.remove(STATE, pa.table({"key": ["b", "c", "missing"]})) == 1
    target.check_unwritten()
    target.commit()
    assert store.values == {"a": 7, "c": 3}
    without = shelf.source(Bag(a=1))
    with pytest.raises(RestoreRefused, match="no method delete_state"):
        without.target(scope_of(without, MERGE)).remove(STATE, pa.table({"key": ["a"]}))
