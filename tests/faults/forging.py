"""What someone can make who holds keys of a repository, and no good intentions."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.crypto.encryption_config import EncryptionObject, authenticated
from blocks.crypto.key_slots import make_epoch, public_bytes
from blocks.crypto.stream import ObjectContext, ObjectKind, seal
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType, new_backup_id
from blocks.repository.repository import Repository
from tests.faults.damage import rewrite
from tests.faults.live_state import PLAN

Manifest = dict[str, Any]


def unlocked(plan: BackupPlan) -> Repository:
    return plan.repository.unlock(plan.encryption)


def with_new_epoch(plan: BackupPlan) -> Callable[..., EncryptionObject]:
    """Make settings with a second key pair, and with or without the first one, as a rotation of keys does."""
    keys = unlocked(plan).keys
    before = plan.repository.read_config().encryption
    assert keys._reader_key is not None
    seed = secrets.token_bytes(32)
    epoch = make_epoch(2, public_bytes(keys._kem, seed), seed, keys._reader_key, keys.repository_id)

    def settings(*, keep_old: bool) -> EncryptionObject:
        old = before["epochs"] if keep_old else []
        assert isinstance(old, list)
        return authenticated({**before, "epochs": [*old, epoch.model_dump(mode="json")]}, keys)

    return settings


def sealed_manifest(repository: Repository, data: Manifest, backup_id: str) -> bytes:
    """Seal what claims to be a manifest: the holder of the catalogue key can."""
    context = ObjectContext(repository.repository_id, PLAN, backup_id, ObjectKind.MANIFEST)
    return seal(gzip.compress(json.dumps(data).encode()), repository.keys.catalogue_key, context)


def replace_manifest(
    root: Path, repository: Repository, backup: BackupMetadata, change: Callable[[Manifest], object]
) -> None:
    """Give a stored backup another manifest."""
    data = backup.model_dump(mode="json")
    change(data)
    path = root / "backups" / PLAN / backup.backup_id / "manifest"
    rewrite(path, sealed_manifest(repository, data, backup.backup_id))


class ForgedBackup:
    """A whole backup made of chosen rows, as a writer's keys allow: sealed properly, under a key of its own.

    Args:
        root: The repository's folder.
        repository: Opened with any role.
        like: A real backup, whose manifest serves as a pattern.
        source: The one source that the backup is of.
    """

    def __init__(self, root: Path, repository: Repository, like: BackupMetadata, source: str) -> None:
        self._repository = repository
        self.backup_id = new_backup_id(BackupType.FULL, like.timestamp)
        self.folder = root / "backups" / PLAN / self.backup_id
        self._key, encapsulated = repository.keys.new_data_key(PLAN, self.backup_id)
        self.data: Manifest = like.model_dump(mode="json") | {
            "backup_id": self.backup_id,
            "backup_type": "full",
            "base": None,
            "chain": [],
            "encapsulated_key": encapsulated,
        }
        self.data["collections"] = []
        self.data["sources"] = [found for found in self.data["sources"] if found["name"] == source]
        self._like = like
        self._objects = 0
        self.folder.mkdir()

    def _store(self, name: str, content: pa.Buffer, kind: ObjectKind, collection: int, part: int) -> Manifest:
        key = self._key if kind is ObjectKind.SEGMENT else self._repository.keys.catalogue_key
        context = ObjectContext(self._repository.repository_id, PLAN, self.backup_id, kind, collection, part)
        sealed = seal(content, key, context)
        (self.folder / name).write_bytes(sealed)
        return {"name": name, "size_bytes": len(sealed), "sha256": hashlib.sha256(sealed).hexdigest()}

    def add(self, name: str, *parts: pa.Table, **changes: Any) -> None:
        """Add a collection of chosen rows (without `_key` and tombstones), shaped like one of the real backup."""
        like = next(c for c in self._like.collections if c.name == name).model_dump(mode="json")
        number = len(self.data["collections"])
        made = [self._part(number, n, rows, like["parts"][0]["bounds"]) for n, rows in enumerate(parts)]
        self.data["collections"].append(like | {"number": number, "parts": made} | changes)

    def _part(self, collection: int, number: int, rows: pa.Table, bounds: Manifest) -> Manifest:
        # an index is of no matter to a restore
        contents = {"data": _parquet(_with_key(rows)), "index": _parquet(rows.slice(0, 0))}
        kinds = {"data": (ObjectKind.SEGMENT, "seg"), "index": (ObjectKind.INDEX, "idx")}
        stored = {
            what: self._store(f"{self._objects:05d}.{kinds[what][1]}", content, kinds[what][0], collection, number)
            for what, content in contents.items()
        }
        segment = {"number": self._objects, **stored, "upserts": rows.num_rows, "tombstones": 0}
        self._objects += 1
        return {
            "number": number,
            "bounds": bounds,
            "rows": rows.num_rows,
            "segment": segment | {"size_bytes": rows.nbytes, "size_compressed": 1},
        }

    def commit(self) -> str:
        """Store the manifest; return the backup's id."""
        sealed = sealed_manifest(self._repository, self.data, self.backup_id)
        (self.folder / "manifest").write_bytes(sealed)
        return self.backup_id


def _with_key(rows: pa.Table) -> pa.Table:
    return rows.add_column(0, "_key", pa.nulls(rows.num_rows, pa.large_binary()))


def _parquet(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue()
