"""Which allocators a process has: the command's own, and those of its runs, but nobody else's."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.face_support import ROOT, Application, run

SETTINGS = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}
SHOWN = "import pyarrow; print(pyarrow.default_memory_pool().backend_name, *map(os.environ.get, NAMES))"
PROGRAM = f"""
import atexit, os, sys
NAMES = {list(SETTINGS)!r}
def show():
    {SHOWN}
atexit.register(show)
"""


def test_a_command_and_its_children_use_the_allocator_of_the_system(tmp_path: Path) -> None:
    made = Application(tmp_path / "app")
    done = run(f"{PROGRAM}\nfrom lastgood import main\nsys.exit(main())", "backup", "trading.yaml", cwd=made.folder)
    assert done.stdout.splitlines()[-1] == "system system 2", done.stderr


def test_who_decided_otherwise_is_left_alone(tmp_path: Path) -> None:
    made = Application(tmp_path / "app")
    chosen = {"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}
    script = f"{PROGRAM}\nfrom lastgood import main\nsys.exit(main())"
    done = run(script, "backup", "trading.yaml", cwd=made.folder, **chosen)
    assert done.stdout.splitlines()[-1] == "mimalloc mimalloc None", done.stderr


def test_a_program_that_calls_lastgood_keeps_its_own(tmp_path: Path) -> None:
    made = Application(tmp_path / "app")
    script = f"""{PROGRAM}
import lastgood
from lastgood import main
lastgood.backup("trading.yaml")
assert main(["list", "trading.yaml", "--json"]) == 0
"""
    done = run(script, cwd=made.folder)
    pool, *variables = done.stdout.splitlines()[-1].split()
    assert variables == ["None", "None"], done.stderr
    assert pool == run("import pyarrow; print(pyarrow.default_memory_pool().backend_name)", cwd=tmp_path).stdout.strip()


def test_the_runs_of_a_work_pool_are_told_the_same() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [one["work_pool"]["job_variables"]["env"] for one in deployments] == [SETTINGS] * len(deployments)
