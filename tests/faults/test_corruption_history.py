"""Objects swapped, doubled, removed and rolled back: always detected and named; and what the next backup does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected, WrongKey
from blocks.records import BackupStatus, BackupType
from flows.backup import make_backup
from flows.check import check_repository
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.faults.damage import EVERYWHERE, hard_copy, in_blob, rewrite
from tests.faults.forging import with_new_epoch
from tests.faults.kept import DIF, FULL, INC1, INC2, SNA, TOP, Kept, names_it, record_of
from tests.faults.live_state import PLAN, LiveState, make_plan, restored

MODELS, ORDERS, TREE = "ledger/models", "ledger/orders", "models/tree"

REPLACED = {
    "a part of the same backup": (FULL, ORDERS, 0),
    "the same part of another backup": (DIF, MODELS, 1),
    "the same part of the snapshot": (SNA, MODELS, 1),
}


@pytest.mark.parametrize("kind", ["data", "index"])
@pytest.mark.parametrize("other", REPLACED.values(), ids=REPLACED.keys())
def test_a_blob_in_the_place_of_another_is_refused(kept, copy, kind, other):
    name = kept.object_of(FULL, MODELS, 1, kind)
    theirs = content(kept, copy, *other, kind)
    in_blob(kept.blob_of(FULL, MODELS, 1, kind), lambda path: rewrite(path, theirs))(copy / name)
    harmed = kept.harmed(copy, FULL)
    assert kind in harmed
    said = kept.listen(copy, INC2)
    assert (said.restore is None) is ("data" not in harmed)
    assert said.restore is None or names_it(said.restore, name)
    assert said.status is BackupStatus.CORRUPTED
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


def content(kept: Kept, copy: Path, backup: int, collection: str, part: int, kind: str) -> bytes:
    blob = kept.blob_of(backup, collection, part, kind)
    return (copy / kept.object_of(backup, collection, part, kind)).read_bytes()[blob.offset :][: blob.size_bytes]


def test_two_blobs_of_a_pack_that_changed_places_are_refused(kept, copy):
    """They are of one size, of one backup and under one key."""
    name = kept.object_of(FULL, MODELS, 0, "index")
    places = [(FULL, MODELS, part, "index") for part in (0, 1)]
    (one, other), held = ((kept.blob_of(*at) for at in places), [content(kept, copy, *at) for at in places])
    assert (one.name, one.size_bytes) == (other.name, other.size_bytes)
    for blob, theirs in ((one, held[1]), (other, held[0])):
        in_blob(blob, lambda path, theirs=theirs: rewrite(path, theirs))(copy / name)
    said = kept.listen(copy, INC2)
    assert said.restore is None
    assert said.status is BackupStatus.CORRUPTED
    assert name in said.findings[0]
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


@pytest.mark.parametrize("other", [FULL, DIF], ids=["of the same backup", "of another backup"])
def test_a_pack_in_the_place_of_another_is_refused(kept, copy, other):
    name = kept.object_of(FULL, MODELS, 1, "data")
    theirs = kept.object_of(other, MODELS, 3, "data")
    rewrite(copy / name, (copy / theirs).read_bytes())
    said = kept.listen(copy, INC2)
    assert names_it(said.restore, name)
    assert said.status is BackupStatus.CORRUPTED
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


def test_an_index_in_the_place_of_its_segment_is_refused(kept, copy):
    name = kept.object_of(FULL, MODELS, 0, "data")
    rewrite(copy / name, content(kept, copy, FULL, MODELS, 0, "index"))
    assert names_it(kept.listen(copy, INC2).restore, name)


@pytest.mark.parametrize(("backup", "other"), [(FULL, DIF), (INC2, INC1), (INC2, SNA), (SNA, INC2), (DIF, FULL)])
def test_a_manifest_in_the_place_of_another_is_refused(kept, copy, backup, other):
    rewrite(copy / kept.folder_of(backup) / "manifest", (copy / kept.folder_of(other) / "manifest").read_bytes())
    said = kept.listen(copy, TOP[backup])
    assert names_it(said.restore, kept.backups[backup].backup_id)
    assert any(kept.backups[backup].backup_id in finding for finding in said.noticed)


@pytest.mark.parametrize("backup", [FULL, SNA])
def test_a_backup_in_the_place_of_another_is_refused(kept, copy, backup):
    other = INC1 if backup == FULL else FULL
    shutil.rmtree(copy / kept.folder_of(backup))
    hard_copy(kept.pristine / kept.folder_of(other), copy / kept.folder_of(backup))
    said = kept.listen(copy, TOP[backup])
    assert names_it(said.restore, kept.backups[backup].backup_id)
    assert said.noticed != []


@pytest.mark.parametrize("newer", ["SNA_29991231_000000_abcd", "FUL_29991231_000000_abcd"])
def test_a_backup_doubled_under_another_name_is_found_and_never_taken_for_the_latest(kept, copy, newer):
    hard_copy(kept.pristine / kept.folder_of(FULL), copy / "backups" / PLAN / newer)
    plan = kept.plan_at(copy)
    with pytest.raises(CorruptionDetected, match=newer):
        make_restore(plan, RestoreRequest(preview=True))
    with pytest.raises(CorruptionDetected, match=newer):
        make_restore(plan, RestoreRequest(newer, preview=True))
    kept.compare(plan, SNA)
    assert any(newer in finding for finding in check_repository(plan).findings)


def test_objects_doubled_under_other_names_are_found(kept, copy):
    name = kept.object_of(FULL, MODELS, 0, "data")
    shutil.copy(copy / name, (copy / name).with_name("00099.pack"))
    said = kept.listen(copy, INC2)
    assert (said.restore, said.status) == (None, BackupStatus.VERIFIED)
    assert any("00099.pack" in finding for finding in said.noticed)


@pytest.mark.parametrize("folder", ["expired", "verifications"])
def test_a_record_doubled_under_another_name_is_found(kept, copy, folder):
    record = record_of(copy, folder)
    shutil.copy(record, record.with_name("20990101T000000.000000Z"))
    assert any("20990101T000000" in finding for finding in check_repository(kept.plan_at(copy)).findings)


def test_a_verification_of_another_backup_proves_nothing(kept, copy):
    records = copy / "verifications" / PLAN
    good = max((records / kept.backups[INC2].backup_id).iterdir())
    shutil.copytree(good.parent, records / kept.backups[FULL].backup_id)
    plan = kept.plan_at(copy)
    assert plan.repository.unlock(plan.encryption).status(kept.backups[FULL]) is BackupStatus.COMPLETED
    assert any(good.name in finding for finding in check_repository(plan).findings)


@pytest.mark.parametrize("backup", range(5))
def test_a_removed_backup_is_missed(kept, copy, backup):
    shutil.rmtree(copy / kept.folder_of(backup))
    said = kept.listen(copy, TOP[backup])
    assert isinstance(said.restore, CorruptionDetected | BackupNotFound)
    assert kept.backups[backup].backup_id in said.restore.message
    assert any(kept.backups[backup].backup_id in finding for finding in said.noticed)


def test_a_removed_backup_is_missed_although_its_successors_went_too(kept, copy):
    for backup in (INC2, SNA):
        shutil.rmtree(copy / kept.folder_of(backup))
    findings = check_repository(kept.plan_at(copy)).findings
    assert any(kept.backups[SNA].backup_id in f and "rolled back" in f for f in findings)


def test_a_repository_rolled_back_as_a_whole_is_found_and_what_it_holds_is_right(kept, copy):
    """As if a copy from before the last two backups had been put back."""
    for backup in (INC2, SNA):
        shutil.rmtree(copy / kept.folder_of(backup))
        shutil.rmtree(copy / "verifications" / PLAN / kept.backups[backup].backup_id)
    plan = kept.plan_at(copy, later=True)
    kept.compare(plan, DIF)
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert made.base == kept.backups[DIF].backup_id
    assert any("rolled back" in finding for finding in check_repository(plan).findings)


def test_objects_of_another_repository_are_refused(kept, copy, tmp_path):
    """The same key file opens both, and the plan has the same name."""
    state = LiveState(tmp_path / "live")
    state.database.parent.mkdir()
    state.create()
    foreign = make_plan(state, tmp_path / "foreign", kept.key)
    foreign.repository.initialize(foreign.encryption)
    made = make_backup(foreign, BackupType.FULL)
    source = tmp_path / "foreign" / "backups" / PLAN / made.backup_id

    shutil.copytree(source, copy / "backups" / PLAN / made.backup_id)
    plan = kept.plan_at(copy)
    with pytest.raises(CorruptionDetected, match=made.backup_id):
        make_restore(plan, RestoreRequest(made.backup_id, preview=True))
    assert any(made.backup_id in finding for finding in check_repository(plan).findings)
    shutil.rmtree(copy / "backups" / PLAN / made.backup_id)

    rewrite(copy / "lastgood.json", (tmp_path / "foreign" / "lastgood.json").read_bytes())
    for backup in range(5):
        with pytest.raises(CorruptionDetected, match=kept.backups[backup].backup_id):
            make_restore(kept.plan_at(copy), RestoreRequest(kept.backups[backup].backup_id, preview=True))
    with pytest.raises(CorruptionDetected):
        make_restore(kept.plan_at(copy), RestoreRequest(preview=True))


def test_objects_of_another_plan_are_refused(kept, copy):
    (copy / "backups" / "other").mkdir()
    hard_copy(kept.pristine / kept.folder_of(FULL), copy / "backups" / "other" / kept.backups[FULL].backup_id)
    plan = kept.plan_at(copy).model_copy(update={"name": "other"})
    with pytest.raises(CorruptionDetected, match=kept.backups[FULL].backup_id):
        make_restore(plan, RestoreRequest(preview=True))
    assert any(kept.backups[FULL].backup_id in finding for finding in check_repository(plan).findings)


def test_an_encrypted_repository_is_not_taken_for_a_plain_one_nor_the_reverse(kept, copy, tmp_path):
    plain = make_plan(kept.state, copy, None)
    with pytest.raises(ConfigurationError, match="encrypted"):
        make_restore(plain, RestoreRequest(preview=True))
    fresh = make_plan(kept.state, tmp_path / "plain", None)
    fresh.repository.initialize(fresh.encryption)
    rewrite(copy / "lastgood.json", (tmp_path / "plain" / "lastgood.json").read_bytes())
    with pytest.raises(ConfigurationError, match="not encrypted"):
        make_backup(kept.plan_at(copy), BackupType.FULL)


BASES: dict[str, tuple[int, str]] = {
    "a damaged index": (INC2, "index"),
    "a damaged index at the bottom": (FULL, "index"),
    "a damaged index that parts share": (INC2, "shared index"),
    "a missing segment": (INC2, "data"),
    "a damaged manifest": (INC2, "manifest"),
    "a damaged manifest at the bottom": (FULL, "manifest"),
    "a missing manifest at the bottom": (FULL, "no manifest"),
}


@pytest.mark.parametrize(("backup", "what"), BASES.values(), ids=BASES.keys())
def test_an_incremental_on_a_damaged_base_becomes_a_full_and_says_so(kept, copy, backup, what):
    manifest = copy / kept.folder_of(backup) / "manifest"
    match what:
        case "index":
            damage = in_blob(kept.blob_of(backup, ORDERS, 0, "index"), EVERYWHERE["a byte in the middle flipped"])
            damage(copy / kept.object_of(backup, ORDERS, 0, "index"))
        case "shared index":
            damage = in_blob(kept.blob_of(backup, TREE, 0, "index"), EVERYWHERE["the last byte flipped"])
            damage(copy / kept.object_of(backup, TREE, 0, "index"))
        case "data":
            (copy / kept.object_of(backup, ORDERS, 0, "data")).unlink()
        case "manifest":
            EVERYWHERE["a byte in the middle flipped"](manifest)
        case _:
            manifest.unlink()
    plan = kept.plan_at(copy, later=True)
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert (made.backup_type, made.requested_type) == (BackupType.FULL, BackupType.INCREMENTAL)
    assert kept.backups[backup].backup_id in made.promoted_because
    # ids hold seconds: within the same one, the damaged backup may be the newer of the two
    fulls = [made]
    while (following := make_backup(plan, BackupType.INCREMENTAL)).promoted_because:
        fulls.append(following)
    assert [link.backup_id for link in following.chain] == [fulls[-1].backup_id]
    to = copy.with_name("next")
    assert restored(plan, following.backup_id, to) == kept.state.oracle()
    shutil.rmtree(to)


def test_an_incremental_becomes_a_full_where_the_key_of_its_base_is_another_or_was_lost(kept, copy):
    plan = kept.plan_at(copy, later=True)
    settings = with_new_epoch(plan)
    plan.repository.save_encryption(settings(keep_old=True))
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert made.backup_type is BackupType.FULL
    assert "epoch-1" in made.promoted_because
    for backup in (INC2, SNA):
        kept.compare(plan, backup)

    plan.repository.save_encryption(settings(keep_old=False))
    with pytest.raises(WrongKey, match="epoch-1"):
        make_restore(plan, RestoreRequest(kept.backups[INC2].backup_id, preview=True))
    following = make_backup(plan, BackupType.INCREMENTAL)
    assert following.base == made.backup_id
    to = copy.with_name("next")
    assert restored(plan, following.backup_id, to) == kept.state.oracle()
    shutil.rmtree(to)
