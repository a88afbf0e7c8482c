"""A restore in place that is killed, at whatever step, is taken back by the backup made before it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PROJECT = Path(__file__).parents[4]

_PROGRAM = """
import json, os, shutil, sys, traceback
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from blocks.sources.files import renames
from tests.blocks.sources.files.kit import InPlace, back_up, look, source_of
from tests.blocks.sources.files.test_killed import make, spoil
from tests.faults.killing import DIED, Executioner

base = Path(sys.argv[1])


def restore_and_die(tree, backup_of, number):
    _, backup = back_up(source_of(backup_of))
    restoring = InPlace(source_of(tree), backup)
    restoring.make_ready()
    executioner = Executioner(tree.parent, number)
    for name in ("mkdir", "rename", "unlink", "rmdir", "symlink"):
        executioner.watch(os, name, after=False)
    executioner.watch(renames, "swap_in", after=False)
    restoring.target.check_unwritten()
    restoring.target.commit()


def take_back(tree, spoiled, number):
    _, emergency = back_up(source_of(spoiled))
    InPlace(source_of(tree), emergency).run()
    assert look(tree) == look(spoiled), "not as it was before"
    left = [name for name in os.listdir(tree.parent) if "lastgood" in name]
    assert left == [], left


def forked(action, *arguments):
    child = os.fork()
    if child == 0:
        try:
            action(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


deaths, number = [], 0
while True:
    number += 1
    folder = base / f"{number}"
    for name in ("tree", "good", "spoiled"):
        make(folder / name)
    shutil.rmtree(folder / "tree")
    spoil(folder / "spoiled")
    shutil.copytree(folder / "spoiled", folder / "tree", symlinks=True)
    status = forked(restore_and_die, folder / "tree", folder / "good", number)
    if status == 0:
        break
    assert os.WIFSIGNALED(status), status
    deaths.append((folder / DIED).read_text())
    assert forked(take_back, folder / "tree", folder / "spoiled", number) == 0, deaths[-1]
print(json.dumps(deaths))
"""


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


def test_a_killed_restore_is_taken_back_and_leaves_nothing(tmp_path: Path) -> None:
    # what is there after a step is there before the next one, and the last run ends alive
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), str(_PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    deaths = json.loads(done.stdout)
    assert any("swap_in" in death for death in deaths)
    assert any("rename" in death for death in deaths)
    assert len(deaths) >= 12
