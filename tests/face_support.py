"""A small application with a ledger and a state object, its plan in a file, and programs run beside it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import yaml

from blocks.plan.plan import read_plan

ROOT = Path(__file__).parents[1]

MANAGER = """
import fnmatch

class Manager:
    def __init__(self):
        self.values = {"position:1": 5, "position:2": None}

    def get_keys_by_pattern(self, pattern):
        return [key for key in self.values if fnmatch.fnmatch(key, pattern)]

    def get_state(self, key):
        return self.values[key]

    def set_state(self, key, value):
        self.values[key] = value

    def delete_state(self, key):
        self.values.pop(key, None)

    def create_snapshot(self):
        picture = Manager()
        picture.values = dict(self.values)
        return picture

manager = Manager()
"""


class Application:
    """A folder with live state, a plan in `trading.yaml` and its repository.

    Args:
        folder: Where it is made.
        module: Name of the module with the state object; none for a plan without one.
        repository: Whether to make the repository.
    """

    def __init__(self, folder: Path, module: str | None = None) -> None:
        self.folder, self.ledger, self.plan = folder, folder / "ledger.db", folder / "trading.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, price REAL)")
        self.sql("INSERT INTO orders VALUES (1, 0.5), (2, 1.5)")
        sources: dict[str, dict[str, object]] = {"ledger": {"type": "sqlite", "path": "./ledger.db"}}
        if module is not None:
            (folder / f"{module}.py").write_text(MANAGER)
            sources["live"] = {"type": "mapping", "object": f"{module}:manager", "search_path": ["."]}
        said = {"name": "trading", "sources": sources, "repository": {"url": "./backups"}, "encryption": "none"}
        self.plan.write_text(yaml.safe_dump(said))
        opened = read_plan(self.plan)
        opened.repository.initialize(opened.encryption)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.ledger)) as db, db:
            return db.execute(statement).fetchall()


def run(
    program: str, *words: str, cwd: Path, path: Sequence[Path] = (ROOT,), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of Python in a folder, with modules from some others; without any Prefect settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *words],
        cwd=cwd,
        env=clean | {"PYTHONPATH": os.pathsep.join(map(str, path)), "HOME": str(cwd)} | variables,
        capture_output=True,
        text=True,
    )
