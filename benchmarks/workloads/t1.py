"""T1: many small tables, and a backup of a few changes in them."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, compete
from benchmarks.ours import Lastgood
from benchmarks.report import Outcome

TABLES = 800
_NAMES = ("name", "email", "created_at", "amount", "status", "user_id", "price", "qty", "note", "kind", "ref", "city")
_FEW = 3


def run(bench: Bench) -> Outcome:
    """Back up a database of small tables, then changes in three of them; prove that both come back."""
    tables = bench.size(TABLES, least=20)
    path = bench.folder / "tables.db"
    path.unlink(missing_ok=True)
    _make(path, tables)
    ours = Lastgood(bench, "tables", {"tables": {"type": "sqlite", "path": str(path)}})
    one = Contestant("lastgood", lambda: ours.backup("full"), ours.init, ours.stored_bytes)
    outcome = Outcome("T1", f"full backup of {tables} small tables")
    outcome.series = compete([one], bench.pairs, bench.say)
    objects, stored = _objects(ours), ours.stored_bytes()
    _change(path)
    ours.backup("incremental")
    ours.restore(bench.fresh("tables"))
    if _content(bench.folder / "tables") != _content(path):
        raise RuntimeError("the tables did not come back as they were")
    outcome.facts = [
        ("objects of the repository", f"{objects}", "20"),
        ("bytes stored", f"{stored / 1e3:.1f} KB", "60 KB"),
        ("objects of an incremental of three tables", f"{_objects(ours) - objects}", "4"),
        ("bytes of it", f"{(ours.stored_bytes() - stored) / 1e3:.1f} KB", ""),
    ]
    return outcome


def _objects(ours: Lastgood) -> int:
    """Count the objects of a repository, its lease aside."""
    return sum(path.is_file() and "locks" not in path.parts for path in ours.repository.rglob("*"))


def _make(path: Path, tables: int) -> None:
    chance = random.Random(1)
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(tables):
            columns = chance.sample(_NAMES, 3)
            connection.execute(f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, {', '.join(columns)})")
            for row in range(chance.choice((1, 1, 2))):
                values = (row, "alpha", f"beta{chance.randrange(10)}", "x")
                connection.execute(f"INSERT INTO t{number} VALUES (?, ?, ?, ?)", values)


def _change(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for number in range(_FEW):
            connection.execute(f"INSERT INTO t{number} (id) VALUES (99)")


def _content(path: Path) -> list[str]:
    found = next(path.rglob("*.db")) if path.is_dir() else path
    with closing(sqlite3.connect(found)) as connection:
        return list(connection.iterdump())
