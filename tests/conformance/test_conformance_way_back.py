"""What every source promises of restores: nothing goes that cannot be brought back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.target import RestoreMode
from tests.conformance.chains import apply_all, back_up, guarded, holder_of, ready, restore, restore_in_place
from tests.conformance.children import Child
from tests.conformance.suite import Picture, SourceAdapter, beside

RESTORES_ONLY = True
EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
BLOCKED_SECONDS = 0.3
"""A writer that has not come through by then is taken to wait for a lock; one that has not yet begun may be, too."""


# -- (1) places


def test_the_live_place_is_the_same_in_every_spelling(filled: SourceAdapter) -> None:
    live = filled.source.location()
    assert live.same(filled.source.location())
    for spelled in filled.spellings():
        assert live.same(filled.source.location(spelled)), spelled
        assert live.same(filled.source.at(spelled).location()), spelled


def test_another_place_is_another_before_and_after_something_is_there(filled: SourceAdapter) -> None:
    live, place, other = filled.source.location(), filled.place(), filled.place()
    for _ in range(2):
        assert not live.same(filled.source.location(place))
        assert not filled.source.location(other).same(filled.source.location(place))
        assert filled.source.location(place).same(filled.source.location(place))
        restore(back_up(filled.source), filled.source, place)


# -- (2) coverage


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_what_the_plan_leaves_out_now_is_neither_written_nor_deleted(
    filled: SourceAdapter, rng: random.Random, mode: RestoreMode
) -> None:
    first, kept = filled.picture(), back_up(filled.source)
    for _ in range(3):
        filled.mutate(rng)
    now = filled.picture()
    narrow, left_out = filled.narrowed()
    assert any(left_out(key) for key in first.keys() ^ now.keys() | _changed(first, now))
    restore_in_place(kept, narrow, mode)
    assert filled.picture() == _mixed(first if mode is EXACT else now | first, now, left_out)


def _changed(first: Picture, now: Picture) -> set[tuple[str, str]]:
    return {key for key in first.keys() & now.keys() if first[key] != now[key]}


def _only(picture: Picture, chosen: Callable[[tuple[str, str]], bool]) -> Picture:
    return {key: value for key, value in picture.items() if chosen(key)}


def _mixed(wanted: Picture, kept: Picture, left_out: Callable[[tuple[str, str]], bool]) -> Picture:
    return _only(kept, left_out) | _only(wanted, lambda key: not left_out(key))


def test_what_the_backup_did_not_cover_is_not_deleted(filled: SourceAdapter, rng: random.Random) -> None:
    narrow, left_out = filled.narrowed()
    first, kept = filled.picture(), back_up(narrow)
    for _ in range(3):
        filled.mutate(rng)
    now = filled.picture()
    restore_in_place(kept, filled.source)
    assert filled.picture() == _mixed(first, now, left_out)


# -- (3) there and back

RestoreCase = tuple[RestoreMode, tuple[str, ...], bool]
CASES = [(EXACT, (), False), (MERGE, (), False), (EXACT, ("k:0*",), False), (MERGE, ("a:01",), True)]


@pytest.mark.parametrize("case", CASES, ids=["exact", "merge", "some keys", "one key"])
def test_a_restore_is_taken_back_by_the_backup_before_it(
    filled: SourceAdapter, rng: random.Random, case: RestoreCase
) -> None:
    mode, keys, one = case
    filled.put("a:01", 76)
    kept = back_up(filled.source)
    for _ in range(3):
        filled.mutate(rng)
    if keys:
        filled.put("a:01", 77)
        filled.put("k:00", 78)
        filled.put("k:09", 79)
    now = filled.picture()
    names = (holder_of(kept, "a:01") if keys else next(iter(kept.specs)),) if one else ()
    before = restore_in_place(kept, filled.source, mode, keys, names)
    restored = filled.picture()
    assert restored != now
    if keys:
        assert beside(restored, keys) == beside(now, keys)
    again = restore_in_place(before, filled.source, EXACT, keys, names)
    assert filled.picture() == now
    restore_in_place(again, filled.source, EXACT, keys, names)  # an undo can be undone
    assert filled.picture() == restored


# -- (4) what is written meanwhile

WRITES: dict[str, Callable[[SourceAdapter], None]] = {
    "changed": lambda state: state.put("k:00", 4711),
    "deleted": lambda state: state.remove("b:02"),
    "added": lambda state: state.put("z:99", 4711),
}
KEYS = {"changed": "k:00", "deleted": "b:02", "added": "z:99"}


@pytest.mark.parametrize(("write", "asked"), [*((write, True) for write in WRITES), ("changed", False)])
def test_what_is_written_before_the_commit_is_never_lost(filled: SourceAdapter, write: str, asked: bool) -> None:
    filled.put("k:00", 10)
    kept = back_up(filled.source)
    filled.put("k:00", 11)
    filled.put("a:01", 12)
    scope = kept.scope()
    target = filled.source.target(scope)
    with ThreadPoolExecutor(1) as writer:
        try:
            before = ready(kept, filled.source, target, scope)
            if not asked:
                target.check_unwritten()
            written = writer.submit(WRITES[write], filled)
            waited = not _came_through(written)
            then = {} if waited else filled.picture()
            try:
                if asked:
                    target.check_unwritten()
                target.commit()
                refused = False
            except RestoreRefused:
                refused = True
                assert not target.changed
        finally:
            target.abort()
    now = filled.picture()
    if waited:
        assert not refused
        assert written.exception() is not None or now == _again(filled, write), "it was acknowledged"
    elif refused:
        assert now == then
        restore_in_place(before, filled.source)  # and the way back is open
    else:
        assert not asked
        # who writes in the last moment before the commit may be too late to stop it, but loses nothing
        meanwhile = [then[key] for key in then if key[1] == KEYS[write]]
        there = [*now.values(), *filled.kept_aside(target.notes)]
        assert all(record in there for record in meanwhile), "it is in neither"


def _again(state: SourceAdapter, write: str) -> Picture:
    with suppress(KeyError, OSError):  # it is deleted already
        WRITES[write](state)
    return state.picture()


def _came_through(written: Future[None]) -> bool:
    with suppress(TimeoutError):
        written.result(BLOCKED_SECONDS)
        return True
    return False


# -- (5) giving up

STEPS = ["preflight", "hold", "guard", "begin", "apply", "unwritten"]


@pytest.mark.parametrize(("last", "mode"), [*((step, EXACT) for step in STEPS), (STEPS[-1], MERGE)])
def test_giving_up_after_any_step_leaves_everything_as_it_was(
    filled: SourceAdapter, rng: random.Random, mode: RestoreMode, last: str
) -> None:
    source, kept = filled.source, back_up(filled.source)
    filled.mutate(rng)
    now = filled.picture()
    scope = kept.scope(mode)
    target = source.target(scope)
    steps: list[Callable[[], object]] = [
        target.preflight,
        target.hold,
        lambda: guarded(source, target),
        target.begin,
        lambda: apply_all(kept, target, scope, source),
        target.check_unwritten,
    ]
    for step in steps[: STEPS.index(last) + 1]:
        step()
    assert not target.changed
    target.abort()
    target.abort()
    assert filled.picture() == now
    filled.put("a:55", 5)  # nobody is kept from writing any more
    restore_in_place(kept, filled.source)


# -- (6) what is at another place


def test_a_place_is_empty_until_something_is_there(filled: SourceAdapter) -> None:
    kept, place = back_up(filled.source), filled.place()
    scope = replace(kept.scope(), in_place=False)
    assert filled.source.target(scope, place).occupied() is None
    restore(kept, filled.source, place)
    there = filled.source.target(scope, place).occupied()
    assert there
    assert any(character.isdigit() for character in there), "it says how much is there"
    assert filled.source.target(scope).occupied()


def test_a_strangers_thing_is_never_replaced(filled: SourceAdapter) -> None:
    if (place := filled.stranger()) is None:
        return
    kept, content = back_up(filled.source), Path(place).read_bytes()
    scope = replace(kept.scope(), in_place=False, overwrite=True)
    with pytest.raises(RestoreRefused) as caught:
        filled.source.target(scope, place).preflight()
    assert "damage" not in caught.value.message
    assert Path(place).read_bytes() == content


# -- (7) taking a merge back


def test_records_that_a_merge_added_can_be_removed(filled: SourceAdapter) -> None:
    filled.put("k:00", 10)
    before = back_up(filled.source)
    filled.put("z:01", 1)
    filled.put("z:02", 2)
    after = back_up(filled.source)
    filled.put("z:03", 3)
    filled.put("k:00", 12)
    now = filled.picture()
    scope = replace(before.scope(MERGE))
    target = filled.source.target(scope)
    try:
        target.preflight()
        target.hold()
        guarded(filled.source, target)
        removed = 0
        for name, spec in after.specs.items():
            for rows in after.rows(name):
                if rows.num_columns:
                    labels = scope.selection_of(name)
                    chosen = replace(labels, keys=("z:0[12]",)).rows(rows, spec.label)
                    removed += target.remove(spec, chosen) if chosen.num_rows else 0
        assert removed >= 2
        target.check_unwritten()
        target.commit()
    finally:
        target.abort()
    assert filled.picture() == beside(now, ("z:01", "z:02"))


def test_a_collection_that_a_restore_created_goes_when_it_is_taken_back(filled: SourceAdapter) -> None:
    if (name := filled.add_collection()) is None:
        return
    with_it, kept = filled.picture(), back_up(filled.source)
    filled.drop_collection(name)
    now = filled.picture()
    before = restore_in_place(kept, filled.source, EXACT, names=(name,))
    assert filled.picture() == with_it
    restore_in_place(before, filled.source, EXACT, names=(name,), created=(name,))
    assert filled.picture() == now


# -- (8) killed


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Hold all temporary data; its path is short, for it may hold sockets."""
    with TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.parametrize("live", [True, False])
