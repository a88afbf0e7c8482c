from __future__ import annotations

import shutil
import stat

from blocks.records import BackupType, Expiry, Link
from blocks.repository.audit import RollbackGuard
from blocks.repository.catalogue import Catalogue
from blocks.repository.history import History
from tests.blocks.repository_support import (
    HOUR,
    PLAN,
    START,
    chain_of_three,
    expire,
    sealed_by_hand,
    verification,
)


def test_a_history_that_adds_up_has_no_findings(shelf):
    full, differential, incremental = chain_of_three(shelf)
    shelf.back_up(BackupType.EMERGENCY)
    shelf.repository.record_verification(verification(shelf, full))
    assert shelf.open().audit(PLAN) == []
    expire(shelf, incremental)
    expire(shelf, differential)
    assert shelf.open().audit(PLAN) == []
    assert shelf.repository.audit("unused") == []


def test_a_removed_backup_is_told_from_an_expired_one(shelf):
    backups = [shelf.back_up() for _ in range(5)]
    expire(shelf, backups[0], backups[3])
    assert shelf.open().audit(PLAN) == []
    shutil.rmtree(shelf.folder(backups[1]))
    findings = shelf.open().audit(PLAN)
    assert any(f"{backups[1].backup_id}, committed right before {backups[2].backup_id}, is gone" in f for f in findings)


def test_the_theft_of_neighbours_leaves_a_gap_in_the_numbers(shelf):
    """The one before the gap is named by nobody that is left, since the thief took its successor too."""
    backups = [shelf.back_up() for _ in range(5)]
    expire(shelf, backups[2])
    shutil.rmtree(shelf.folder(backups[1]))
    findings = shelf.open().audit(PLAN)
    assert findings == ["backups number 2, 3 of plan trading are gone, and only 1 removals are explained"]


def test_numbers_of_removed_backups_are_not_given_out_again(shelf):
    backups = [shelf.back_up() for _ in range(3)]
    expire(shelf, backups[2])
    newest = shelf.back_up()
    assert newest.sequence == 4
    assert newest.previous == shelf.repository.link(backups[1])
    assert shelf.open().audit(PLAN) == []
    (shelf.folder(newest) / "manifest").write_bytes(b"damaged")
    assert shelf.open().next_position(PLAN)[0] == 5


def test_two_backups_with_one_number_are_found(shelf):
    first = shelf.back_up()
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        shelf.repository.commit(metadata.model_copy(update={"sequence": first.sequence}), objects, lease)
    assert any("2 backups" in finding for finding in shelf.open().audit(PLAN))


def test_the_rollback_of_the_whole_repository_is_found_until_it_is_accepted(shelf, tmp_path):
    first = shelf.back_up()
    shutil.copytree(shelf.root, tmp_path / "old")
    second = shelf.back_up()
    shutil.rmtree(shelf.root)
    shutil.copytree(tmp_path / "old", shelf.root)
    for _ in range(2):
        (finding,) = shelf.open().audit(PLAN)
        assert second.backup_id in finding
        assert "rolled back" in finding
    shelf.repository = shelf.open()
    shelf.back_up()
    assert any("rolled back" in f for f in shelf.open().audit(PLAN)), "a new backup must not cover the trace"
    shelf.repository.accept_head(PLAN)
    assert shelf.open().audit(PLAN) == []
    assert shelf.open().find(PLAN, first.backup_id) == first


def test_a_swapped_newest_backup_is_found_by_the_machine_that_saw_it(shelf):
    backup = shelf.back_up()
    manifest = sealed_by_hand(shelf, backup, tags=["swapped"])
    (shelf.folder(backup) / "manifest").write_bytes(manifest)
    assert any("was swapped" in f and "rolled back or replaced" in f for f in shelf.open().audit(PLAN))


def test_where_nothing_can_be_remembered_backups_go_on(shelf, state_home, caplog):
    state_home.rmdir()
    state_home.write_text("not a folder")
    shelf.back_up()
    assert shelf.open().audit(PLAN) == []
    assert "cannot be remembered" in caplog.text


