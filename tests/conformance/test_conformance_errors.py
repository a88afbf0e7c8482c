"""What every source promises of what goes wrong: it is named, no more than it is lost, and counts are what was done."""

from __future__ import annotations

import os
import random
import re

import pytest

from blocks.errors import BackupNotFound, ConfigurationError, LastgoodError, RestoreRefused
from blocks.records import BackupMetadata, BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline.results import RestoreResult
from flows.restore import make_restore
from flows.restoring.not_rebuilt import RestoredInPart
from flows.restoring.request import RestoreRequest
from tests.conformance.chains import Kept, back_up
from tests.conformance.suite import Cause, Picture, SourceAdapter, Unbuildable
from tests.conformance.test_conformance_flows import plan_of

RESTORES_ONLY = True
EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


def rows_of(result: RestoreResult) -> dict[str, int]:
    return {collection.collection: collection.rows for collection in result.collections}


# -- (a) what cannot be rebuilt


def parted(picture: Picture, odd: Unbuildable) -> tuple[Picture, Picture]:
    """Tell all else from what is an object's own."""
    own = {key: value for key, value in picture.items() if odd.concerns(key)}
    return {key: value for key, value in picture.items() if key not in own}, own


def test_what_cannot_be_rebuilt_holds_nothing_else_back_and_is_named(filled: SourceAdapter, rng: random.Random) -> None:
    odd = filled.put_unbuildable()
    plan, wanted = plan_of(filled), filled.picture()
    made = make_backup(plan, FULL)
    odd.spoil()
    filled.mutate(rng)
    now = filled.picture()
    with pytest.raises(RestoreRefused, match=re.escape(odd.blamed or odd.name)) as refused:
        make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert "--keep-going" in refused.value.hint
    assert filled.picture() == now
    with pytest.raises(RestoredInPart, match=re.escape(odd.name)) as going:
        make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT, keep_going=True))
    assert going.value.exit_code == 11
    [left] = going.value.result.not_rebuilt
    assert (left.source, left.name) == ("state", odd.name)
    assert left.reason
    others, own = parted(filled.picture(), odd)
    assert others == parted(wanted, odd)[0]
    assert own == parted(now, odd)[1]
    assert sum(rows_of(going.value.result).values()) == made.rows - odd.rows


# -- (b) hints fit


def check(error: LastgoodError, cause: Cause) -> None:
    assert error.hint or cause is Cause.OBJECT, error.message
    assert re.search(cause.fitting, error.hint), (error.message, error.hint)
    misled = re.search(cause.misleading, error.hint)
    assert misled is None, (error.message, error.hint)


def test_an_error_names_what_failed_and_its_hint_fits(filled: SourceAdapter) -> None:
    plan = plan_of(filled)
    for fault in filled.faults():
        failing = plan.model_copy(update={"sources": {"state": fault.source or filled.source}})
        with pytest.raises(LastgoodError) as caught:
            make_backup(failing, FULL)
        error = caught.value
        assert error.exit_code in (2, 3), error.message
        assert fault.named in error.message
        assert not [name for name in fault.others if name in error.message], error.message
        check(error, fault.cause)
    assert make_backup(plan, FULL).rows  # and all is well again


def test_what_a_backup_does_not_hold_is_named_and_nothing_is_written(filled: SourceAdapter) -> None:
    plan, before = plan_of(filled), filled.picture()
    make_backup(plan, FULL)
    for selection, named in (
        (Selection(keys=("k:00", "not:there")), "not:there"),
        (Selection(("state/not_there",)), "state/not_there"),
    ):
        with pytest.raises(BackupNotFound, match=named) as caught:
            make_restore(plan, RestoreRequest(mode=EXACT, selection=selection))
        assert "k:00" not in caught.value.message
        assert not re.search("password|server|Grant|damaged", caught.value.hint)
    assert filled.picture() == before


