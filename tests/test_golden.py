"""Repositories that were written once, by each version of the format: this lastgood restores them, value by value."""

from __future__ import annotations

import hashlib
import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from blocks.crypto.keyring import Role, write_key_file
from blocks.crypto.repository_keys import list_slots
from blocks.errors import WrongKey
from blocks.plan.plan import BackupPlan
from blocks.records import BackupStatus
from blocks.sources.target import RestoreMode
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.format_support import make_plan, restore, see_database, see_tree

VERSIONS = (1, 2)
ORACLE = "oracle.json"


def archive_of(version: int) -> Path:
    return Path(__file__).parent / "golden" / f"v{version}.tar.gz"


# secrets of the golden repositories, which hold nothing that is secret
PASSPHRASE = "golden test passphrase: protects nothing"
READER_KEY = "LASTGOOD-KEY-1-M5XW-YZDF-NYQH-IZLT-OQQG-WZLZ-HIQH-A4TP-ORSW-G5DT-EBXG-65DI-NFXJ-CHFT"
WRITER_KEY = "LASTGOOD-KEY-1-M5XW-YZDF-NYQH-IZLT-OQQG-WZLZ-EBXW-MIDB-EB3X-E2LU-MVZC-A33O-NR4W-XGDG"


Backups = dict[str, dict[str, Any]]
"""What each backup holds, by its id."""


@cache
def oracle(version: int) -> dict[str, Backups]:
    """What each backup holds, by the name of its repository and its id."""
    if not archive_of(version).exists():  # while it is made
        return {}
    with tarfile.open(archive_of(version)) as archive:
        file = archive.extractfile(ORACLE)
        assert file is not None
        loaded: dict[str, Backups] = json.load(file)
    return loaded


def encryption_of(name: str) -> object:
    """The plan's `encryption` for one of the golden repositories."""
    if name == "plain":
        return "none"
    kem = "x25519" if name == "x25519" else "mlkem768-x25519"
    return {"credential": {"passphrase_env": "LASTGOOD_GOLDEN_PASSPHRASE"}, "kem": kem}


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTGOOD_GOLDEN_PASSPHRASE", PASSPHRASE)


class Shelf:
    """The golden repositories of one version, each as `<name>/backups` in a folder."""

    def __init__(self, version: int, folder: Path) -> None:
        self.version, self.folder = version, folder
        with tarfile.open(archive_of(version)) as archive:
            archive.extractall(folder, filter="data")

    def in_order(self, name: str) -> list[str]:
        """The ids of a repository's backups, oldest first."""
        backups = oracle(self.version)[name]
        return sorted(backups, key=lambda backup_id: int(backups[backup_id]["sequence"]))

    def newest(self, name: str) -> str:
        return self.in_order(name)[-1]


@pytest.fixture(params=VERSIONS, ids=lambda version: f"v{version}")
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(request.param, tmp_path)


def every_backup() -> list[Any]:
    return [
        pytest.param(version, name, backup_id, id=f"v{version}-{name}-{backup_id}")
        for version in VERSIONS
        for name, backups in oracle(version).items()
        for backup_id in backups
    ]


def check_restored(shelf: Shelf, plan: BackupPlan, name: str, backup_id: str, place: str = "restored") -> None:
    to = shelf.folder / place
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, backup=backup_id, to=str(to)))
    wanted = oracle(shelf.version)[name][backup_id]
    assert see_database(to / "ledger" / "ledger.db") == wanted["database"]
    assert see_tree(to / "models" / "tree") == wanted["tree"]


@pytest.mark.parametrize(("version", "name", "backup_id"), every_backup())
def test_every_golden_backup_is_restored_exactly_and_verified(
    tmp_path: Path, version: int, name: str, backup_id: str
) -> None:
    shelf = Shelf(version, tmp_path)
    plan = make_plan(shelf.folder / name, encryption_of(name))
    assert plan.repository.unlock(plan.encryption).manifest(plan.name, backup_id).format_version == version
    check_restored(shelf, plan, name, backup_id)
    verification = make_verification(plan, backup_id, deep=True)
    assert (verification.status, verification.findings) == (BackupStatus.VERIFIED, ())


def test_the_golden_key_file_opens_what_was_sealed_under_the_passphrase(shelf: Shelf) -> None:
    write_key_file(shelf.folder / "key", READER_KEY)
    plan = make_plan(shelf.folder / "hybrid", {"credential": {"key_file": str(shelf.folder / "key")}})
    check_restored(shelf, plan, "hybrid", shelf.newest("hybrid"))


def test_the_golden_key_of_a_writer_lists_backups_and_reads_none(shelf: Shelf) -> None:
    write_key_file(shelf.folder / "key", WRITER_KEY)
    plan = make_plan(shelf.folder / "hybrid", {"credential": {"key_file": str(shelf.folder / "key")}})
    repository = plan.repository.unlock(plan.encryption)
    assert repository.keys.role is Role.WRITER
    assert [one.backup_id for one in repository.backups(plan.name)] == shelf.in_order("hybrid")
    with pytest.raises(WrongKey):
        make_restore(
            plan,
            RestoreRequest(mode=RestoreMode.EXACT, backup=shelf.newest("hybrid"), to=str(shelf.folder / "restored")),
        )


def test_the_golden_history_adds_up_and_its_records_are_read(shelf: Shelf) -> None:
    plan = make_plan(shelf.folder / "hybrid", encryption_of("hybrid"))
    repository = plan.repository.unlock(plan.encryption)
    backups = repository.backups(plan.name)
    assert [one.backup_id for one in backups] == shelf.in_order("hybrid")
    assert [one.backup_type for one in backups] == ["full", "incremental", "differential", "incremental"]
    assert [one.sequence for one in backups] == [1, 2, 4, 5]
    assert repository.audit(plan.name) == []
    (expiry,) = repository.expiries(plan.name)
    assert [link.backup_id[:4] for link in expiry.removed] == ["SNA_"]
    assert repository.status(backups[-1]) is BackupStatus.VERIFIED
    roles = [slot.role for slot in list_slots(repository.config.encryption)]
    assert roles == [Role.READER, Role.READER, Role.READER, Role.WRITER]


@pytest.mark.parametrize("name", ["hybrid", "x25519", "plain"])
def test_the_golden_files_are_byte_for_byte_what_their_sums_say(shelf: Shelf, name: str) -> None:
    folders = list((shelf.folder / name / "backups" / "backups" / "trading").iterdir())
    assert len(folders) == len(oracle(shelf.version)[name])
    for folder in folders:
        listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        del found["SHA256SUMS"]
        assert found == listed


@pytest.mark.parametrize("name", ["hybrid", "x25519", "plain"])
def test_the_document_restores_the_golden_repositories(shelf: Shelf, name: str) -> None:
    wanted = oracle(shelf.version)[name][shelf.newest(name)]
    credential = ["--no-encryption"] if name == "plain" else []
    to = shelf.folder / "restored"
    arguments = (shelf.newest(name), "--to", str(to), "--check", *credential)
    done = restore(shelf.folder / name, *arguments, LASTGOOD_PASSPHRASE=PASSPHRASE)
    assert done.returncode == 0, done.stderr
    assert see_database(to / "ledger") == wanted["database"]
    assert see_tree(to / "models") == wanted["tree"]
