"""The room that a restore needs is estimated by what it writes: a nearly full disk is not refused for nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import RestoreRefused
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from flows.backup import make_backup
from flows.pipeline.chain import Chain
from flows.restore import make_restore
from flows.restoring.change_list import ChangeList
from flows.restoring.request import RestoreRequest

MEGABYTE = 2**20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own, or a folder where that is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    assert mounted.returncode == 0 or os.geteuid() != 0, mounted.stderr
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)


def plan_of(folder: Path, place: Path) -> BackupPlan:
    plan = BackupPlan(
        name="room",
        sources={"tree": FilesSource(url=str(place))},
        repository=BackupRepository(url=str(folder / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    return plan


def estimate(plan: BackupPlan, selection: Selection = Selection()) -> int:  # noqa: B008  frozen
    repository = plan.repository.unlock(plan.encryption)
    chain = Chain(repository, repository.find("room"))
    return ChangeList(plan, chain, RestoreRequest(selection=selection)).scope("tree", True).size_bytes


def fill(tree: Path) -> None:
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(3 * MEGABYTE // 2))
    (tree / "one").write_bytes(b"good")


def test_one_record_of_a_large_collection_fits_on_a_nearly_full_disk(tmp_path: Path, small: Path) -> None:
    tree = small / "tree"
    fill(tree)
    plan = plan_of(tmp_path, tree)
    make_backup(plan, BackupType.FULL)
    (tree / "one").write_bytes(b"bad")
    (small / "full").write_bytes(bytes(2 * MEGABYTE))
    result = make_restore(plan, RestoreRequest(selection=Selection(keys=("one",))))
    assert result.rescue_id is not None
    assert (tree / "one").read_bytes() == b"good"
    if os.path.ismount(small):
        with pytest.raises(RestoreRefused, match="bytes free"):
            make_restore(plan, RestoreRequest())


def test_what_was_written_again_and_again_needs_room_once(tmp_path: Path, small: Path) -> None:
    tree = tmp_path / "tree"
    fill(tree)
    plan = plan_of(tmp_path, tree)
    make_backup(plan, BackupType.FULL)
    for _ in range(4):
        (tree / "large").write_bytes(os.urandom(3 * MEGABYTE // 2))
        make_backup(plan, BackupType.INCREMENTAL)
    make_restore(plan, RestoreRequest(to=str(small / "copy")))
    assert (small / "copy" / "large").read_bytes() == (tree / "large").read_bytes()


def test_a_row_that_is_wider_than_the_others_has_room(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "grows").write_bytes(b"")
    for n in range(50):
        (tree / f"f{n}").write_bytes(b"x")
    plan = plan_of(tmp_path, tree)
    make_backup(plan, BackupType.FULL)
    (tree / "grows").write_bytes(os.urandom(MEGABYTE))
    make_backup(plan, BackupType.INCREMENTAL)
    assert estimate(plan) >= MEGABYTE
    for n in range(50):
        (tree / f"f{n}").write_bytes(b"y")
    make_backup(plan, BackupType.INCREMENTAL)
    assert estimate(plan) >= MEGABYTE


def test_what_was_deleted_since_the_full_needs_no_room(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for n in range(8):
        (tree / f"f{n}").write_bytes(os.urandom(MEGABYTE))
    plan = plan_of(tmp_path, tree)
    make_backup(plan, BackupType.FULL)
    for n in range(7):
        (tree / f"f{n}").unlink()
    make_backup(plan, BackupType.INCREMENTAL)
    assert MEGABYTE <= estimate(plan) < 4 * MEGABYTE
