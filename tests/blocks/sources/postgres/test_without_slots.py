"""What reads a replication slot can be left out of an installation: all else works without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[4]

_WITHOUT_IT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if (name + ".").startswith("blocks.sources.postgres.cdc."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""

_IMPORTS = """
import importlib, pkgutil
import blocks.sources.postgres as postgres

for module in pkgutil.walk_packages(postgres.__path__, "blocks.sources.postgres.", onerror=lambda name: None):
    if not module.name.startswith("blocks.sources.postgres.cdc"):
        importlib.import_module(module.name)
assert "blocks.sources.postgres.read.view" in sys.modules
"""

_COMMAND = """
from lastgood import main
sys.exit(main())
"""


def without_slots(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT_IT + script, *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)


class Plan:
    """A plan over one database, and commands that run without what reads slots."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        self.server, self.path = server, folder / "books.yaml"
        server.create("dropped", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        self.write()
        self.run("init")

    def write(self, **fields: str) -> None:
        source = {"type": "postgres", "dsn": self.server.dsn("dropped"), "pg_dump": str(self.server.programs.pg_dump)}
        plan = {"name": "books", "repository": {"url": "./repository"}, "encryption": {"type": "none"}}
        self.path.write_text(json.dumps(plan | {"sources": {"books": source | fields}}))

    def try_out(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        return without_slots(_COMMAND, command, str(self.path), *words, "--json")

    def run(self, command: str, *words: str) -> Any:
        done = self.try_out(command, *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def change(self) -> None:
        self.server.run("dropped", "UPDATE t SET v = 'new' WHERE id = 1; DELETE FROM t WHERE id = 2")

    def rows(self) -> list[tuple[object, ...]]:
        with self.server.connect("dropped") as session:
            return session.execute("SELECT id, v FROM t ORDER BY id").fetchall()


@pytest.fixture
def plan(server: PostgresServer, tmp_path: Path) -> Plan:
    return Plan(server, tmp_path)


def test_everything_else_is_imported_without_it() -> None:
    done = without_slots(_IMPORTS)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.share(2)
def test_an_incremental_finds_what_changed_without_it(plan: Plan) -> None:
    plan.run("backup", "--type", "full")
    plan.change()
    made = plan.run("backup", "--type", "incremental")
    assert made["type"] == "incremental"
    plan.server.run("dropped", "DROP TABLE t")
    plan.run("restore", "latest", "--yes")
    assert plan.rows() == [(1, "new")]


def test_a_backup_of_a_plan_that_asks_for_a_slot_says_what_is_missing(plan: Plan) -> None:
    plan.write(slot="lastgood_books")
    done = plan.try_out("backup", "--type", "full")
    assert done.returncode == ConfigurationError.exit_code
    assert "replication slot lastgood_books" in done.stderr
    assert "Take `slot` out of the plan" in done.stderr
    assert "Traceback" not in done.stderr
    assert plan.run("list")["backups"] == []


def test_a_plan_that_asks_for_a_slot_still_restores(plan: Plan) -> None:
    plan.run("backup", "--type", "full")
    plan.write(slot="lastgood_books")
    plan.change()
    plan.run("restore", "latest", "--yes")
    assert plan.rows() == [(1, "a"), (2, "b")]
    plan.run("undo", "--yes")
    assert plan.rows() == [(1, "new")]
    plan.run("verify", "--deep")
