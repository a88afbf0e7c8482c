from __future__ import annotations

import os
import shutil
from datetime import timedelta

import pytest

from blocks.errors import (
    Partial,
)
from blocks.records import BackupStatus, BackupType
from blocks.storage.base import StorageTier
from tests.blocks.repository_support import (
    HOUR,
    PLAN,
    HostClock,
    abandon,
    age,
    verification,
)


def test_removed_backups_are_gone_with_their_verifications_and_the_others_stay(shelf):
    first, second, third = (shelf.back_up() for _ in range(3))
    for backup in (first, third):
        shelf.repository.record_verification(verification(shelf, backup))
    shelf.repository.remove(PLAN, [first.backup_id, second.backup_id])
    assert shelf.repository.backups(PLAN) == [third]
    assert os.listdir(shelf.root / "backups" / PLAN) == [third.backup_id]
    assert os.listdir(shelf.root / "verifications" / PLAN) == [third.backup_id]
    shelf.repository.remove(PLAN, [first.backup_id])


def test_a_damaged_backup_can_be_removed(shelf):
    backup = shelf.back_up()
    (shelf.folder(backup) / "manifest").write_bytes(b"damaged")
    shelf.repository.remove(PLAN, [backup.backup_id])
    assert not shelf.folder(backup).exists()


def test_a_removal_takes_all_manifests_first_and_the_checksums_last(shelf, monkeypatch):
    backups = [shelf.back_up(), shelf.back_up()]
    shelf.repository.record_verification(verification(shelf, backups[0]))
    seen = []
    monkeypatch.setattr(StorageTier, "durable", staticmethod(lambda *what: seen.append(what)))
    shelf.repository.remove(PLAN, [b.backup_id for b in backups])
    order = [name.rpartition("/")[2] for operation, name, when in seen if when == "after"]
    assert order[:2] == ["manifest", "manifest"]
    assert order[-2:] == ["SHA256SUMS", "SHA256SUMS"]
    assert len(order) == 2 + 4 + 1 + 2


def test_what_cannot_be_removed_is_named_and_everything_else_is_removed(shelf):
    first, second = shelf.back_up(), shelf.back_up()
    manifest = shelf.folder(first) / "manifest"
    manifest.unlink()
    (manifest / "a folder in its place").mkdir(parents=True)
    with pytest.raises(Partial, match=f"{first.backup_id}/manifest"):
        shelf.repository.remove(PLAN, [first.backup_id, second.backup_id])
    assert not shelf.folder(second).exists()
    assert (shelf.folder(first) / "00000.seg").exists(), "a backup whose manifest stayed must stay whole"


def test_leftovers_of_a_crash_are_swept_only_after_the_grace_time(shelf):
    kept = shelf.back_up()
    shelf.repository.record_verification(verification(shelf, kept))
    lost = abandon(shelf)
    (shelf.folder(kept) / ".manifest.0123.tmp").write_bytes(b"half")
    (shelf.root / ".lastgood.json.0123.tmp").write_bytes(b"half")
    (shelf.root / "probes").mkdir()
    (shelf.root / "probes/0123").write_bytes(b"first")
    (shelf.folder("FUL_20260301_120000_ffff")).mkdir()
    age(shelf, 1)
    now = shelf.clock.now()
    assert sorted(shelf.repository.abandoned(PLAN)) == sorted([lost.backup_id, "FUL_20260301_120000_ffff"])
    assert shelf.repository.collect_garbage(PLAN, timedelta(hours=2), now) == []
    assert shelf.folder(lost).exists()
    swept = shelf.repository.collect_garbage(PLAN, timedelta(minutes=30), now)
    assert sorted(name.rpartition("/")[2] for name in swept) == [
        ".lastgood.json.0123.tmp", ".manifest.0123.tmp", "00000.idx", "00000.seg", "0123",
    ]  # fmt: skip
    assert shelf.repository.abandoned(PLAN) == []
    assert os.listdir(shelf.root / "backups" / PLAN) == [kept.backup_id]
    assert shelf.repository.status(kept) is BackupStatus.VERIFIED
    assert shelf.open().audit(PLAN) == []


def test_what_a_check_tries_meanwhile_stays_also_where_a_clock_that_jumped_is_believed(shelf):
    (shelf.root / "probes").mkdir()
    tried, old = shelf.root / "probes/0123", shelf.root / "probes/4567"
    for path, hours in ((tried, 0.1), (old, 3)):
        path.write_bytes(b"first")
        moment = (shelf.clock.now() - hours * HOUR).timestamp()
        os.utime(path, (moment, moment))
    with shelf.repository.lease(PLAN, "retention", holder="host:1"):
        swept = shelf.repository.collect_garbage(PLAN, HOUR, shelf.clock.now() + timedelta(days=3650))
    assert swept == ["probes/4567"]
    assert tried.exists()
    assert not old.exists()