def test_a_place_that_is_not_empty_is_named_with_what_is_there(filled: SourceAdapter) -> None:
    plan, place = plan_of(filled), filled.place()
    make_backup(plan, FULL)
    make_restore(plan, RestoreRequest(mode=EXACT, to=place))
    there = filled.picture(place)
    with pytest.raises(RestoreRefused) as caught:
        make_restore(plan, RestoreRequest(mode=EXACT, to=place))
    assert filled.source.location(place).shown in caught.value.message or place in caught.value.message
    assert re.search(r"there is .*\d.* already", caught.value.message)
    assert all(word in caught.value.hint for word in ("--mode merge", "--overwrite", "empty"))
    assert filled.picture(place) == there


def test_a_place_that_cannot_be_written_is_named(filled: SourceAdapter) -> None:
    plan, place = plan_of(filled), filled.unwritable()
    make_backup(plan, FULL)
    with pytest.raises(LastgoodError) as caught:
        make_restore(plan, RestoreRequest(mode=EXACT, to=place))
    assert caught.value.exit_code in (2, 3, 10)
    where = filled.source.location(place).shown.rpartition(" at ")[2]
    assert any(name in caught.value.message for name in (where, place, os.path.dirname(place))), caught.value.message
    assert not re.search("password|Grant|damaged", caught.value.hint), caught.value.hint
    assert isinstance(caught.value, ConfigurationError) or "Nothing was changed" in caught.value.hint


# -- (c) what is gone (a source as a whole: test_conformance_flows.py)


def test_one_collection_that_is_emptied_or_gone_is_a_warning(filled: SourceAdapter) -> None:
    if (name := filled.add_collection()) is None:
        return
    plan = plan_of(filled)
    before = make_backup(plan, FULL)
    filled.empty_collection(name)
    filled.settle()
    told = f"state/{name} held 2 rows in {before.backup_id}, and holds none now."
    assert told in warnings_of(make_backup(plan, INCREMENTAL))
    again = make_backup(plan, INCREMENTAL)
    assert not [warning for warning in warnings_of(again) if "held" in warning]
    make_restore(plan, RestoreRequest(before.backup_id, mode=EXACT))
    before = make_backup(plan, FULL)
    filled.drop_collection(name)
    filled.settle()
    told = f"state/{name} held 2 rows in {before.backup_id}, and is not there now."
    assert told in warnings_of(make_backup(plan, INCREMENTAL))


def warnings_of(made: BackupMetadata) -> list[str]:
    return [warning for source in made.sources for warning in source.warnings]


# -- (d) counts


def counted(kept: Kept, keys: tuple[str, ...] = ()) -> dict[str, int]:
    """Count the rows of a source by itself."""
    selection = Selection(keys=keys)
    return {
        f"state/{name}": sum(selection.rows(rows, spec.label).num_rows for rows in kept.rows(name) if rows.num_columns)
        for name, spec in kept.specs.items()
    }


def test_the_rows_that_are_reported_are_those_that_are_there(filled: SourceAdapter, rng: random.Random) -> None:
    plan, globs = plan_of(filled), ("k:*",)
    kept = back_up(filled.source)
    made = make_backup(plan, FULL)
    assert {c.name: c.rows for c in made.collections} == counted(kept)
    place = filled.place()
    elsewhere = make_restore(plan, RestoreRequest(mode=EXACT, to=place))
    assert rows_of(elsewhere) == counted(back_up(filled.source.at(place))) == counted(kept)
    filled.mutate(rng)
    some = make_restore(plan, RestoreRequest(made.backup_id, mode=MERGE, selection=Selection(keys=globs)))
    chosen = counted(kept, globs)
    assert {name: rows for name, rows in rows_of(some).items() if rows} == {n: r for n, r in chosen.items() if r}
    whole = make_restore(plan, RestoreRequest(made.backup_id, mode=EXACT))
    assert rows_of(whole) == counted(back_up(filled.source))
