"""A small live application (a ledger and a folder of models), its plan, and exact pictures of its state."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from blocks.crypto.keyring import Credential, Keyring, NoEncryption, generate_key_file
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus, BackupType, Blob, Segment
from blocks.repository import repository
from blocks.repository.block import BackupRepository, Repository
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource, observed
from blocks.sources.sqlite import SQLiteSource, view
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline import attempt, open_backup, packs
from flows.pipeline.progress import Progress
from flows.pipeline.results import RestoreResult
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.stages import compress

FULL, DIFFERENTIAL, INCREMENTAL = BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL
SNAPSHOT, EMERGENCY = BackupType.SNAPSHOT, BackupType.EMERGENCY
PREVIEW, MERGE, EXACT = RestoreMode.PREVIEW, RestoreMode.MERGE, RestoreMode.EXACT
VERIFIED, CORRUPTED, COMPLETED = BackupStatus.VERIFIED, BackupStatus.CORRUPTED, BackupStatus.COMPLETED

Picture = dict[str, Any]
HOUR_NS = 3_600_000_000_000


class Shop:
    """An application's live state below `state/`, and its plan with a repository below `repository/`."""

    def __init__(
        self,
        folder: Path,
        encrypted: bool = True,
        part_size_bytes: int = 800,
        allow_empty: bool = False,
        **fields: Any,
    ) -> None:
        self.folder = folder
        self.database, self.tree = folder / "state" / "ledger.db", folder / "state" / "models"
        self.tree.mkdir(parents=True)
        self.db = sqlite3.connect(self.database, isolation_level=None)
        key = folder / "key"
        generate_key_file(key)
        self.plan = BackupPlan(
            name="trading",
            sources={
                "ledger": SQLiteSource(
                    path=str(self.database), part_size_bytes=part_size_bytes, allow_empty=allow_empty
                ),
                "models": FilesSource(url=str(self.tree), allow_empty=allow_empty),
            },
            repository=BackupRepository(url=str(folder / "repository")),
            encryption=Keyring(credential=Credential(key_file=key)) if encrypted else NoEncryption(type="none"),
            **fields,
        )
        self.kit = self.plan.repository.initialize(self.plan.encryption)

    @property
    def repository(self) -> Repository:
        return self.plan.repository.unlock(self.plan.encryption)

    @property
    def ids(self) -> list[str]:
        return [backup.backup_id for backup in self.repository.backups("trading")]

    def objects(self, backup: BackupMetadata) -> Path:
        return self.folder / "repository" / "backups" / "trading" / backup.backup_id

    def reopen(self) -> None:
        self.db.close()
        self.db = sqlite3.connect(self.database, isolation_level=None)

    def back_up(self, kind: BackupType = INCREMENTAL, **options: Any) -> BackupMetadata:
        return make_backup(self.plan, kind, **options)

    def restore(
        self,
        backup: BackupMetadata | str = "latest",
        mode: RestoreMode = EXACT,
        collections: Sequence[str] = (),
        keys: Sequence[str] = (),
        progress: Progress | None = None,
        **options: Any,
    ) -> RestoreResult:
        backup_id = backup if isinstance(backup, str) else backup.backup_id
        selection = Selection(tuple(collections), tuple(keys))
        return make_restore(self.plan, RestoreRequest(backup_id, selection=selection, mode=mode, **options), progress)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.db.execute(sql).fetchall()

    def fill(self, rows: int = 40) -> None:
        """Make two tables of several parts each, and a few files."""
        self.db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL)")
        self.db.execute("CREATE TABLE positions (symbol TEXT PRIMARY KEY NOT NULL, quantity)")
        self.db.executemany(
            "INSERT INTO orders VALUES (?, ?, ?)", [(n, f"S{n % 7}", n / 4) for n in range(1, rows + 1)]
        )
        self.db.executemany("INSERT INTO positions VALUES (?, ?)", [(f"S{n}", n * 10) for n in range(7)])
        (self.tree / "deep").mkdir()
        (self.tree / "a.bin").write_bytes(bytes(range(256)) * 8)
        (self.tree / "deep" / "b.txt").write_text("hello")
        (self.tree / "link").symlink_to("a.bin")

    def picture(self) -> Picture:
        return picture(self.database, self.tree)

    def age_database(self) -> None:
        """Let the database's files look untouched for long, so that its change token is one.

        What was written lately is moved back by an hour, to the nanosecond: different moments of writing stay
        different, and two looks with no write between them agree.
        """
        for suffix in ("", "-wal", "-journal"):
            path = Path(f"{self.database}{suffix}")
            if path.exists() and time.time_ns() - (touched := path.stat().st_mtime_ns) < HOUR_NS:
                os.utime(path, ns=(touched - HOUR_NS, touched - HOUR_NS))


