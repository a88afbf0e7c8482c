"""Attributes and names of files through whole backups, restores, previews, proofs and undos."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.plan.plan import BackupPlan, parse_plan
from blocks.records import BackupStatus, BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline.chain import Chain
from flows.reading.diff import compare_backups
from flows.restore import make_restore
from flows.restoring.not_rebuilt import RestoredInPart
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from flows.verify import make_verification
from tests.blocks.sources.files.kit import look
from tests.blocks.sources.files.test_attributes import BIND_LOW_PORTS, CAPABILITY, DEFAULT, access_list
from tests.format_support import make_plan


def plan_of(folder: Path) -> BackupPlan:
    raw = {
        "name": "attributes",
        "sources": {"tree": {"type": "files", "url": str(folder / "tree")}},
        "repository": {"url": str(folder / "backups")},
        "encryption": "none",
    }
    plan = parse_plan(raw, "the test's plan")
    plan.repository.initialize(plan.encryption)
    return plan


@pytest.fixture
def plan(tmp_path: Path) -> BackupPlan:
    """The plan of a tree with attributes of all kinds, and a file of three names."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "m").write_text("content")
    (tree / "other").write_text("other")
    os.link(tree / "m", tree / "d" / "n")
    os.link(tree / "m", tree / "z")
    os.setxattr(tree / "m", "user.note", b"\xff\0")
    os.setxattr(tree / "other", "trusted.note", b"x")
    os.setxattr(tree / "other", CAPABILITY, BIND_LOW_PORTS)
    os.setxattr(tree / "d", DEFAULT, access_list())
    return plan_of(tmp_path)


def disturb(tree: Path) -> None:
    (tree / "z").unlink()
    os.link(tree / "other", tree / "a")
    os.removexattr(tree / "other", CAPABILITY)
    os.setxattr(tree / "d", "user.added", b"x")
    os.removexattr(tree / "d", DEFAULT)


