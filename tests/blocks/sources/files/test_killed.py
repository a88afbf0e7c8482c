"""A restore in place that is killed, at whatever step, is taken back by the backup made before it."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from blocks.sources.files import renames
from tests.blocks.sources.files.kit import InPlace, back_up, look, source_of
from tests.faults.killing import DIED, Executioner
from tests.forked import forked, killed


def make(tree: Path) -> None:
    (tree / "d").mkdir(parents=True)
    for name in ("a", "d/b", "turns"):
        (tree / name).write_text(name)
        os.utime(tree / name, ns=(1, 1))
    (tree / "l").symlink_to("a")


def spoil(tree: Path) -> None:
    (tree / "a").write_text("newer")
    (tree / "d" / "b").unlink()
    (tree / "d").rmdir()
    (tree / "turns").unlink()
    (tree / "turns").mkdir()
    (tree / "turns" / "inside").write_text("x")
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "new" / "deep" / "file").write_bytes(b"x" * 2_000_000)
    (tree / "new" / "shut").mkdir(0o500)


def restore_and_die(folder: Path, number: int) -> None:
    """Restore the good tree over the spoiled one, and die at a step of that."""
    _, backup = back_up(source_of(folder / "good"))
    restoring = InPlace(source_of(folder / "tree"), backup)
    restoring.make_ready()
    executioner = Executioner(folder, number)
    for name in ("mkdir", "rename", "unlink", "rmdir", "symlink"):
        executioner.watch(os, name, after=False)
    executioner.watch(renames, "swap_in", after=False)
    restoring.target.check_unwritten()
    restoring.target.commit()


def take_back(folder: Path) -> None:
    """Restore the backup that was made before the restore."""
    _, emergency = back_up(source_of(folder / "spoiled"))
    InPlace(source_of(folder / "tree"), emergency).run()
    assert look(folder / "tree") == look(folder / "spoiled"), "not as it was before"
    left = [name for name in os.listdir(folder) if "lastgood" in name]
    assert left == [], left


def test_a_killed_restore_is_taken_back_and_leaves_nothing(tmp_path: Path) -> None:
    # what is there after a step is there before the next one, and the last run ends alive
    deaths = list[str]()
    while True:
        folder = tmp_path / str(len(deaths))
        for name in ("good", "spoiled"):
            make(folder / name)
        spoil(folder / "spoiled")
        shutil.copytree(folder / "spoiled", folder / "tree", symlinks=True)
        if not killed(partial(restore_and_die, folder, len(deaths) + 1)):
            break
        deaths.append((folder / DIED).read_text())
        forked(partial(take_back, folder))
    assert any("swap_in" in death for death in deaths)
    assert any("rename" in death for death in deaths)
    assert len(deaths) >= 12