def test_what_is_remembered_is_for_the_owner_only_and_damage_of_it_is_survived(shelf, state_home, caplog):
    shelf.back_up()
    path = RollbackGuard(shelf.repository.repository_id).path(PLAN)
    assert path == state_home / "lastgood" / shelf.repository.repository_id / "trading.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("{")
    assert shelf.open().audit(PLAN) == []
    assert "cannot be read" in caplog.text


def test_extra_missing_and_foreign_objects_are_found(shelf):
    backup = shelf.back_up()
    folder = shelf.folder(backup)
    (folder / "00009.seg").write_bytes(b"")
    (folder.parent / "stray").write_bytes(b"")
    (folder / "00000.idx").unlink()
    findings = shelf.open().audit(PLAN)
    assert len(findings) == 3
    for words in ("lacks 00000.idx", "00009.seg is not named by the manifest", "stray does not belong there"):
        assert any(words in finding for finding in findings)


def test_changed_or_missing_checksums_are_found(shelf):
    backup = shelf.back_up()
    sums = shelf.folder(backup) / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("a", "b"))
    (finding,) = shelf.open().audit(PLAN)
    assert "SHA256SUMS does not say" in finding
    sums.unlink()
    (finding,) = shelf.open().audit(PLAN)
    assert "lacks SHA256SUMS" in finding


def test_a_forged_expiry_is_found(shelf):
    first, _ = shelf.back_up(), shelf.back_up()
    expire(shelf, first)
    (record,) = (shelf.root / "expired" / PLAN).iterdir()
    shutil.copy(record, record.with_name("20270101T000000.000000Z"))
    (finding,) = shelf.open().audit(PLAN)
    assert "20270101" in finding
    record.write_bytes(b"damaged")
    assert len(shelf.open().audit(PLAN)) > 2
    assert shelf.repository.expiries(PLAN) == []


def test_a_record_that_retention_removed_the_newest_is_no_explanation(shelf):
    first, _, third = (shelf.back_up() for _ in range(3))
    expire(shelf, first)
    assert shelf.open().audit(PLAN) == []
    expire(shelf, third)
    (finding,) = shelf.open().audit(PLAN)
    assert "a newer backup was removed, which retention never does" in finding


def test_expiries_are_read_back_in_order(shelf):
    made = [
        Expiry(plan=PLAN, expired_at=START + HOUR * n, removed=(Link(backup_id="x", manifest_sha256="y"),),
               reasons={"x": "older than 7 days"}, head=None)
        for n in (2, 0, 1)
    ]  # fmt: skip
    for expiry in made:
        shelf.repository.record_expiry(expiry)
    assert shelf.open().expiries(PLAN) == [made[1], made[2], made[0]]


def test_a_backup_that_is_committed_while_this_looks_is_no_finding(shelf, monkeypatch):
    shelf.back_up()
    survey, other = Catalogue.survey, []

    def busy(catalogue, plan):
        found = survey(catalogue, plan)
        if catalogue is watched._catalogue and not other:
            other.append(shelf.back_up())
        return found

    watched = shelf.open()
    monkeypatch.setattr(Catalogue, "survey", busy)
    assert watched.audit(PLAN) == []
    assert len(other) == 1


def test_a_removal_while_this_looks_is_no_finding(shelf, monkeypatch):
    going = [shelf.back_up() for _ in range(3)]
    shelf.back_up()
    expiries = History.expiries

    def busy(history, plan):
        if history is watched._history and going:
            expire(shelf, going.pop(0))
        return expiries(history, plan)

    watched = shelf.open()
    monkeypatch.setattr(History, "expiries", busy)
    assert watched.audit(PLAN) == []
    assert len(going) < 3


def test_a_rollback_that_this_machine_remembers_is_told_wherever_a_backup_is_looked_for(shelf, caplog):
    first, second = shelf.back_up(), shelf.back_up()
    assert shelf.open().rolled_back(PLAN) is None
    shutil.move(shelf.folder(second), shelf.root.parent / "kept")
    assert second.backup_id in shelf.open().rolled_back(PLAN)
    assert shelf.open().find(PLAN) == first
    assert second.backup_id in caplog.text
    shutil.move(shelf.root.parent / "kept", shelf.folder(second))
    expire(shelf, second)
    assert shelf.open().rolled_back(PLAN) is None


def test_a_damaged_lease_is_a_finding(shelf):
    shelf.back_up()
    lease = max((shelf.root / "locks" / PLAN).iterdir())
    lease.write_bytes(b"{}")
    (finding,) = shelf.open().audit(PLAN)
    assert lease.name in finding
