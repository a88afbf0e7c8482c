from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from blocks.crypto.keyring import Credential, Keyring, NoEncryption, generate_key_file
from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    RepositoryLocked,
    RepositoryUnavailable,
    WrongKey,
)
from blocks.host.leftovers import process_name
from blocks.records import StoredObject
from blocks.repository.block import BackupRepository
from blocks.storage.base import StorageTier
from blocks.storage.local import LocalTier
from tests.blocks.repository_support import (
    HOUR,
    PLAN,
    START,
    Shelf,
    chain_of_three,
    expire,
    verification,
)

# Creating and opening


def test_a_new_repository_gives_a_kit_and_opens_with_the_credential_and_with_the_kit(shelf, tmp_path):
    assert shelf.kit.url == str(shelf.root)
    assert shelf.kit.repository_id == shelf.repository.repository_id == shelf.repository.config.repository_id
    assert shelf.kit.recovery_key not in repr(shelf.kit)
    paper = tmp_path / "paper"
    paper.write_text(shelf.kit.recovery_key)
    paper.chmod(0o600)
    backup = shelf.back_up()
    recovered = shelf.block.unlock(Keyring(credential=Credential(key_file=paper)))
    assert recovered.backups(PLAN) == [backup]
    assert shelf.kit.recovery_key not in (shelf.root / "lastgood.json").read_text()


def test_another_credential_does_not_open_it(shelf, tmp_path):
    generate_key_file(tmp_path / "other")
    with pytest.raises(WrongKey):
        shelf.block.unlock(Keyring(credential=Credential(key_file=tmp_path / "other")))
    with pytest.raises(ConfigurationError):
        shelf.block.unlock(NoEncryption(type="none"))


def test_an_existing_repository_is_never_initialized_again(shelf):
    before = (shelf.root / "lastgood.json").read_bytes()
    with pytest.raises(ConfigurationError, match="already"):
        shelf.block.initialize(shelf.keyring)
    assert (shelf.root / "lastgood.json").read_bytes() == before
    shelf.back_up()
    (shelf.root / "lastgood.json").unlink()
    with pytest.raises(ConfigurationError, match="holds backups"):
        shelf.block.initialize(shelf.keyring)


def test_a_storage_that_does_not_enforce_exclusive_creation_is_refused(tmp_path, monkeypatch):
    put = LocalTier.put
    monkeypatch.setattr(LocalTier, "put", lambda self, name, data, *_, **__: put(self, name, data))
    with pytest.raises(ConfigurationError, match="created again"):
        BackupRepository(url=str(tmp_path / "r")).initialize(NoEncryption(type="none"))
    assert list((tmp_path / "r").iterdir()) == []


def test_where_there_is_no_repository_the_hint_says_how_to_make_one(tmp_path):
    for url in (tmp_path, tmp_path / "away"):
        with pytest.raises(RepositoryUnavailable) as caught:
            BackupRepository(url=str(url)).unlock(NoEncryption(type="none"))
        assert "lastgood init" in caught.value.hint
    assert not (tmp_path / "away").exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", CorruptionDetected),
        (b"{}", CorruptionDetected),
        (b'{"format_version": 1}', CorruptionDetected),
        (b'{"format_version": 3, "anything": true}', ConfigurationError),
    ],
)
def test_a_damaged_or_newer_lastgood_json_is_told_apart(shelf, content, error):
    (shelf.root / "lastgood.json").write_bytes(content)
    with pytest.raises(error):
        shelf.open()


def test_saving_other_slots_replaces_only_the_encryption(shelf):
    before = json.loads((shelf.root / "lastgood.json").read_text())
    shelf.block.save_encryption({"version": 7})
    after = json.loads((shelf.root / "lastgood.json").read_text())
    assert after == before | {"encryption": {"version": 7}}


def test_a_relative_url_is_resolved_against_the_folder_of_the_plan(tmp_path):
    assert BackupRepository(url="./backups").anchored(tmp_path).url == str(tmp_path / "backups")
    assert BackupRepository(url="/absolute").anchored(tmp_path).url == "/absolute"
    assert BackupRepository(url="file:///a%20b").anchored(tmp_path).url == "/a b"


