"""What state really was at a moment, kept outside of lastgood, and how a restored copy differs from it."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from deployments.demo.trading.ledger import INVARIANT

FOLDERS = ("config", "models")


@dataclass(frozen=True)
class Oracle:
    """State at one moment.

    Attributes:
        dump: The ledger's `.dump`, line by line: definitions, rows, counters.
        files: Kind, mode, time of change and content of every file and folder, by path.
        size_bytes: Bytes of the ledger's file and of all files.
        cache: Redis's own digest of every key and of all of them, expiries, groups of streams; None without a Redis.
        books: What pg_dump writes of the books, line by line; None without a PostgreSQL.
    """

    dump: tuple[str, ...]
    files: dict[str, tuple[object, ...]]
    size_bytes: int
    cache: dict[str, tuple[object, ...]] | None = None
    books: tuple[str, ...] | None = None

    @property
    def rows(self) -> int:
        """Rows of the ledger."""
        return sum(line.startswith("INSERT INTO") for line in self.dump)


def freeze(ledger: Path, folders: dict[str, Path]) -> Oracle:
    """Look at state; nothing may write meanwhile.

    Args:
        ledger: The database.
        folders: The folders of files, by name.
    """
    with closing(open_read_only(ledger)) as connection:
        dump = tuple(connection.iterdump())
    files: dict[str, tuple[object, ...]] = {}
    size_bytes = ledger.stat().st_size
    for name, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            files[f"{name}/{path.relative_to(folder)}"] = _describe(path)
            size_bytes += path.lstat().st_size if path.is_file() else 0
    return Oracle(dump, files, size_bytes)


def _describe(path: Path) -> tuple[object, ...]:
    info = path.lstat()
    if path.is_symlink():
        return ("link", str(path.readlink()))
    if path.is_dir():
        return ("folder", stat.S_IMODE(info.st_mode))
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return ("file", stat.S_IMODE(info.st_mode), info.st_mtime_ns, content)


def open_read_only(ledger: Path) -> sqlite3.Connection:
    """Open a ledger only to look at it."""
    return sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)


def different_lines(expected: Iterable[str], found: Iterable[str]) -> list[str]:
    """Return the lines that only one of two dumps has; rows of a table have no order."""
    here, there = Counter(expected), Counter(found)
    return sorted(((here - there) + (there - here)).elements())


def different_entries(expected: Mapping[str, object], found: Mapping[str, object]) -> list[str]:
    """Return the files, or the keys of a Redis, that are not the same in two states."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def order_ids(ledger: Path) -> set[int]:
    """Return the ids of all orders."""
    with closing(open_read_only(ledger)) as connection:
        return {order for (order,) in connection.execute("SELECT id FROM orders")}


def broken_invariants(ledger: Path) -> int:
    """Count positions and cash that are not the sum of the orders' fills."""
    with closing(open_read_only(ledger)) as connection:
        (broken,) = connection.execute(INVARIANT).fetchone()
        return int(broken)
