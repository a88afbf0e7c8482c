"""SQLite under the conformance suite."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blocks.sources.sqlite import SQLiteSource
from tests.conformance.suite import Cause, Fault, PathAdapter, Picture, Unbuildable

HOUR_NS = 3_600_000_000_000


class SQLiteAdapter(PathAdapter):
    """A database with one table of put records and one of rows without a key."""

    name = "sqlite"

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._path = folder / "live.db"
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = OFF")  # no test cuts the power while this writes
        self._db.execute("CREATE TABLE records (key TEXT PRIMARY KEY NOT NULL, n, more) WITHOUT ROWID")
        self._db.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, what)")

    @property
    def source(self) -> SQLiteSource:
        return SQLiteSource(path=str(self._path), part_size_bytes=400, busy_timeout_seconds=0.5)

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        odd = [None, -0.0, 1.5, b"\0\xff", "é", "", 2**63 - 1]
        self._db.executemany("INSERT INTO log (what) VALUES (?)", [(rng.choice(odd),) for _ in range(40)])

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        self._db.execute("DELETE FROM log WHERE id % 7 = ?", [rng.randrange(7)])
        self._db.execute("INSERT INTO log (what) VALUES (?)", [rng.random()])
        self._db.execute("UPDATE log SET id = -id WHERE id % 11 = ?", [rng.randrange(11)])

    def clear(self) -> None:
        self._db.executescript("DELETE FROM records; DELETE FROM log")

    def put(self, key: str, n: int) -> None:
        more = None if n % 3 else f"{n}" * (n % 9)
        self._db.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (key, n / 2 if n % 2 else n, more))

    def remove(self, key: str) -> None:
        self._db.execute("DELETE FROM records WHERE key = ?", [key])

    def picture(self, place: str | None = None) -> Picture:
        path = Path(place or self._path)
        if not path.exists():
            return {}
        db = sqlite3.connect(path)
        try:
            records: Picture = {("records", r[0]): repr(r) for r in db.execute("SELECT * FROM records")}
            records |= {("log", str(r[0])): repr(r) for r in db.execute("SELECT * FROM log")}
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'more'").fetchone():
                return records
            return records | {("more", "table"): 1} | {("more", str(r[0])): 1 for r in db.execute("SELECT * FROM more")}
        finally:
            db.close()

    def place(self) -> str:
        self._places += 1
        return str(self.folder / f"place{self._places}.db")

    def spellings(self) -> list[str]:
        link = self.folder / "link.db"
        link.symlink_to(self._path)
        return [str(link), os.path.relpath(self._path), f"{self.folder}/./live.db", f"file://{self._path}"]

    def narrowed(self) -> tuple[SQLiteSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"exclude": ["log"]}), lambda key: key[0] == "log"

    def add_collection(self) -> str:
        self._db.executescript("CREATE TABLE more (id INTEGER PRIMARY KEY); INSERT INTO more VALUES (1), (2)")
        return "more"

    def empty_collection(self, name: str) -> None:
        self._db.execute(f"DELETE FROM {name}")

    def put_unbuildable(self) -> Unbuildable:
        self._db.create_collation("the applications", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
        self._db.execute('CREATE INDEX by_more ON records (more COLLATE "the applications")')
        return Unbuildable("index 'by_more' of table 'records'", blamed="'by_more' of table 'records'")

    def faults(self) -> Iterator[Fault]:
        there, live = self.folder / "there", str(self._path)
        yield Fault(Cause.MISSING, str(there), self.source.at(str(there)), (live,))
        there.write_bytes(b"no database" * 100)
        yield Fault(Cause.MISSING, str(there), self.source.at(str(there)), (live,))
        self._db.execute("CREATE TABLE hides (rowid, oid, _rowid_)")
        yield Fault(Cause.OBJECT, "'hides'", others=("records", "'log'"))
        self._db.executescript("DROP TABLE hides; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        yield Fault(Cause.LOCKED, live)
        self._db.execute("ROLLBACK")
        self._db.executescript("PRAGMA locking_mode = NORMAL; SELECT 1 FROM records")

    def drop_collection(self, name: str) -> None:
        self._db.execute(f"DROP TABLE {name}")

    def unwritable(self) -> str:
        return str(self.folder / "missing" / "folder" / "x.db")

    def settle(self) -> None:
        moment = time.time_ns() - HOUR_NS
        os.utime(self._path, ns=(moment, moment))

    def close(self) -> None:
        self._db.close()
