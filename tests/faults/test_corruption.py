"""Damage of every kind to every kind of object: always detected and named, never wrong data."""

from __future__ import annotations

import pytest

from blocks.errors import BackupNotFound, CorruptionDetected, LastgoodError
from blocks.records import BackupStatus, BackupType
from flows.backup import make_backup
from flows.check import check_repository
from tests.faults.damage import CHUNKED, EVERYWHERE, SEALED, Damage, rewrite
from tests.faults.kept import DIF, FULL, INC2, SNA, TOP, names_it, record_of
from tests.faults.live_state import PLAN

ALL_SEALED = EVERYWHERE | SEALED
MODELS, ORDERS, TREE = "ledger/models", "ledger/orders", "models/tree"


def segments(damages: dict[str, Damage], *objects: tuple[int, str, int]) -> list:
    return [
        pytest.param(*one, damage, id=f"{one[1]} of backup {one[0]}: {name}")
        for one in objects
        for name, damage in damages.items()
    ]


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