def test_what_a_killed_restore_left_goes_with_the_next_one(
    filled: SourceAdapter, rng: random.Random, temporary: Path, live: bool
) -> None:
    kept, place = back_up(filled.source), None if live else filled.outside()
    filled.mutate(rng)
    clean = filled.leftovers()
    scope = replace(kept.scope(), in_place=live)

    def stage() -> None:
        target = filled.source.target(scope, place)
        target.preflight()
        target.begin()
        apply_all(kept, target, scope, filled.source)

    Child(stage, lambda: None).kill()
    restore(kept, filled.source, place)
    assert filled.leftovers() <= clean
    assert os.listdir(temporary) == []
    there = filled.source if place is None else filled.source.at(place)
    assert back_up(there).content(filled.essence) == kept.content(filled.essence)


def test_what_a_restore_that_runs_has_staged_stays(filled: SourceAdapter, temporary: Path) -> None:
    kept, place = back_up(filled.source), filled.outside()
    scope = replace(kept.scope(), in_place=False)
    staged = []

    def stage() -> None:
        target = filled.source.target(scope, place)
        target.preflight()
        target.begin()
        apply_all(kept, target, scope, filled.source)
        staged.append(target)

    child = Child(stage, lambda: staged[0].commit())
    other = filled.source.target(scope, filled.outside())
    same = filled.source.target(scope, place)
    try:
        other.preflight()
        same.preflight()
    finally:
        other.abort()
        same.abort()
    assert child.go_on() == ""
    assert back_up(filled.source.at(place)).content(filled.essence) == kept.content(filled.essence)