def test_the_folder_of_a_live_lease_is_never_swept(shelf):
    lost = abandon(shelf)
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        working = shelf.draft(lease)[0]
        age(shelf, 10)
        assert shelf.open().abandoned(PLAN) == [lost.backup_id]
        shelf.open().collect_garbage(PLAN, timedelta(0), shelf.clock.now() + HOUR)
        assert shelf.folder(working).exists()
        assert not shelf.folder(lost).exists()
        shelf.clock.turn(301)
        shelf.open().collect_garbage(PLAN, timedelta(0), shelf.clock.now() + HOUR)
        assert not shelf.folder(working).exists()


def test_a_run_that_has_not_named_its_backup_keeps_what_is_younger_than_its_lease(shelf):
    lost = abandon(shelf)
    with shelf.repository.lease(PLAN, "backup", holder="host:1"):
        age(shelf, -0.01)
        shelf.open().collect_garbage(PLAN, timedelta(0), shelf.clock.now() + HOUR)
        assert shelf.folder(lost).exists()
        age(shelf, 1)
        shelf.open().collect_garbage(PLAN, timedelta(0), shelf.clock.now() + HOUR)
        assert not shelf.folder(lost).exists()


def test_the_rest_of_an_interrupted_removal_is_swept(shelf):
    first, second = shelf.back_up(), shelf.back_up()
    shelf.repository.record_verification(verification(shelf, first))
    shelf.repository.record_verification(verification(shelf, second))
    (shelf.folder(first) / "manifest").unlink()
    shutil.rmtree(shelf.folder(second))
    age(shelf, 2)
    swept = shelf.repository.collect_garbage(PLAN, HOUR, shelf.clock.now())
    assert [name.rpartition("/")[2] for name in swept if first.backup_id in name and "backups/" in name] == [
        "00000.idx", "00000.seg", "SHA256SUMS",
    ]  # fmt: skip
    shelf.repository.collect_garbage(PLAN, HOUR, shelf.clock.now())
    assert os.listdir(shelf.root / "verifications" / PLAN) == []


def test_old_leases_are_swept_but_the_highest_token_stays(shelf):
    shelf.back_up()
    locks = shelf.root / "locks" / PLAN
    shutil.copy(locks / "000000000001", locks / "000000000000")
    assert shelf.repository.collect_garbage(PLAN, HOUR, shelf.clock.now()) == [f"locks/{PLAN}/000000000000"]
    assert os.listdir(locks) == ["000000000001"]


def test_a_backup_that_others_name_is_never_swept_as_unfinished(shelf):
    full = shelf.back_up()
    shelf.back_up(BackupType.INCREMENTAL, full)
    (shelf.folder(full) / "manifest").unlink()
    age(shelf, 2)
    assert shelf.open().abandoned(PLAN) == []
    assert shelf.open().collect_garbage(PLAN, HOUR, shelf.clock.now()) == []
    assert (shelf.folder(full) / "00000.seg").exists()


def test_room_is_made_at_once_of_what_the_run_that_ended_last_left(shelf):
    shelf.back_up()
    lost = abandon(shelf)
    assert shelf.repository.collect_garbage(PLAN, HOUR, shelf.clock.now()) == []
    room = shelf.repository.make_room(PLAN, HOUR, shelf.clock.now())
    assert sorted(name.rpartition("/")[2] for name in room) == ["00000.idx", "00000.seg"]
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        working = shelf.draft(lease)[0]
        assert shelf.open().make_room(PLAN, HOUR, shelf.clock.now()) == []
    assert shelf.folder(working).exists()
    assert not shelf.folder(lost).exists()


@pytest.mark.parametrize("ahead", [-48, 48])
def test_a_wrong_clock_removes_nothing_of_a_run_that_is_at_work(shelf, ahead):
    """Also without a lease of its own, as retention does where there is no room for one."""
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        working = shelf.draft(lease)[0]
        age(shelf, 0)
        wrong = HostClock(shelf.clock, ahead * HOUR)
        shelf.open(wrong).make_room(PLAN, HOUR, wrong.now())
        shelf.open(wrong).collect_garbage(PLAN, HOUR, wrong.now())
        assert shelf.folder(working).exists()
