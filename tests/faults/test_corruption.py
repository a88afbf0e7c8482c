"""Damage of every kind to every kind of object: always detected and named, never wrong data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blocks.crypto.stream import CHUNK_BYTES
from blocks.errors import BackupNotFound, CorruptionDetected, LastgoodError
from blocks.records import BackupStatus, BackupType
from flows.backup import make_backup
from flows.check import check_repository
from flows.pipeline.lookup import WHOLE_BYTES
from tests.faults.damage import BORDERS, CHUNKED, EVERYWHERE, SEALED, Damage, flip, in_blob, rewrite
from tests.faults.kept import DIF, FULL, INC1, INC2, SNA, TOP, Kept, error_of, names_it, record_of
from tests.faults.live_state import PLAN

ALL_SEALED = EVERYWHERE | SEALED
ALL_DAMAGES = ALL_SEALED | CHUNKED
MODELS, CURVES, ORDERS, TREE = "ledger/models", "ledger/curves", "ledger/orders", "models/tree"


def cases(damages: dict[str, Damage], *segments: tuple[int, str, int]) -> list:
    return [pytest.param(*one, name, id=f"{one[1]} of backup {one[0]}: {name}") for one in segments for name in damages]


def is_found(kept: Kept, copy: Path, backup: int, name: str) -> None:
    """What was damaged is never restored, and always named; what is whole comes back."""
    harmed = kept.harmed(copy, backup)
    said = kept.listen(copy, TOP[backup])
    if "data" in harmed:
        assert names_it(said.restore, name)
    else:
        assert said.restore is None
    assert said.status is (BackupStatus.CORRUPTED if harmed else BackupStatus.VERIFIED)
    assert not harmed or name in said.findings[0]
    assert any(name.rpartition(f"{PLAN}/")[2] in finding for finding in said.noticed)


def test_undamaged_everything_is_right(kept, copy):
    for backup in range(len(kept.backups)):
        said = kept.listen(copy, backup)
        assert (said.restore, said.verify, said.status) == (None, None, BackupStatus.VERIFIED)
        assert said.noticed == []


GROWN = {"a byte added", "doubled", "an empty chunk added", "the first chunk repeated"}
"""What moves all that lies behind a blob in its pack; the blob itself stays where it is."""


@pytest.mark.parametrize(
    ("backup", "collection", "part", "damage"),
    cases(ALL_DAMAGES, (FULL, MODELS, 0), (FULL, CURVES, 0))
    + cases(CHUNKED | SEALED, (INC2, CURVES, 0))
    + cases(ALL_SEALED, (DIF, TREE, 0))
    + cases(EVERYWHERE, (DIF, ORDERS, 0), (INC1, MODELS, 2), (SNA, TREE, 0)),
)
@pytest.mark.share(4)
def test_a_damaged_segment_is_never_restored(kept, copy, backup, collection, part, damage):
    name = kept.object_of(backup, collection, part, "data")
    in_blob(kept.blob_of(backup, collection, part, "data"), ALL_DAMAGES[damage])(copy / name)
    assert damage in GROWN or "data" in kept.harmed(copy, backup)
    is_found(kept, copy, backup, name)


@pytest.mark.parametrize(
    ("backup", "collection", "part", "damage"),
    cases(ALL_SEALED, (FULL, ORDERS, 0), (INC2, TREE, 0)) + cases(EVERYWHERE, (FULL, CURVES, 0)),
)
@pytest.mark.share(2)
def test_a_damaged_index_is_found_and_restores_do_without_it(kept, copy, backup, collection, part, damage):
    name = kept.object_of(backup, collection, part, "index")
    in_blob(kept.blob_of(backup, collection, part, "index"), ALL_DAMAGES[damage])(copy / name)
    assert damage in GROWN or "index" in kept.harmed(copy, backup)
    is_found(kept, copy, backup, name)


@pytest.mark.parametrize("border", BORDERS.values(), ids=BORDERS.keys())
@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize("backup", [FULL, DIF, INC2])
@pytest.mark.share(2)
def test_a_flipped_bit_in_any_blob_of_a_pack_harms_that_blob_alone_and_is_found(kept, copy, backup, which, border):
    packs = [blob.name for blob, _ in kept.blobs(backup)]
    fullest = max(packs, key=packs.count)
    blobs = [(blob, kind) for blob, kind in kept.blobs(backup) if blob.name == fullest]
    assert len(blobs) > 5
    blob, kind = blobs[{"first": 0, "middle": len(blobs) // 2, "last": -1}[which]]
    name = f"{kept.folder_of(backup)}/{fullest}"
    in_blob(blob, lambda path: flip(border(blob.size_bytes))(path))(copy / name)
    assert kept.harmed(copy, backup) == {kind}
    is_found(kept, copy, backup, name)


def test_what_parts_share_is_shared_by_several(kept):
    """The damages above are done to blobs of every kind: alone in a pack, beside others, and of several parts."""
    shared = [part for part in kept.backups[DIF].stored_parts if part.segment and part.segment.data.shared]
    assert len({part.segment.data.number for part in shared}) < len(shared)
    alone, beside = (kept.blob_of(FULL, name, 0, "data") for name in (MODELS, CURVES))
    sizes = {stored.name: stored.size_bytes for stored in kept.backups[FULL].objects}
    assert (alone.shared, beside.shared) == (None, None)
    assert alone.size_bytes == sizes[alone.name]
    assert CHUNK_BYTES < beside.size_bytes < sizes[beside.name]


BEGINNING = (
    "the magic flipped",
    "the version before",
    "a newer version",
    "the mode says plaintext",
    "the salt flipped",
)


@pytest.mark.parametrize("order", [5, 77], ids=["in the first row group", "in the last row group"])
@pytest.mark.parametrize("damage", ALL_DAMAGES)
def test_a_record_looked_up_in_a_damaged_segment_is_right_or_refused(kept, copy, damage, order):
    """Only some chunks are read for it: it does not matter what became of the others."""
    name = kept.object_of(FULL, ORDERS, 0, "data")
    assert kept.blob_of(FULL, ORDERS, 0, "data").size_bytes > WHOLE_BYTES
    plan = kept.plan_at(copy)
    kept.look_up(plan, INC2, order)
    ALL_DAMAGES[damage](copy / name)
    error = error_of(lambda: kept.look_up(plan, INC2, order))
    assert error is None or names_it(error, name, kept.backups[FULL].backup_id)
    assert error is not None or damage not in BEGINNING


@pytest.mark.parametrize("share", [0, 0.2, 0.4, 0.6, 0.8, 1])
def test_where_nothing_is_encrypted_damage_is_found_as_well(kept_plain, share):
    """Chunks have digests in the place of tags."""
    kept, copy = kept_plain, kept_plain.copy()
    blob = kept.blob_of(FULL, ORDERS, 0, "data")
    name = kept.object_of(FULL, ORDERS, 0, "data")
    at = min(int(blob.size_bytes * share), blob.size_bytes - 1)
    in_blob(blob, flip(at))(copy / name)
    errors = [error_of(lambda order=order: kept.look_up(kept.plan_at(copy), INC2, order)) for order in (5, 77)]
    assert all(error is None or names_it(error, kept.backups[FULL].backup_id) for error in errors)
    assert any(errors), "one row is at the beginning, the other fills most of the segment"
    is_found(kept, copy, FULL, name)
    shutil.rmtree(copy)


def test_where_only_one_record_is_wanted_damage_elsewhere_does_no_harm(kept, copy):
    name = kept.object_of(FULL, MODELS, 0, "data")
    (copy / name).unlink()
    kept.look_up(kept.plan_at(copy), INC2, 5)
    with pytest.raises(CorruptionDetected, match=kept.backups[FULL].backup_id):
        kept.compare(kept.plan_at(copy), INC2)


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
