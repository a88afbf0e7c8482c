from __future__ import annotations

import os
import signal
import stat
import subprocess
from datetime import datetime, timedelta

import pytest

from blocks.errors import (
    AlreadyExists,
    BackupNotFound,
    CorruptionDetected,
    RepositoryLocked,
)
from blocks.records import BackupType
from blocks.repository.checksums import objects_of
from blocks.repository.lease import acquire
from blocks.storage.base import StorageTier
from tests.blocks.repository_support import (
    HOUR,
    PLAN,
    START,
    expire,
    verification,
)


def test_a_committed_backup_is_read_back_by_another_process_as_it_was(shelf):
    backup = shelf.back_up(parts=[b"one", b"two"])
    reopened = shelf.open()
    assert reopened.manifest(PLAN, backup.backup_id) == backup
    assert [reopened.get_object(PLAN, backup.backup_id, o) for o in objects_of(backup)] == [
        b"idxone", b"segone", b"idxtwo", b"segtwo",
    ]  # fmt: skip
    assert reopened.read_range(PLAN, backup.backup_id, "00001.seg", 3, 2) == b"tw"
    assert reopened.missing(backup) == []
    assert reopened.link(backup) == shelf.repository.link(backup)


def test_sha256sum_of_the_system_verifies_a_backup_without_keys(shelf):
    folder = shelf.folder(shelf.back_up(parts=[b"one", b"two"]))
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count(": OK")) == (0, 5)
    (folder / "00001.seg").write_bytes(b"segTWO")
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "00001.seg: FAILED" in done.stdout


def test_everything_in_a_repository_is_for_its_owner_only(shelf):
    backup = shelf.back_up()
    shelf.repository.record_verification(verification(shelf, backup))
    expire(shelf, backup)
    for path in shelf.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_no_name_or_setting_of_the_state_is_readable_in_a_manifest(shelf):
    folder = shelf.folder(shelf.back_up())
    manifest = (folder / "manifest").read_bytes()
    assert b"s/c" not in manifest
    assert manifest.startswith(b"LASTGOOD")


def test_the_operations_of_a_commit_come_in_an_order_that_is_safe_at_any_point(shelf, monkeypatch):
    seen = []
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        monkeypatch.setattr(StorageTier, "durable", staticmethod(lambda *what: seen.append(what)))
        shelf.repository.commit(metadata, objects, lease)
        monkeypatch.undo()
    folder = f"backups/{PLAN}/{metadata.backup_id}"
    expected = [
        ("write", f"{folder}/SHA256SUMS"),
        ("replace", f"{folder}/SHA256SUMS"),
        ("write", f"{folder}/manifest"),
        ("link", f"{folder}/manifest"),
        ("delete", f"{folder}/manifest"),
    ]
    assert seen == [(*what, when) for what in expected for when in ("before", "after")]


def test_a_backup_exists_only_once_its_manifest_does(shelf):
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        assert shelf.repository.backups(PLAN) == []
        with pytest.raises(BackupNotFound):
            shelf.repository.find(PLAN, metadata.backup_id)
        shelf.repository.commit(metadata, objects, lease)
    assert shelf.repository.backups(PLAN) == [metadata]


def test_a_process_killed_anywhere_in_a_commit_leaves_all_of_a_backup_or_none(shelf):
    def attempt(at: int) -> int:
        pid = os.fork()
        if pid == 0:
            seen = iter(range(1000))

            def hook(operation: str, name: str, when: str) -> None:
                if next(seen) == at:
                    os.kill(os.getpid(), signal.SIGKILL)

            StorageTier.durable = staticmethod(hook)
            shelf.repository.commit(metadata, objects, lease)
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    outcomes = []
    for at in range(100):
        lease = acquire(shelf.repository._leases(PLAN), "host:1", "backup", lambda: 0)
        metadata, objects = shelf.draft(lease)
        status = attempt(at)
        committed = metadata in shelf.open().backups(PLAN)
        outcomes.append(committed)
        assert shelf.open().abandoned(PLAN) == []
        shelf.clock.turn(301)
        assert shelf.open().abandoned(PLAN) == ([] if committed else [metadata.backup_id])
        if not committed:
            shelf.repository.collect_garbage(PLAN, timedelta(0), datetime.now().astimezone() + HOUR)
        if status == 0:
            break
    # SHA256SUMS: write and replace; manifest: write and the moment before its link
    assert outcomes == [False] * 7 + [True] * 4
    assert [finding for finding in shelf.open().audit(PLAN) if "number" not in finding] == []


