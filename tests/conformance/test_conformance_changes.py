"""What every source promises of a restore's change list: by record it is what the restore then does, and no more."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.rows.canonical import DIGEST, KEY
from blocks.rows.digest import RowDigest
from blocks.rows.normalize import to_normal
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline.chain import Chain
from flows.restore import make_restore
from flows.restoring.change_list import ChangeList
from flows.restoring.records import RecordChanges, record_changes
from flows.restoring.request import RestoreRequest
from flows.restoring.undo import find_undo
from flows.undo import make_undo
from tests.conformance.chains import back_up, holder_of
from tests.conformance.suite import SourceAdapter
from tests.conformance.test_conformance_flows import plan_of
from tests.conformance.test_conformance_undo import CASES, changed

Records = dict[str, dict[bytes, int]]


def records(plan: BackupPlan) -> Records:
    """Read all there is: the digest of each record by its key, for each collection."""
    digest = RowDigest(bytes(32))
    found: Records = {}
    with plan.sources["state"].view() as view:
        for spec in view.collections():
            here = found.setdefault(f"state/{spec.name}", {})
            for bounds in view.partition(spec):
                rows = view.read(spec, bounds, None).rows
                if rows.num_columns:
                    kept = [name for name in rows.column_names if name not in spec.tracking]
                    normal = to_normal(rows.select(kept), spec.key, digest)
                    here |= zip(normal.column(KEY).to_pylist(), normal.column(DIGEST).to_pylist(), strict=True)
    return found


def listed(plan: BackupPlan, wanted: RestoreRequest) -> dict[str, RecordChanges]:
    repository = plan.repository.unlock(plan.encryption)
    chain = Chain(repository, repository.backups(plan.name)[-1])
    chain.open_data(plan.sources)
    with plan.sources["state"].view() as view:
        return {one.collection: one for one in record_changes(ChangeList(plan, chain, wanted), "state", view, {})}


def differences(before: Records, after: Records) -> dict[str, tuple[set[bytes], set[bytes], set[bytes]]]:
    found = {}
    for name in {*before, *after}:
        old, new = before.get(name, {}), after.get(name, {})
        altered = {key for key in old.keys() & new.keys() if old[key] != new[key]}
        found[name] = (new.keys() - old.keys(), altered, old.keys() - new.keys())
    return {name: sets for name, sets in found.items() if any(sets)}


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4]], ids=["exact", "merge", "one key"])
def test_a_restore_changes_what_is_on_its_list_and_its_backup_before_holds_that(
    filled: SourceAdapter, rng: random.Random, case: tuple[RestoreMode, tuple[str, ...], bool]
) -> None:
    mode, keys, one = case
    plan = plan_of(filled)
    filled.put("a:01", 76)
    made = make_backup(plan, BackupType.FULL)
    holder = holder_of(back_up(filled.source), "a:01")
    changed(filled, rng)
    selection = Selection((f"state/{holder}",) if one else (), keys)
    before = records(plan)
    on_list = listed(plan, RestoreRequest(selection=selection, mode=mode))
    preview = make_restore(plan, RestoreRequest(made.backup_id, mode=mode, preview=True, selection=selection))
    done = make_restore(plan, RestoreRequest(made.backup_id, mode=mode, selection=selection))
    happened = differences(before, records(plan))
    assert happened
    for name, change in on_list.items():
        added, altered, gone = happened.pop(name, (set(), set(), set()))
        assert set(change.added.to_pylist()) == added
        assert set(change.changed.to_pylist()) == altered
        assert len(gone) == len(change.deleted) + change.replaced
        assert gone.issuperset(change.deleted.to_pylist())
        assert altered | gone <= held_before(plan, done.rescue_id, name)
    assert not happened  # nothing changed that was on no list
    counted = {c.collection: (c.added, c.changed, c.removed) for c in preview.collections}
    assert counted == {name: (len(c.added), len(c.changed), len(c.deleted) + c.replaced) for name, c in on_list.items()}


def held_before(plan: BackupPlan, backup_id: str | None, collection: str) -> set[bytes]:
    """Return the keys that the backup before the restore holds of a collection."""
    assert backup_id is not None
    repository = plan.repository.unlock(plan.encryption)
    chain = Chain(repository, repository.manifest(plan.name, backup_id))
    chain.open_data(plan.sources)
    parts = [part for part in chain.parts(Selection()) if part.collection.name == collection]
    indexes = [chain.index(collection, part.part.number).keys for part in parts]
    return set(pc.unique(pa.concat_arrays([pa.array([], pa.large_binary()), *indexes])).to_pylist())


def test_a_preview_of_an_undo_counts_what_the_undo_does(filled: SourceAdapter, rng: random.Random) -> None:
    plan = plan_of(filled)
    filled.put("a:01", 76)
    make_backup(plan, BackupType.FULL)
    filled.remove("a:01")
    changed(filled, rng)
    filled.remove("k:09")
    make_restore(plan, RestoreRequest(mode=RestoreMode.MERGE))
    filled.put("z:97", 5)  # newer than the merge: no undo removes it
    before = records(plan)
    found = find_undo(plan, plan.repository.unlock(plan.encryption))
    assert found.mode is RestoreMode.MERGE
    preview = make_undo(plan, preview=True)
    make_undo(plan)
    happened = differences(before, records(plan))
    assert {
        c.collection: (c.added, c.changed, c.removed) for c in preview.collections if c.added or c.changed or c.removed
    } == {name: tuple(map(len, sets)) for name, sets in happened.items()}
