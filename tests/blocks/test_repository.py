from __future__ import annotations

import json
import shutil

import pytest

from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    RepositoryLocked,
    RepositoryUnavailable,
    WrongKey,
)
from blocks.keyring import Credential, Keyring, NoEncryption, generate_key_file
from blocks.manifest import StoredObject
from blocks.repository import BackupRepository
from blocks.tiers import StorageTier
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
    put = StorageTier.put
    monkeypatch.setattr(StorageTier, "put", lambda self, name, data, exclusive=False: put(self, name, data))
    with pytest.raises(RepositoryUnavailable, match="created again"):
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
        (b'{"format_version": 2, "anything": true}', ConfigurationError),
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
        lambda p: repository.sweep(p, HOUR, START),
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


def test_the_lease_of_a_run_is_seen_from_elsewhere_and_blocks_a_second_run(shelf):
    with shelf.repository.lease(PLAN, "host:1", "full backup") as lease:
        lease.work_on("FUL_20260301_120000_0000")
        seen = shelf.open().current_lease(PLAN)
        assert (seen.holder, seen.purpose, seen.backup_id) == ("host:1", "full backup", "FUL_20260301_120000_0000")
        with pytest.raises(RepositoryLocked, match="host:1"), shelf.open().lease(PLAN, "host:2", "retention"):
            pass
        with shelf.open().lease("another", "host:2", "retention"):
            pass
    assert shelf.open().current_lease(PLAN) is None


def test_tokens_grow_although_the_leases_were_deleted(shelf):
    shelf.back_up()
    newest = shelf.back_up()
    shutil.rmtree(shelf.root / "locks")
    with shelf.open().lease(PLAN, "host:1", "backup") as lease:
        assert lease.token == newest.fencing_token + 1


# A repository without encryption


def test_without_encryption_everything_works_and_damage_is_still_found(tmp_path):
    shelf = Shelf(tmp_path, encrypted=False)
    assert shelf.kit.recovery_key is None
    chain = list(chain_of_three(shelf))
    shelf.repository.record_verification(verification(shelf, chain[0]))
    expire(shelf, chain[2])
    assert shelf.open().chain(chain[1]) == chain[:2]
    assert shelf.open().audit(PLAN) == []
    manifest = shelf.folder(chain[0]) / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptionDetected, match=chain[0].backup_id):
        shelf.open().chain(chain[1])