def test_a_commit_may_be_retried_after_a_lost_reply(shelf):
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        first = shelf.repository.commit(metadata, objects, lease)
        again = metadata.model_copy(update={"backup_duration_seconds": 99.0, "sequence": 2})
        assert shelf.repository.commit(again, objects, lease) == first
    assert shelf.repository.backups(PLAN) == [metadata]
    assert shelf.repository.audit(PLAN) == []


def test_a_commit_whose_lost_request_arrives_late_is_the_one_that_counts(shelf, monkeypatch):
    """The manifest of the first attempt is created after the second one has written its SHA256SUMS."""
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        late = shelf.repository._catalogue.seal_manifest(metadata)
        again = metadata.model_copy(update={"backup_duration_seconds": 99.0})
        tier, put = type(shelf.block.tier), type(shelf.block.tier).put

        def delayed(self, name, data, exclusive=False, like_before=False):
            if name.endswith("/manifest"):
                put(self, name, late, exclusive=True)
            put(self, name, data, exclusive, like_before)

        monkeypatch.setattr(tier, "put", delayed)
        link = shelf.repository.commit(again, objects, lease)
        monkeypatch.undo()
    assert shelf.repository.backups(PLAN) == [metadata]
    assert link == shelf.repository.link(metadata)
    assert shelf.open().audit(PLAN) == []


def test_a_run_whose_lease_was_taken_over_commits_nothing(shelf):
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as old:
        metadata, objects = shelf.draft(old)
        shelf.clock.turn(301)
        with shelf.open().lease(PLAN, "backup", holder="host:2"):
            with pytest.raises(RepositoryLocked, match="no longer holds"):
                shelf.repository.commit(metadata, objects, old)
            assert shelf.repository.backups(PLAN) == []


def test_a_backup_whose_object_vanished_is_not_committed(shelf):
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        (shelf.folder(metadata) / "00000.idx").unlink()
        with pytest.raises(CorruptionDetected, match=r"00000\.idx"):
            shelf.repository.commit(metadata, objects, lease)
    assert shelf.repository.backups(PLAN) == []


def test_a_manifest_that_contradicts_its_objects_or_its_lease_is_refused(shelf):
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        metadata, objects = shelf.draft(lease)
        wrong = [
            (metadata.model_copy(update={"fencing_token": 77}), objects),
            (metadata.model_copy(update={"checksum": "00"}), objects),
            (metadata, objects[:-1]),
        ]
        for manifest, stored in wrong:
            with pytest.raises(ValueError, match="contradicts"):
                shelf.repository.commit(manifest, stored, lease)
    assert shelf.repository.backups(PLAN) == []


def test_stored_objects_never_change(shelf):
    backup = shelf.back_up()
    with pytest.raises(AlreadyExists):
        shelf.repository.put_object(PLAN, backup.backup_id, "00000.seg", b"other")
    again = shelf.repository.put_object(PLAN, backup.backup_id, "00000.seg", b"segpart")
    assert again in objects_of(backup)


def test_new_ids_never_collide_with_a_folder_however_many_are_drawn_in_a_second(shelf, monkeypatch):
    shelf.repository.put_object(PLAN, "FUL_20260301_120000_0001", "00000.seg", b"")
    suffixes = iter(["0001", "0001", "0002"])
    monkeypatch.setattr("blocks.records.secrets.token_hex", lambda size: next(suffixes))
    assert shelf.repository.new_id(PLAN, BackupType.FULL, START) == "FUL_20260301_120000_0002"