def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], datetime]:
    """Return what sets the clock of this machine, and that of a local folder, which is the same, ahead of the time."""
    storage_time = Repository.storage_time

    def ahead_by(ahead: timedelta) -> datetime:
        class Ahead(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + ahead

        for module in (view, observed, open_backup, attempt, repository):
            monkeypatch.setattr(module, "datetime", Ahead)
        monkeypatch.setattr(
            Repository, "storage_time", lambda *args: moment + ahead if (moment := storage_time(*args)) else None
        )
        return Ahead.now(UTC)

    return ahead_by


def picture(database: Path, tree: Path) -> Picture:
    """Describe state exactly: the dump of a database, its rows with their rowids, and every entry of a tree."""
    connection = sqlite3.connect(database)
    try:
        tables = [n for (n,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = {table: _table(connection, table) for table in tables if not table.startswith("sqlite_")}
        return {"dump": list(connection.iterdump()), "rows": rows, "tree": walk(tree)}
    finally:
        connection.close()


def _table(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(f'SELECT rowid, * FROM "{table}" ORDER BY rowid').fetchall()
    except sqlite3.OperationalError:  # WITHOUT ROWID
        return connection.execute(f'SELECT NULL, * FROM "{table}"').fetchall()


def walk(tree: Path) -> dict[str, tuple[Any, ...]]:
    """Describe every entry of a tree, the root included."""
    found = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        status = path.lstat()
        name, mode, moment = str(path.relative_to(tree)), stat.S_IMODE(status.st_mode), status.st_mtime_ns
        if path.is_symlink():
            found[name] = ("link", os.readlink(path), moment)
        elif path.is_dir():
            found[name] = ("dir", mode, moment)
        else:
            found[name] = ("file", mode, moment, path.read_bytes())
    return found


def blobs(backup: BackupMetadata, index: bool = False) -> list[Blob]:
    """Return the sealed data, or the sealed indexes, that a backup stored for its parts; each once, in their order."""
    stored = [part.segment for part in backup.stored_parts if part.segment]
    found = [segment.index if index else segment.data for segment in stored]
    return list({(blob.name, blob.offset): blob for blob in found}.values())


def flip(folder: Path, blob: Blob) -> None:
    """Flip a bit in the middle of a blob; `folder` is that of its backup."""
    path = folder / blob.name
    data = bytearray(path.read_bytes())
    data[blob.offset + blob.size_bytes // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def store_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no part share its blobs, and no blob its object."""
    monkeypatch.setattr(compress, "SMALL_BYTES", 0)
    monkeypatch.setattr(packs, "ALONE_BYTES", 0)


def segments(backup: BackupMetadata, collection: str) -> list[Segment | None]:
    """Return what a backup stored of each part of a collection."""
    return [part.segment for part in next(c for c in backup.collections if c.name == collection).parts]


def bounds(backup: BackupMetadata, collection: str) -> list[Any]:
    """Return the part boundaries of a collection."""
    return [part.bounds for part in next(c for c in backup.collections if c.name == collection).parts]