# Names


@pytest.mark.parametrize("plan", ["", ".", "..", "../x", "a/b", "A", "-a", "a" * 64, "a\n", "ä"])
def test_a_plan_whose_name_could_lead_elsewhere_is_refused(shelf, plan):
    repository = shelf.repository
    for attempt in (
        repository.backups,
        repository.survey,
        repository.audit,
        repository.expiries,
        repository.current_lease,
        lambda p: repository.manifest(p, "FUL_20260301_120000_0001"),
        lambda p: repository.put_object(p, "FUL_20260301_120000_0001", "00000.seg", b""),
        lambda p: repository.collect_garbage(p, HOUR, START),
    ):
        with pytest.raises(ConfigurationError):
            attempt(plan)


@pytest.mark.parametrize(
    "name", ["manifest", "../manifest", "0.seg", "00000.seg\n", "00000.exe", "/etc/passwd", "000000.seg"]
)
def test_an_object_name_from_a_hostile_manifest_reads_nothing(shelf, name):
    backup = shelf.back_up()
    hostile = StoredObject(name=name, size_bytes=1, sha256="0")
    with pytest.raises(CorruptionDetected, match="names an object"):
        shelf.repository.get_object(PLAN, backup.backup_id, hostile)
    with pytest.raises(CorruptionDetected, match="names an object"):
        shelf.repository.read_range(PLAN, backup.backup_id, name, 0, 1)


def test_a_backup_id_that_is_none_is_not_found(shelf):
    for backup_id in ("../../x", "", "FUL_20260301_120000_000Z", "FUL_20260301_120000_0000/.."):
        with pytest.raises(BackupNotFound):
            shelf.repository.manifest(PLAN, backup_id)


# Leases, as the repository hands them out


def test_a_lease_is_held_by_this_process_unless_another_holder_is_named(shelf):
    with shelf.repository.lease(PLAN, "full backup"):
        assert shelf.open().current_lease(PLAN).holder == process_name()


def test_the_lease_of_a_run_is_seen_from_elsewhere_and_blocks_a_second_run(shelf):
    with shelf.repository.lease(PLAN, "full backup", holder="host:1") as lease:
        lease.work_on("FUL_20260301_120000_0000")
        seen = shelf.open().current_lease(PLAN)
        assert (seen.holder, seen.purpose, seen.backup_id) == ("host:1", "full backup", "FUL_20260301_120000_0000")
        with pytest.raises(RepositoryLocked, match="host:1"), shelf.open().lease(PLAN, "retention", holder="host:2"):
            pass
        with shelf.open().lease("another", "retention", holder="host:2"):
            pass
    assert shelf.open().current_lease(PLAN) is None


def test_tokens_grow_although_the_leases_were_deleted(shelf):
    shelf.back_up()
    newest = shelf.back_up()
    shutil.rmtree(shelf.root / "locks")
    with shelf.open().lease(PLAN, "backup", holder="host:1") as lease:
        assert lease.token == newest.fencing_token + 1


# A repository without encryption


def test_without_encryption_everything_works_and_damage_is_still_found(tmp_path):
    shelf = Shelf(tmp_path, encrypted=False)
    assert shelf.kit.recovery_key is None
    chain = list(chain_of_three(shelf))
    shelf.repository.record_verification(verification(shelf, chain[0]))
    expire(shelf, chain[2])
    assert shelf.open().chain(chain[1]) == chain[:2]
    (finding,) = shelf.open().audit(PLAN)  # no retention run removes the newest
    assert "retention never does" in finding
    manifest = shelf.folder(chain[0]) / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptionDetected, match=chain[0].backup_id):
        shelf.open().chain(chain[1])


