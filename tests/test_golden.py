"""Repositories that were written once, by format version 1: this lastgood still restores them, value by value."""

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

ARCHIVE = Path(__file__).parent / "golden" / "v1.tar.gz"
ORACLE = "oracle.json"

# secrets of the golden repositories, which hold nothing that is secret
PASSPHRASE = "golden test passphrase: protects nothing"
READER_KEY = "LASTGOOD-KEY-1-M5XW-YZDF-NYQH-IZLT-OQQG-WZLZ-HIQH-A4TP-ORSW-G5DT-EBXG-65DI-NFXJ-CHFT"
WRITER_KEY = "LASTGOOD-KEY-1-M5XW-YZDF-NYQH-IZLT-OQQG-WZLZ-EBXW-MIDB-EB3X-E2LU-MVZC-A33O-NR4W-XGDG"


@cache
def oracle() -> dict[str, dict[str, dict[str, Any]]]:
    """What each backup holds, by the name of its repository and its id."""
    if not ARCHIVE.exists():  # while it is made
        return {}
    with tarfile.open(ARCHIVE) as archive:
        file = archive.extractfile(ORACLE)
        assert file is not None
        loaded: dict[str, dict[str, dict[str, Any]]] = json.load(file)
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


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The golden repositories, each as `<name>/backups`."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def in_order(name: str) -> list[str]:
    """The ids of a golden repository's backups, oldest first."""
    return sorted(oracle()[name], key=lambda backup_id: int(oracle()[name][backup_id]["sequence"]))


def newest(name: str) -> str:
    return in_order(name)[-1]


def every_backup() -> list[tuple[str, str]]:
    return [(name, backup_id) for name, backups in oracle().items() for backup_id in backups]


def check_restored(plan: BackupPlan, name: str, backup_id: str, to: Path) -> None:
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, backup=backup_id, to=str(to)))
    wanted = oracle()[name][backup_id]
    assert see_database(to / "ledger" / "ledger.db") == wanted["database"]
    assert see_tree(to / "models" / "tree") == wanted["tree"]


@pytest.mark.parametrize(("name", "backup_id"), every_backup())
def test_every_golden_backup_is_restored_exactly_and_verified(shelf: Path, name: str, backup_id: str) -> None:
    plan = make_plan(shelf / name, encryption_of(name))
    check_restored(plan, name, backup_id, shelf / "restored")
    verification = make_verification(plan, backup_id, deep=True)
    assert (verification.status, verification.findings) == (BackupStatus.VERIFIED, ())


def test_the_golden_key_file_opens_what_was_sealed_under_the_passphrase(shelf: Path) -> None:
    write_key_file(shelf / "key", READER_KEY)
    plan = make_plan(shelf / "hybrid", {"credential": {"key_file": str(shelf / "key")}})
    check_restored(plan, "hybrid", newest("hybrid"), shelf / "restored")


def test_the_golden_key_of_a_writer_lists_backups_and_reads_none(shelf: Path) -> None:
    write_key_file(shelf / "key", WRITER_KEY)
    plan = make_plan(shelf / "hybrid", {"credential": {"key_file": str(shelf / "key")}})
    repository = plan.repository.unlock(plan.encryption)
    assert repository.keys.role is Role.WRITER
    assert [one.backup_id for one in repository.backups(plan.name)] == in_order("hybrid")
    with pytest.raises(WrongKey):
        make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, backup=newest("hybrid"), to=str(shelf / "restored")))


def test_the_golden_history_adds_up_and_its_records_are_read(shelf: Path) -> None:
    plan = make_plan(shelf / "hybrid", encryption_of("hybrid"))
    repository = plan.repository.unlock(plan.encryption)
    backups = repository.backups(plan.name)
    assert [one.backup_id for one in backups] == in_order("hybrid")
    assert [one.backup_type for one in backups] == ["full", "incremental", "differential", "incremental"]
    assert [one.sequence for one in backups] == [1, 2, 4, 5]
    assert repository.audit(plan.name) == []
    (expiry,) = repository.expiries(plan.name)
    assert [link.backup_id[:4] for link in expiry.removed] == ["SNA_"]
    assert repository.status(backups[-1]) is BackupStatus.VERIFIED
    roles = [slot.role for slot in list_slots(repository.config.encryption)]
    assert roles == [Role.READER, Role.READER, Role.READER, Role.WRITER]


@pytest.mark.parametrize("name", ["hybrid", "x25519", "plain"])
def test_the_golden_files_are_byte_for_byte_what_their_sums_say(shelf: Path, name: str) -> None:
    folders = list((shelf / name / "backups" / "backups" / "trading").iterdir())
    assert len(folders) == len(oracle()[name])
    for folder in folders:
        listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
        found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        del found["SHA256SUMS"]
        assert found == listed


@pytest.mark.parametrize("name", ["hybrid", "x25519", "plain"])
def test_the_document_restores_the_golden_repositories(shelf: Path, name: str) -> None:
    wanted = oracle()[name][newest(name)]
    credential = ["--no-encryption"] if name == "plain" else []
    to = shelf / "restored"
    arguments = (newest(name), "--to", str(to), "--check", *credential)
    done = restore(shelf / name, *arguments, LASTGOOD_PASSPHRASE=PASSPHRASE)
    assert done.returncode == 0, done.stderr
    assert see_database(to / "ledger") == wanted["database"]
    assert see_tree(to / "models") == wanted["tree"]
