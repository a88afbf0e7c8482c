"""Damage of every kind to every kind of object: always detected and named, never wrong data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected, LastgoodError, WrongKey
from blocks.manifest import BackupStatus, BackupType
from flows.backup import make_backup
from flows.check import check_repository
from flows.restore import make_restore
from tests.faults.damage import CHUNKED, EVERYWHERE, SEALED, Damage, hard_copy, rewrite
from tests.faults.forging import with_new_epoch
from tests.faults.kept import DIF, FULL, INC1, INC2, SNA, TOP, Kept
from tests.faults.live_state import PLAN, LiveState, make_plan, restored

ALL_SEALED = EVERYWHERE | SEALED
MODELS, ORDERS, TREE = "ledger/models", "ledger/orders", "models/tree"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, state_home: Path) -> Kept:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state_home))
        return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def copy(kept: Kept, state_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository to damage, and a machine that has seen it whole."""
    shutil.copytree(state_home, tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    copied = kept.copy()
    yield copied
    shutil.rmtree(copied)


def segments(damages: dict[str, Damage], *objects: tuple[int, str, int]) -> list:
    return [
        pytest.param(*one, damage, id=f"{one[1]} of backup {one[0]}: {name}")
        for one in objects
        for name, damage in damages.items()
    ]


def names_it(error: LastgoodError | None, *words: str) -> bool:
    return isinstance(error, CorruptionDetected) and any(word in error.message for word in words) and bool(error.hint)


def test_undamaged_everything_is_right(kept, copy):
    for backup in range(len(kept.backups)):
        said = kept.listen(copy, backup)
        assert (said.restore, said.verify, said.status) == (None, None, BackupStatus.VERIFIED)
        assert said.noticed == []


@pytest.mark.parametrize(
    ("backup", "collection", "part", "damage"),
    segments(ALL_SEALED | CHUNKED, (FULL, MODELS, 0))
    + segments(CHUNKED | SEALED, (INC2, MODELS, 1))
    + segments(EVERYWHERE, (DIF, ORDERS, 0), (SNA, TREE, 0)),
)
def test_a_damaged_segment_is_never_restored(kept, copy, backup, collection, part, damage):
    name = kept.object_of(backup, collection, part, "seg")
    damage(copy / name)
    said = kept.listen(copy, TOP[backup])
    assert names_it(said.restore, name)
    assert said.status is BackupStatus.CORRUPTED
    assert name in said.findings[0]
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


@pytest.mark.parametrize(
    ("backup", "collection", "part", "damage"),
    segments(ALL_SEALED, (FULL, ORDERS, 0)) + segments(EVERYWHERE, (INC2, TREE, 0)),
)
def test_a_damaged_index_is_found_and_restores_do_without_it(kept, copy, backup, collection, part, damage):
    name = kept.object_of(backup, collection, part, "idx")
    damage(copy / name)
    said = kept.listen(copy, TOP[backup])
    assert said.restore is None
    assert said.status is BackupStatus.CORRUPTED
    assert name in said.findings[0]
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


@pytest.mark.parametrize("backup", [FULL, DIF, INC2, SNA])
@pytest.mark.parametrize("damage", ALL_SEALED.values(), ids=ALL_SEALED.keys())
def test_a_damaged_manifest_is_named_and_nothing_on_it_is_restored(kept, copy, backup, damage):
    damaged_id = kept.backups[backup].backup_id
    damage(copy / kept.folder_of(backup) / "manifest")
    said = kept.listen(copy, TOP[backup])
    for error in (said.restore, said.verify or said.restore):
        assert isinstance(error, CorruptionDetected | BackupNotFound)
        assert damaged_id in error.message
    assert said.status in (None, BackupStatus.CORRUPTED)
    assert any(damaged_id in finding for finding in said.noticed)


@pytest.mark.parametrize("damage", EVERYWHERE.values(), ids=EVERYWHERE.keys())
def test_damaged_checksums_are_found_and_nothing_else_minds(kept, copy, damage):
    damage(copy / kept.folder_of(INC2) / "SHA256SUMS")
    said = kept.listen(copy, INC2)
    assert (said.restore, said.status) == (None, BackupStatus.VERIFIED)
    assert any(kept.backups[INC2].backup_id in finding and "SHA256SUMS" in finding for finding in said.noticed)


def record_of(repository: Path, folder: str) -> Path:
    return max((repository / folder / PLAN).rglob("*Z"))


PRESENT = {name: damage for name, damage in ALL_SEALED.items() if name not in ("deleted", "a folder in its place")}


@pytest.mark.parametrize("damage", PRESENT.values(), ids=PRESENT.keys())
def test_a_damaged_verification_is_found_and_proves_nothing(kept, copy, damage):
    record = max((copy / "verifications" / PLAN / kept.backups[SNA].backup_id).iterdir())
    damage(record)
    plan = kept.plan_at(copy)
    repository = plan.repository.unlock(plan.encryption)
    assert repository.status(kept.backups[SNA]) is BackupStatus.COMPLETED
    kept.compare(plan, SNA)
    assert any(record.name in finding for finding in check_repository(plan).findings)


@pytest.mark.parametrize("damage", ALL_SEALED.values(), ids=ALL_SEALED.keys())
def test_a_damaged_expiry_is_found_and_restores_do_without_it(kept, copy, damage):
    damage(record_of(copy, "expired"))
    plan = kept.plan_at(copy)
    assert check_repository(plan).findings != []
    kept.compare(plan, SNA)


@pytest.mark.parametrize("damage", EVERYWHERE.values(), ids=EVERYWHERE.keys())
def test_a_damaged_lease_hinders_the_next_backup_only_until_it_would_have_expired(kept, copy, damage):
    damage(max((copy / "locks" / PLAN).iterdir()))
    kept.compare(kept.plan_at(copy), SNA)
    later = kept.plan_at(copy, later=True)
    made = make_backup(later, BackupType.INCREMENTAL)
    assert made.promoted_because is None
    assert made.fencing_token > kept.backups[SNA].fencing_token
    assert check_repository(later).findings == []


SETTINGS = {name: damage for name, damage in EVERYWHERE.items() if name != "the last byte cut off"}
"""The last byte is the newline at the end of the text."""


@pytest.mark.parametrize("damage", SETTINGS.values(), ids=SETTINGS.keys())
def test_damaged_settings_open_nothing(kept, copy, damage):
    damage(copy / "lastgood.json")
    said = kept.listen(copy, SNA)
    for error in (said.restore, said.verify):
        assert isinstance(error, LastgoodError)
        assert "lastgood.json" in error.message
    assert any("lastgood.json" in finding for finding in said.noticed)


def test_no_flipped_bit_of_the_settings_changes_what_they_say(kept, copy):
    plan, path = kept.plan_at(copy), copy / "lastgood.json"
    pristine = path.read_bytes()
    wanted = plan.repository.read_config()
    for at in range(0, len(pristine), 7):
        for bit in (1, 32, 128):
            rewrite(path, pristine[:at] + bytes([pristine[at] ^ bit]) + pristine[at + 1 :])
            try:
                opened = plan.repository.unlock(plan.encryption)
            except LastgoodError:
                continue
            same = wanted.model_copy(update={"created_at": opened.config.created_at})
            assert opened.config == same, f"byte {at} of lastgood.json was changed unseen"


REPLACED = {
    "a part of the same backup": (FULL, ORDERS, 0),
    "the same part of another backup": (DIF, MODELS, 1),
    "the same part of the snapshot": (SNA, MODELS, 1),
}


@pytest.mark.parametrize("kind", ["seg", "idx"])
@pytest.mark.parametrize("other", REPLACED.values(), ids=REPLACED.keys())
def test_an_object_in_the_place_of_another_is_refused(kept, copy, kind, other):
    name = kept.object_of(FULL, MODELS, 1, kind)
    rewrite(copy / name, (copy / kept.object_of(*other, kind)).read_bytes())
    said = kept.listen(copy, INC2)
    assert (said.restore is None) is (kind == "idx")
    assert said.restore is None or names_it(said.restore, name)
    assert said.status is BackupStatus.CORRUPTED
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


def test_an_index_in_the_place_of_its_segment_is_refused(kept, copy):
    name = kept.object_of(FULL, MODELS, 0, "seg")
    rewrite(copy / name, (copy / kept.object_of(FULL, MODELS, 0, "idx")).read_bytes())
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
        make_restore(plan)
    with pytest.raises(CorruptionDetected, match=newer):
        make_restore(plan, newer)
    kept.compare(plan, SNA)
    assert any(newer in finding for finding in check_repository(plan).findings)


def test_objects_doubled_under_other_names_are_found(kept, copy):
    name = kept.object_of(FULL, MODELS, 0, "seg")
    shutil.copy(copy / name, (copy / name).with_name("00099.seg"))
    said = kept.listen(copy, INC2)
    assert (said.restore, said.status) == (None, BackupStatus.VERIFIED)
    assert any("00099.seg" in finding for finding in said.noticed)


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
        make_restore(plan, made.backup_id)
    assert any(made.backup_id in finding for finding in check_repository(plan).findings)
    shutil.rmtree(copy / "backups" / PLAN / made.backup_id)

    rewrite(copy / "lastgood.json", (tmp_path / "foreign" / "lastgood.json").read_bytes())
    for backup in range(5):
        with pytest.raises(CorruptionDetected, match=kept.backups[backup].backup_id):
            make_restore(kept.plan_at(copy), kept.backups[backup].backup_id)
    with pytest.raises(CorruptionDetected):
        make_restore(kept.plan_at(copy))


def test_objects_of_another_plan_are_refused(kept, copy):
    (copy / "backups" / "other").mkdir()
    hard_copy(kept.pristine / kept.folder_of(FULL), copy / "backups" / "other" / kept.backups[FULL].backup_id)
    plan = kept.plan_at(copy).model_copy(update={"name": "other"})
    with pytest.raises(CorruptionDetected, match=kept.backups[FULL].backup_id):
        make_restore(plan)
    assert any(kept.backups[FULL].backup_id in finding for finding in check_repository(plan).findings)


def test_an_encrypted_repository_is_not_taken_for_a_plain_one_nor_the_reverse(kept, copy, tmp_path):
    plain = make_plan(kept.state, copy, None)
    with pytest.raises(ConfigurationError, match="encrypted"):
        make_restore(plain)
    fresh = make_plan(kept.state, tmp_path / "plain", None)
    fresh.repository.initialize(fresh.encryption)
    rewrite(copy / "lastgood.json", (tmp_path / "plain" / "lastgood.json").read_bytes())
    with pytest.raises(ConfigurationError, match="not encrypted"):
        make_backup(kept.plan_at(copy), BackupType.FULL)


BASES: dict[str, tuple[int, str]] = {
    "a damaged index": (INC2, "idx"),
    "a damaged index at the bottom": (FULL, "idx"),
    "a missing segment": (INC2, "seg"),
    "a damaged manifest": (INC2, "manifest"),
    "a damaged manifest at the bottom": (FULL, "manifest"),
    "a missing manifest at the bottom": (FULL, "no manifest"),
}


@pytest.mark.parametrize(("backup", "what"), BASES.values(), ids=BASES.keys())
def test_an_incremental_on_a_damaged_base_becomes_a_full_and_says_so(kept, copy, backup, what):
    manifest = copy / kept.folder_of(backup) / "manifest"
    match what:
        case "idx":
            EVERYWHERE["a byte in the middle flipped"](copy / kept.object_of(backup, ORDERS, 0, "idx"))
        case "seg":
            (copy / kept.object_of(backup, ORDERS, 0, "seg")).unlink()
        case "manifest":
            EVERYWHERE["a byte in the middle flipped"](manifest)
        case _:
            manifest.unlink()
    plan = kept.plan_at(copy, later=True)
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert (made.backup_type, made.requested_type) == (BackupType.FULL, BackupType.INCREMENTAL)
    assert kept.backups[backup].backup_id in made.promoted_because
    # ids tell seconds: within the same one, the damaged backup may be the newer of the two
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
        make_restore(plan, kept.backups[INC2].backup_id)
    following = make_backup(plan, BackupType.INCREMENTAL)
    assert following.base == made.backup_id
    to = copy.with_name("next")
    assert restored(plan, following.backup_id, to) == kept.state.oracle()
    shutil.rmtree(to)