def test_no_repository_exists_before_its_kit_was_handed_over(tmp_path):
    block, seen = BackupRepository(url=str(tmp_path / "r")), []

    def refuse(kit):
        seen.append(kit)
        assert not (tmp_path / "r" / "lastgood.json").exists()
        raise OSError("nobody reads this")

    with pytest.raises(OSError, match="nobody"):
        block.initialize(NoEncryption(type="none"), refuse)
    with pytest.raises(RepositoryUnavailable):
        block.read_config()
    made = block.initialize(NoEncryption(type="none"), seen.append)
    assert seen[0].repository_id != made.repository_id == block.read_config().repository_id


def test_where_the_settings_cannot_be_created_the_kit_is_void_and_init_can_be_repeated(tmp_path, monkeypatch):
    block = BackupRepository(url=str(tmp_path / "r"))

    def full(operation, name, when):
        if (operation, name, when) == ("link", "lastgood.json", "after"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as watched:
        watched.setattr(StorageTier, "durable", staticmethod(full))
        with pytest.raises(RepositoryUnavailable) as caught:
            block.initialize(NoEncryption(type="none"), lambda _: None)
    assert "opens nothing" in caught.value.hint
    assert not (tmp_path / "r" / "lastgood.json").exists()
    block.initialize(NoEncryption(type="none"), lambda _: None)


@pytest.mark.parametrize("away", ["the folder is empty", "the folder is gone"])
def test_where_a_repository_was_seen_before_nobody_is_told_to_make_one(shelf, away):
    shelf.back_up()
    shelf.root.rename(shelf.root.with_name("elsewhere"))
    if away == "the folder is empty":
        shelf.root.mkdir()
    with pytest.raises(RepositoryUnavailable) as caught:
        shelf.open()
    assert "init" not in caught.value.hint
    assert shelf.repository.repository_id in caught.value.hint


def test_where_there_are_backups_nobody_is_told_to_make_a_repository(shelf, state_home):
    shelf.back_up()
    shutil.rmtree(state_home / "lastgood")
    (shelf.root / "lastgood.json").unlink()
    with pytest.raises(RepositoryUnavailable) as caught:
        shelf.open()
    assert "init" not in caught.value.hint


@pytest.mark.parametrize("what", ["a FIFO", "a folder", "8 GiB"])
def test_settings_that_are_none_open_nothing_and_are_named(shelf, what):
    path = shelf.root / "lastgood.json"
    path.unlink()
    if what == "8 GiB":
        path.touch()
        os.truncate(path, 8 << 30)
    else:
        os.mkfifo(path) if what == "a FIFO" else path.mkdir()
    with pytest.raises(LastgoodError, match=r"lastgood\.json"):
        shelf.open()


def test_an_object_of_another_size_is_not_read_beyond_what_the_manifest_says(shelf):
    backup = shelf.back_up()
    (stored, *_) = [part.segment.data for part in backup.collections[0].parts]
    os.truncate(shelf.folder(backup) / stored.name, 8 << 30)
    with pytest.raises(CorruptionDetected, match=f"has {8 << 30} bytes instead of"):
        shelf.repository.get_object(PLAN, backup.backup_id, stored)


def test_an_init_that_is_killed_anywhere_can_be_repeated_and_leaves_no_key_that_nobody_saw(tmp_path):
    block = BackupRepository(url=str(tmp_path / "r"))
    kills, died = 0, 9
    while died == 9:
        child = os.fork()
        if child == 0:
            _initialize_until(block, tmp_path / "kit", kills)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if (tmp_path / "r" / "lastgood.json").exists():
            assert (tmp_path / "kit").read_text() == block.read_config().repository_id
        else:
            block.initialize(NoEncryption(type="none"))
        shutil.rmtree(tmp_path / "r")
        kills += 1
    assert (died, kills > 10) == (0, True)


def _initialize_until(block, kit, number):
    count = iter(range(1000))

    def die(operation, name, when):
        if next(count) == number:
            os._exit(9)

    StorageTier.durable = staticmethod(die)
    block.initialize(NoEncryption(type="none"), lambda made: kit.write_text(made.repository_id))
    os._exit(0)
