"""A small live state, a database and a folder, with oracles that owe nothing to lastgood."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.crypto.keyring import Credential, Kem, Keyring, NoEncryption, generate_key_file
from blocks.plan.plan import BackupPlan
from blocks.plan.retention import RetentionPolicy
from blocks.repository.block import BackupRepository
from blocks.repository.leases import Clock
from blocks.repository.repository import Repository
from blocks.sources.files import FilesSource
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode
from blocks.storage.base import StorageTier
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest

PLAN = "trading"

Entry = tuple[str, int, bytes]


@dataclass(frozen=True)
class Oracle:
    """A state as other tools see it: the dump of the database; kind, mode and content of each path."""

    dump: tuple[str, ...]
    tree: Mapping[str, Entry]


def dump_of(path: Path) -> tuple[str, ...]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return tuple(connection.iterdump())


def tree_of(root: Path) -> dict[str, Entry]:
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode & 0o7777
        if path.is_symlink():
            entry = ("link", 0, os.fsencode(os.readlink(path)))
        elif path.is_dir():
            entry = ("folder", mode, b"")
        else:
            entry = ("file", mode, path.read_bytes())
        found[str(path.relative_to(root))] = entry
    return found


class LiveState:
    """A database with two tables and a tree; everything in it comes from one seed.

    Args:
        folder: Where it is, or is to be made.
        rows: Rows of the larger table.
        blob_bytes: Size of each incompressible BLOB of the smaller table.
        file_bytes: Size of the largest file, incompressible.
        curve_bytes: Size of the only BLOB of a third table, incompressible; without one there is no such table.
    """

    def __init__(
        self, folder: Path, rows: int = 80, blob_bytes: int = 200, file_bytes: int = 3000, curve_bytes: int = 0
    ) -> None:
        self.database, self.tree = folder / "ledger.db", folder / "models"
        self._rows, self._blob_bytes, self._file_bytes = rows, blob_bytes, file_bytes
        self._curve_bytes = curve_bytes
        self._random = random.Random(42)

    def create(self) -> None:
        (self.tree / "deep").mkdir(parents=True)
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL, note)")
            connection.execute("CREATE TABLE models (name TEXT PRIMARY KEY, weights BLOB) WITHOUT ROWID")
            connection.execute("CREATE INDEX by_symbol ON orders (symbol)")
            rows = ((i, f"symbol {i % 7}", i * 1.5, "x" * 40) for i in range(self._rows))
            connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", rows)
            connection.executemany("INSERT INTO models VALUES (?, ?)", [(f"m{i}", self._bytes()) for i in range(3)])
            if self._curve_bytes:
                connection.execute("CREATE TABLE curves (name TEXT PRIMARY KEY, points BLOB) WITHOUT ROWID")
                connection.execute("INSERT INTO curves VALUES ('c', ?)", (self._random.randbytes(self._curve_bytes),))
        (self.tree / "weights.bin").write_bytes(self._random.randbytes(self._file_bytes))
        (self.tree / "deep" / "config.json").write_text('{"a": 1}')
        (self.tree / "latest").symlink_to("weights.bin")

    def _bytes(self) -> bytes:
        return self._random.randbytes(self._blob_bytes)

    def change(self, step: int) -> None:
        """Change, add and delete rows and files."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute("DELETE FROM orders WHERE id % 11 = ?", (step,))
            connection.execute("UPDATE orders SET note = ? WHERE id % 13 = ?", (f"step {step}", step))
            connection.execute("INSERT INTO orders VALUES (?, 'new', NULL, ?)", (10_000 + step, self._bytes()))
            connection.execute("UPDATE models SET weights = ? WHERE name = 'm1'", (self._bytes(),))
            connection.execute("DELETE FROM models WHERE name = ?", (f"m{10 + step - 1}",))
            connection.execute("INSERT INTO models VALUES (?, ?)", (f"m{10 + step}", self._bytes()))
            if self._curve_bytes:
                connection.execute("UPDATE curves SET points = ?", (self._random.randbytes(self._curve_bytes),))
        (self.tree / f"made {step - 1}.txt").unlink(missing_ok=True)
        (self.tree / f"made {step}.txt").write_text(f"step {step}")
        (self.tree / "weights.bin").write_bytes(self._random.randbytes(self._file_bytes + step))

    def oracle(self) -> Oracle:
        return Oracle(dump_of(self.database), tree_of(self.tree))


class LaterClock(Clock):
    """The real time, moved: what a process sees that comes back later."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def of_storage(self, tier: StorageTier) -> datetime:
        return super().of_storage(tier) + self._ahead


class LaterRepository(BackupRepository):
    """A repository that is opened an hour later, when the lease of a run that died has expired."""

    # its own, so that the registry of blocks keeps the real one
    _block_type_name = "Later Repository"
    _block_type_slug = "later-repository"

    def unlock(self, settings: Keyring | NoEncryption, clock: Clock | None = None) -> Repository:
        return super().unlock(settings, clock or LaterClock(timedelta(hours=1)))


def make_plan(
    state: LiveState,
    repository: Path,
    key: Path | None,
    part_size_bytes: int = 4000,
    later: bool = False,
) -> BackupPlan:
    """Make a plan over a live state; without a key nothing is encrypted."""
    kind = LaterRepository if later else BackupRepository
    ring = Keyring(credential=Credential(key_file=key), kem=Kem.X25519) if key else NoEncryption(type="none")
    plan = BackupPlan(
        name=PLAN,
        sources={
            "ledger": SQLiteSource(path=str(state.database), part_size_bytes=part_size_bytes),
            "models": FilesSource(url=str(state.tree), part_size_bytes=part_size_bytes),
        },
        repository=BackupRepository(url=str(repository)),
        encryption=ring,
        retention=RetentionPolicy(),
    )
    # a subclass of the repository is no field of a plan as people write it
    return plan.model_copy(update={"repository": kind(url=str(repository))})


def make_key(path: Path) -> Path:
    generate_key_file(path)
    return path


def restored(plan: BackupPlan, backup_id: str, to: Path) -> Oracle:
    """Restore a whole backup to a fresh folder and look at it with other tools."""
    result = make_restore(plan, RestoreRequest(backup_id, mode=RestoreMode.EXACT, to=str(to)))
    if backup_id != "latest":
        assert result.backup_id == backup_id
    return Oracle(dump_of(to / "ledger" / "ledger.db"), tree_of(to / "models" / "tree"))
