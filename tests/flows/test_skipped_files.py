"""Files that change while they are read, and what cannot be read, are skipped as the source says, in all backups."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.repository.block import BackupRepository
from flows.backup import make_backup
from flows.check import check_repository
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.blocks.sources.files.kit import MIB, look, source_of
from tests.flows.flow_support import DIFFERENTIAL, FULL, INCREMENTAL
from tests.forked import NOBODY, forked


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


class Folder:
    """A plan of one folder, whose large files are in several parts."""

    def __init__(self, home: Path, **fields: object) -> None:
        self.tree, self._home, self._fields = home / "tree", home, fields
        self.tree.mkdir()
        for name in ("a", "z"):
            (self.tree / name).write_text(name)
        for name in ("big", "large"):
            (self.tree / name).write_bytes(os.urandom(4 * MIB))
        self.plan()
        self._plan.repository.initialize(self._plan.encryption)

    def plan(self, step: Callable[[bytes], None] = lambda path: None) -> BackupPlan:
        self._plan = BackupPlan(
            name="p",
            sources={"files": source_of(self.tree, step, part_size_bytes=MIB, **self._fields)},
            repository=BackupRepository(url=str(self._home / "repository")),
            encryption=NoEncryption(type="none"),
        )
        return self._plan

    def back_up(self, kind: object, step: Callable[[bytes], None] = lambda path: None) -> BackupMetadata:
        return make_backup(self.plan(step), kind)

    def restored_in_place(self, backup: BackupMetadata) -> None:
        make_restore(self.plan(), RestoreRequest(backup.backup_id))

    def restored(self, backup: BackupMetadata) -> dict[bytes, tuple[object, ...]]:
        place = self._home / "copy"
        if place.exists():
            shutil.rmtree(place)
        make_restore(self.plan(), RestoreRequest(backup.backup_id, to=str(place)))
        if (place / "half").exists():
            (place / "half").chmod(0o755)
        return look(place)


def rewriting(path: Path, at: int) -> Callable[[bytes], None]:
    """Write to a file when a part of it is read, the so-maniest time."""
    seen: list[bytes] = []

    def step(read: bytes) -> None:
        if read == os.fsencode(path.name):
            seen.append(read)
            if len(seen) == at:
                path.write_bytes(os.urandom(5 * MIB))

    return step


@pytest.mark.parametrize("at", [3, 4])
def test_a_large_file_that_changed_after_some_of_it_was_stored_is_skipped_as_a_whole(tmp_path: Path, at: int) -> None:
    folder = Folder(tmp_path, on_change="skip")
    before = look(folder.tree)
    first = folder.back_up(FULL)
    for kind in (INCREMENTAL, DIFFERENTIAL):
        os.utime(folder.tree / "large")
        os.utime(folder.tree / "big")
        changed = folder.back_up(kind, rewriting(folder.tree / "big", at))
        assert changed.sources[0].warnings == ("big kept changing; the backup keeps the version of its base",)
        assert folder.restored(changed)[b"big"] == before[b"big"]
    full = folder.back_up(FULL, rewriting(folder.tree / "big", at))
    assert full.sources[0].warnings == ("big kept changing and is not in this backup",)
    assert full.sources[0].definition == {"left_out": [b"big".hex()]}
    now = look(folder.tree)
    assert folder.restored(full) == {path: seen for path, seen in now.items() if path != b"big"}
    (folder.tree / "a").write_text("newer")
    folder.restored_in_place(full)
    assert look(folder.tree) == now
    assert folder.restored(first) == before
    assert check_repository(folder.plan(), 1.0).findings == []


def tell_what_is_skipped(home: Path) -> None:
    """Print what backups of a user say who may not read everything, and what comes back."""
    os.environ["XDG_STATE_HOME"] = f"{home}/state"
    folder = Folder(home, on_unreadable="skip")
    for name in ("shut/deep", "half", "gone"):
        (folder.tree / name).mkdir(parents=True)
        (folder.tree / name / "inside").write_text(name)
    (folder.tree / "half").chmod(0o755)
    before = look(folder.tree)
    folder.back_up(FULL)
    shut = [folder.tree / name for name in ("z", "big", "shut")]
    for path in shut:
        path.chmod(0)
    (folder.tree / "half").chmod(0o400)
    (folder.tree / "a").write_text("newer")
    (folder.tree / "gone" / "inside").unlink()
    for kind in (INCREMENTAL, DIFFERENTIAL):
        made = folder.back_up(kind)
        copy = folder.restored(made)
        print(len(made.sources[0].warnings), sorted(n for n in {*before, *copy} if before.get(n) != copy.get(n)))
        if kind is INCREMENTAL:
            print("\n".join(sorted(made.sources[0].warnings)))
    made = folder.back_up(FULL)
    print(sorted(folder.restored(made)))
    for path in shut:
        path.chmod(0o755)
    (folder.tree / "half").chmod(0o755)
    (folder.tree / "shut" / "new").write_text("new")
    (folder.tree / "new").write_text("new")
    folder.restored_in_place(made)
    print(*(sorted(os.listdir(folder.tree / name)) for name in (".", "shut", "half")))


def test_what_cannot_be_read_is_left_as_the_base_has_it_and_never_taken_as_deleted(anybodys: Path) -> None:
    os.chown(anybodys, NOBODY, NOBODY)

    def unprivileged() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        tell_what_is_skipped(anybodys)

    lines = forked(unprivileged).splitlines()
    assert lines[0] == "4 [b'a', b'gone', b'gone/inside']"
    assert [line.partition(" (Perm")[0] for line in lines[1:5]] == [
        "big cannot be read",
        "half/inside cannot be read",
        "shut cannot be read",
        "z cannot be read",
    ]
    assert lines[1] == "big cannot be read (Permission denied); the backup keeps the version of its base"
    assert lines[5] == "4 [b'a', b'gone', b'gone/inside']"
    assert lines[6] == "[b'.', b'a', b'gone', b'half', b'large']"
    assert lines[7] == "['a', 'big', 'gone', 'half', 'large', 'shut', 'z'] ['deep', 'new'] ['inside']"
