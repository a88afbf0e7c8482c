"""What every source has to do: the contract of blocks/sources/source.py, run with the adapter of each."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from blocks.errors import LastgoodError, RestoreRefused, SourceUnavailable
from blocks.rows.canonical import to_canonical
from blocks.rows.selection import Selection
from blocks.rows.variant import to_variant, variant_field
from blocks.sources.target import RestoreMode
from blocks.sources.view import Estimating, View, read_whole
from tests.conformance.chains import apply_all, back_up, content_of, follow_up, index_of, restore
from tests.conformance.suite import SourceAdapter, beside, selected

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
SEEDS = (1, 2, 3)


# -- views


def test_a_state_is_several_parts_that_hold_every_row_once(filled: SourceAdapter) -> None:
    kept = back_up(filled.source)
    assert sum(len(pieces) for pieces in kept.pieces.values()) > 1
    kept.content()  # asserts that no key is in two parts


def test_a_view_that_says_how_much_there_is_says_about_what_is_read(filled: SourceAdapter) -> None:
    with filled.source.view() as view:
        estimated = view.estimated_bytes() if isinstance(view, Estimating) else None
        read = sum(
            read_whole(view, spec, bounds).rows.nbytes for spec in view.collections() for bounds in view.partition(spec)
        )
    assert estimated is None or estimated > read / 4


def test_old_bounds_cover_what_came_and_moved_since(filled: SourceAdapter, rng: random.Random) -> None:
    old = back_up(filled.source)
    for key in ("!", "0", "k:", "k:999", "zzz", "ü", "~~~"):
        filled.put(key, 5)
    for _ in range(3):
        filled.mutate(rng)
    new = back_up(filled.source)
    later = follow_up(filled.source, old, tracked=False)
    assert later.content(filled.essence) == new.content(filled.essence)


def test_bounds_drawn_from_nothing_cover_everything(state: SourceAdapter, rng: random.Random) -> None:
    empty = back_up(state.source)
    assert all(len(pieces) >= 1 for pieces in empty.pieces.values())
    state.fill(rng)
    now = back_up(state.source)
    if {n: s.fingerprint for n, s in now.specs.items()} == {n: s.fingerprint for n, s in empty.specs.items()}:
        later = follow_up(state.source, empty, tracked=False)
        assert later.content(state.essence) == now.content(state.essence)


def test_reading_twice_gives_the_same(filled: SourceAdapter) -> None:
    with filled.source.view() as view:
        specs = list(view.collections())
        assert [spec.fingerprint for spec in view.collections()] == [spec.fingerprint for spec in specs]
        for spec in specs:
            bounds = list(view.partition(spec))
            once, again = ([view.read(spec, b, None).rows for b in bounds] for _ in range(2))
            assert content_of(spec, once) == content_of(spec, again)
        view.finish()
    assert back_up(filled.source).content() == back_up(filled.source).content()


def test_parts_may_be_read_from_several_threads_in_any_order(filled: SourceAdapter) -> None:
    with filled.source.view() as view:
        for spec in view.collections():
            bounds = list(view.partition(spec))
            one_by_one = [view.read(spec, b, None).rows for b in bounds]
            with ThreadPoolExecutor(4) as pool:
                at_once = list(pool.map(lambda b, s=spec: view.read(s, b, None).rows, reversed(bounds)))
            assert content_of(spec, at_once) == content_of(spec, one_by_one)
        view.finish()


def test_a_view_says_what_it_is(filled: SourceAdapter) -> None:
    with filled.source.view() as view:
        assert view.taken_at.utcoffset() is not None
        assert view.system
        for spec in view.collections():
            columns = {name for name, _ in spec.columns}
            assert spec.key
            assert columns >= {*spec.key, *spec.label, *spec.tracking}
            assert not set(spec.key) & set(spec.tracking)


def test_labels_are_the_keys_that_people_type(filled: SourceAdapter) -> None:
    kept, globs = back_up(filled.source), ("k:*",)
    found = sum(
        Selection(keys=globs).rows(rows, spec.label).num_rows
        for name, spec in kept.specs.items()
        for rows in kept.rows(name)
    )
    assert found >= len(selected(filled.picture(), globs)) > 0


def test_rows_are_of_canonical_types(filled: SourceAdapter) -> None:
    with filled.source.view() as view:
        for spec in view.collections():
            for bounds in view.partition(spec):
                to_canonical(view.read(spec, bounds, None).rows)


# -- changes


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_known_never_changes_what_is_seen(filled: SourceAdapter, seed: int) -> None:
    rng = random.Random(seed)
    tracked = plain = back_up(filled.source)
    for _ in range(4):
        filled.mutate(rng)
        filled.settle()
        tracked, plain = follow_up(filled.source, tracked), follow_up(filled.source, plain, tracked=False)
        known = tracked.content()
        assert known == plain.content()
        assert plain.content(filled.essence) == back_up(filled.source).content(filled.essence)
        for name, rows in known.items():
            assert sum(map(len, index_of(tracked, name))) == len(rows)


def one_step(state: SourceAdapter, step: str) -> None:
    if step == "added":
        state.put("a:99", 5)
    elif step == "changed":
        state.put("k:00", 11)
    elif step == "deleted":
        state.remove("k:00")
    elif step == "moved":
        state.remove("k:00")
        state.put("z:99", 10)
    elif step == "put again":
        state.remove("k:00")
        state.put("k:00", 10)


@pytest.mark.parametrize("step", ["added", "changed", "deleted", "moved", "put again"])
def test_one_step_between_two_views_is_seen(filled: SourceAdapter, step: str) -> None:
    filled.put("k:00", 10)
    filled.settle()
    base = back_up(filled.source)
    one_step(filled, step)
    now = back_up(filled.source).content(filled.essence)
    assert now != base.content(filled.essence) or step == "put again"
    for tracked in (True, False):
        assert follow_up(filled.source, base, tracked).content(filled.essence) == now


@pytest.mark.parametrize("step", ["added", "changed", "deleted", "moved"])
def test_equal_tokens_mean_that_nothing_changed(filled: SourceAdapter, step: str) -> None:
    filled.put("k:00", 10)
    filled.settle()
    with filled.source.view() as view:
        before = view.token
    one_step(filled, step)
    with filled.source.view() as view:
        after = view.token
    assert before is None or before != after


def test_nothing_changed_is_an_empty_incremental(filled: SourceAdapter) -> None:
    filled.settle()
    base = back_up(filled.source)
    again = follow_up(filled.source, base)
    assert again.content() == base.content()
    assert follow_up(filled.source, again).content() == base.content()


def test_an_emptied_state_is_all_tombstones(filled: SourceAdapter) -> None:
    base = back_up(filled.source)
    filled.clear()
    assert filled.picture() == {}
    place = filled.place()
    now = back_up(filled.source)
    if now.specs.keys() == base.specs.keys():
        now = follow_up(filled.source, base)
        restore(now, filled.source, place)
        assert filled.picture(place) == {}


# -- restores


def test_a_whole_restore_to_another_place_equals_the_picture(filled: SourceAdapter) -> None:
    place, before = filled.place(), filled.picture()
    kept = back_up(filled.source)
    restore(kept, filled.source, place)
    assert filled.picture(place) == before
    assert filled.picture() == before
    assert back_up(filled.source.at(place)).content() == kept.content()


def test_an_empty_state_is_restored_empty(state: SourceAdapter) -> None:
    place = state.place()
    restore(back_up(state.source), state.source, place)
    assert state.picture(place) == state.picture() == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chain_brings_every_state_back(filled: SourceAdapter, seed: int) -> None:
    rng = random.Random(seed)
    kept = [(back_up(filled.source), filled.picture())]
    for n in range(3):
        filled.mutate(rng)
        kept.append((follow_up(filled.source, kept[-1][0], tracked=n != 1), filled.picture()))
    for chain, picture in kept:
        place = filled.place()
        restore(chain, filled.source, place)
        assert filled.picture(place) == picture


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize("live", [True, False])
def test_modes_differ_in_what_the_backup_does_not_know(
    filled: SourceAdapter, rng: random.Random, mode: RestoreMode, live: bool
) -> None:
    wanted, kept = filled.picture(), back_up(filled.source)
    for _ in range(3):
        filled.mutate(rng)
    place = None if live else filled.place()
    if place:
        restore(back_up(filled.source), filled.source, place)
    there = filled.picture(place)
    assert there != wanted
    restore(kept, filled.source, place, mode)
    assert filled.picture(place) == (wanted if mode is EXACT else there | wanted)


@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_other_keys_than_the_selected_ones_are_left_alone(
    filled: SourceAdapter, rng: random.Random, mode: RestoreMode
) -> None:
    globs = ("k:*", "a:?[0-4]")
    wanted, kept = filled.picture(), back_up(filled.source)
    for _ in range(3):
        filled.mutate(rng)
    filled.put("k:98", 1)
    there = filled.picture()
    restore(kept, filled.source, None, mode, globs)
    now = filled.picture()
    asked = selected(wanted, globs)
    assert beside(now, globs) == beside(there, globs)
    assert selected(now, globs) == (asked if mode is EXACT else selected(there, globs) | asked)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_an_aborted_restore_leaves_the_target_as_it_was(
    filled: SourceAdapter, rng: random.Random, live: bool, mode: RestoreMode
) -> None:
    kept = back_up(filled.source)
    filled.mutate(rng)
    place = None if live else filled.place()
    before = filled.picture(place)
    scope = kept.scope(mode)
    target = filled.source.target(scope, place)
    target.preflight()
    apply_all(kept, target, scope)
    target.abort()
    assert filled.picture(place) == before
    target.abort()  # twice is once


def test_abort_after_commit_undoes_nothing(filled: SourceAdapter, rng: random.Random) -> None:
    before, kept = filled.picture(), back_up(filled.source)
    filled.mutate(rng)
    scope = kept.scope()
    target = filled.source.target(scope)
    target.preflight()
    apply_all(kept, target, scope)
    target.commit()
    target.abort()
    assert filled.picture() == before
    assert all(isinstance(note, str) for note in target.notes)


def test_an_unwritable_place_is_refused_before_the_first_write(filled: SourceAdapter) -> None:
    kept = back_up(filled.source)
    with pytest.raises((RestoreRefused, SourceUnavailable)):
        filled.source.target(kept.scope(), filled.unwritable()).preflight()


def test_columns_may_come_as_variants_and_without_type(filled: SourceAdapter) -> None:
    """Merging promotes a column whose type differs between backups, and an all-NULL column may have no type."""
    kept, picture, place = back_up(filled.source), filled.picture(), filled.place()
    for name, pieces in kept.pieces.items():
        for piece in pieces:
            piece.segments = [widened(rows, kept.specs[name].key) for rows in piece.segments]
    restore(kept, filled.source, place)
    assert filled.picture(place) == picture


def widened(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    columns, fields = [], []
    for column, field in zip(rows.columns, rows.schema, strict=True):
        plain = field.type in (pa.int64(), pa.float64(), pa.large_string(), pa.large_binary()) and not field.metadata
        if field.name in (*key, "_key") or not plain:
            columns.append(column)
            fields.append(field)
        elif column.null_count == len(column):
            columns.append(pa.nulls(len(column)))
            fields.append(pa.field(field.name, pa.null()))
        else:
            columns.append(to_variant(column))
            fields.append(variant_field(field.name))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def test_a_source_that_is_not_there_is_an_error_of_ours(state: SourceAdapter) -> None:
    with pytest.raises(LastgoodError), state.source.at(state.unwritable()).view() as view:
        back_up_view(view)


def back_up_view(view: View) -> None:
    for spec in view.collections():
        for bounds in view.partition(spec):
            view.read(spec, bounds, None)
