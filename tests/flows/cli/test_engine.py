"""Commands that need neither Prefect nor pandas: they do not import them, and do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.engine import _incremental, needs_prefect
from tests.flows.cli.desk import Desk
from tests.flows.cli.test_app import environment

# a process in which neither can be imported, as on a machine where their installation broke
BROKEN = """
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ImportError(f"{name} is broken here")

sys.meta_path.insert(0, Broken())
from flows.cli import main
sys.exit(main())
"""


def run(*words: str, banned: tuple[str, ...] = ("prefect", "pandas")) -> subprocess.CompletedProcess[str]:
    script = BROKEN.replace("BANNED", repr(banned))
    return subprocess.run([sys.executable, "-c", script, *words], env=environment(), capture_output=True, text=True)


def done(*words: str, banned: tuple[str, ...] = ("prefect", "pandas")) -> str:
    ran = run(*words, banned=banned)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder and a home in which nothing names a Prefect server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_worst_day_needs_no_prefect_that_starts(desk: Desk) -> None:
    plan = str(desk.plan)
    made = json.loads(done("backup", plan, "--type", "full", "--no-server", "--json"))["id"]
    desk.sql("update orders set price = 0 where id = 7")
    desk.sql("delete from orders where id = 9")
    done("backup", plan, "--no-server")
    assert made in done("list", plan)
    assert "orders" in done("show", plan, "latest")
    assert "price" in done("diff", plan, made, "latest")
    done("check", plan, "--read-data")
    done("key", "list", plan)
    done("retention", plan, "--dry-run", "--no-server")
    done("verify", plan, "--deep", "--no-server", banned=("prefect",))
    desk.sql("delete from orders")
    done("restore", plan, "--yes", "--no-server", "--mode", "exact")
    assert desk.sql("select count(*), sum(price = 0) from orders") == [(199, 1)]


def test_a_plan_that_is_named_needs_prefect_and_says_what_is_wrong_with_it(desk: Desk) -> None:
    ran = run("list", "trading", "--debug")
    assert ran.returncode == 1
    assert "prefect is broken here" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        "list plan.yaml",
        "show ./plan.yml latest --json",
        "key list plan.yaml",
        "key add plan.yaml --role writer",
        "check plan.yaml --read-data",
        "backup plan.yaml",
        "restore plan.yaml latest --no-server",
    ],
)
def test_a_command_on_a_file_with_no_server_named_does_without(away: Path, words: str) -> None:
    assert not needs_prefect(words.split())


@pytest.mark.parametrize(
    "words", ["list trading", "backup trading --no-server", "plan save plan.yaml", "serve plan.yaml", "demo", "", "key"]
)
def test_a_name_or_a_command_of_prefect_needs_it(away: Path, words: str) -> None:
    assert needs_prefect(words.split())


def test_a_server_that_may_be_configured_is_looked_for(away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = ["backup", "plan.yaml"]
    for file, text in ((".env", ""), ("prefect.toml", ""), (".prefect/profiles.toml", "")):
        (away / file).parent.mkdir(exist_ok=True)
        (away / file).write_text(text)
        assert needs_prefect(backup)
        assert not needs_prefect([*backup, "--no-server"])
        assert not needs_prefect(["list", "plan.yaml"])
        (away / file).unlink()
    (away / "pyproject.toml").write_text("[tool.other]")
    assert not needs_prefect(backup)
    (away / "pyproject.toml").write_text("[tool.prefect.api]\nurl = 'http://127.0.0.1:4200/api'")
    assert needs_prefect(backup)
    (away / "pyproject.toml").unlink()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert needs_prefect(backup)


def test_a_light_command_leaves_as_any_other(desk: Desk) -> None:
    """What was printed is there, and threads and functions for the end of the process have had their turn."""
    script = """
import atexit, sys, threading
atexit.register(print, "at the end")
ready = threading.Event()
threading.Thread(target=lambda: (ready.wait(), print("from a thread"))).start()
atexit.register(lambda: None)
from flows.cli import main
from flows.cli import app
leave = app.leave
app.leave = lambda code: (ready.set(), leave(code))
sys.exit(main())
"""
    command = [sys.executable, "-c", script, "list"]
    for plan, code in ((str(desk.plan), 0), (str(desk.folder / "missing.yaml"), 2)):
        ran = subprocess.run([*command, plan], env=environment(), capture_output=True, text=True)
        assert ran.returncode == code
        assert ran.stdout.endswith("from a thread\nat the end\n")
        assert ("error: plan" in ran.stderr) == bool(code)


def test_a_view_of_a_database_is_begun_before_arrow_is_imported() -> None:
    script = (
        "from blocks.engine import do_without_prefect; do_without_prefect()\n"
        "import sys, blocks.sources.postgres\n"
        "sys.exit(str({'pyarrow', 'numpy', 'prefect'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert ran.stderr == "set()\n"


@pytest.mark.parametrize(
    ("words", "incremental"),
    [
        ("backup p.yaml", True),
        ("backup p.yaml --type incremental --json", True),
        ("backup --type=full p.yaml", False),
        ("backup p.yaml --type differential", False),
        ("backup p.yaml --type", False),
    ],
)
def test_only_an_incremental_asks_ahead_what_changed(words: str, incremental: bool) -> None:
    assert _incremental(words.split()) == incremental