def test_a_chain_is_restored_in_place_undone_and_proved(plan: BackupPlan, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    first, states = look(tree), []
    for number, kind in enumerate((BackupType.FULL, BackupType.INCREMENTAL, BackupType.DIFFERENTIAL)):
        if number:
            disturb(tree) if number == 1 else os.link(tree / "m", tree / "0")
        backup = make_backup(plan, kind)
        assert backup.backup_type == kind, backup.promoted_because
        assert make_verification(plan, backup.backup_id).status is BackupStatus.VERIFIED
        states.append((backup.backup_id, look(tree)))
    for backup_id, state in states:
        make_restore(plan, RestoreRequest(backup_id, mode=RestoreMode.EXACT, to=str(tmp_path / backup_id)))
        assert look(tmp_path / backup_id) == state
    preview = make_restore(plan, RestoreRequest(states[0][0], mode=RestoreMode.EXACT, preview=True))
    assert preview.collections[0].changed >= 4
    make_restore(plan, RestoreRequest(states[0][0], mode=RestoreMode.EXACT))
    assert look(tree) == first
    preview = make_restore(plan, RestoreRequest(states[0][0], mode=RestoreMode.EXACT, preview=True))
    assert (preview.collections[0].added, preview.collections[0].changed, preview.collections[0].removed) == (0, 0, 0)
    make_undo(plan)
    assert look(tree) == states[-1][1]


def test_one_name_is_restored_undone_and_its_narrow_backup_proved(plan: BackupPlan, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    backup = make_backup(plan, BackupType.FULL)
    before = look(tree)
    (tree / "z").unlink()
    (tree / "z").write_text("newer")
    changed = look(tree)
    result = make_restore(
        plan, RestoreRequest(backup.backup_id, mode=RestoreMode.EXACT, selection=Selection(keys=("z",)))
    )
    assert look(tree)[b"z"][:6] == before[b"z"][:6]
    assert "1 files came back by one name only" in " ".join(result.notes)
    assert result.rescue_id is not None
    assert make_verification(plan, result.rescue_id).status is BackupStatus.VERIFIED
    make_undo(plan)
    assert {path: one for path, one in look(tree).items() if path != b"."} == {
        path: one for path, one in changed.items() if path != b"."
    }
    # a backup of a name that was narrowed to it, while it is one of several, is proved too
    (tree / "z").unlink()
    os.link(tree / "m", tree / "z")
    result = make_restore(
        plan, RestoreRequest(backup.backup_id, mode=RestoreMode.EXACT, selection=Selection(keys=("z",)))
    )
    assert result.rescue_id is not None
    assert make_verification(plan, result.rescue_id).status is BackupStatus.VERIFIED


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files on a file system without attributes."""
    (tmp_path / "bare").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", str(tmp_path / "bare")], check=True)
    yield tmp_path / "bare"
    subprocess.run(["umount", "-l", str(tmp_path / "bare")], check=True)


def test_a_proof_in_a_place_without_attributes_says_what_it_cannot_prove(
    plan: BackupPlan, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = make_backup(plan, BackupType.FULL)
    monkeypatch.setenv("TMPDIR", str(bare))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr("blocks.sources.files.destination.check_room", lambda need: None)  # ramfs says it has none
    verification = make_verification(plan, backup.backup_id)
    assert verification.status is BackupStatus.VERIFIED, verification.findings
    assert [one for one in verification.warnings if "attribute user.note" in one]


def test_an_attribute_that_cannot_be_set_ends_a_restore_that_keeps_going_as_not_whole(
    plan: BackupPlan, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = make_backup(plan, BackupType.FULL)
    monkeypatch.setattr("blocks.sources.files.destination.check_room", lambda need: None)  # ramfs says it has none
    wanted = RestoreRequest(backup.backup_id, mode=RestoreMode.EXACT, to=str(bare / "copy"))
    preview = make_restore(plan, replace(wanted, preview=True))
    assert [note for note in preview.notes if "security.capability: Operation not supported" in note], preview.notes
    assert [note for note in preview.notes if "user.*: Operation not supported" in note], preview.notes
    with pytest.raises(RestoreRefused, match="attribute"):
        make_restore(plan, wanted)
    assert not (bare / "copy").exists()
    with pytest.raises(RestoredInPart, match=r"attribute security\.capability of other: Operation not supported"):
        make_restore(plan, replace(wanted, keep_going=True))
    assert (bare / "copy" / "z").read_text() == "content"
    assert (bare / "copy" / "z").stat().st_ino == (bare / "copy" / "m").stat().st_ino


def test_what_changed_between_a_backup_of_an_earlier_version_and_one_of_this_is_only_what_did(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parent.parent / "golden" / "v1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    plan = make_plan(tmp_path / "plain", "none")
    repository = plan.repository.unlock(plan.encryption)
    old = repository.backups(plan.name)[-1]
    make_restore(plan, RestoreRequest(old.backup_id, mode=RestoreMode.EXACT))
    preview = make_restore(plan, RestoreRequest(old.backup_id, mode=RestoreMode.EXACT, preview=True))
    assert {(one.added, one.changed, one.removed) for one in preview.collections} == {(0, 0, 0)}
    os.setxattr(tmp_path / "plain" / "models" / "sparse", "user.new", b"x")
    new = make_backup(plan, BackupType.INCREMENTAL)
    assert new.backup_type is BackupType.FULL
    assert "format 1" in str(new.promoted_because)
    chains = []
    for one in (old, new):
        chain = Chain(repository, repository.find(plan.name, one.backup_id))
        chain.open_data({})
        chains.append(chain)
    changes = [
        (change.label, change.kind.value, [field.name for field in change.fields])
        for found in compare_backups(chains[0], chains[1], Selection(("models/*",)))
        for change in found.changes
    ]
    assert changes == [("sparse", "changed", ["xattrs"])]
