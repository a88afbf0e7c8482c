"""What someone can make who holds keys of a repository, and no good intentions."""

from __future__ import annotations

import gzip
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import Buffer

from blocks.crypto import stream
from blocks.crypto.context import VERSION
from blocks.crypto.encoding import SALT_BYTES
from blocks.crypto.encryption_config import EncryptionObject, authenticated
from blocks.crypto.key_slots import make_epoch, public_bytes
from blocks.crypto.stream import ObjectContext, ObjectKind, seal, unseal
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType, new_backup_id
from blocks.repository.inheritance import narrowed
from blocks.repository.repository import Repository
from blocks.rows.shared import join_rows
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


def sealed_manifest(repository: Repository, data: Manifest, backup_id: str, version: int = VERSION) -> bytes:
    """Seal what claims to be a manifest: the holder of the catalogue key can."""
    context = ObjectContext(repository.repository_id, PLAN, backup_id, ObjectKind.MANIFEST, version=version)
    return sealed(gzip.compress(json.dumps(data).encode()), repository.keys.catalogue_key, context)


def sealed(plaintext: Buffer, key: bytes | None, context: ObjectContext) -> bytes:
    """Seal an object in the version of its context; lastgood itself writes the newest one only."""
    if context.version == VERSION:
        return seal(plaintext, key, context)
    source, mode = memoryview(plaintext).cast("B"), stream.Mode.AES_256_GCM
    layout = stream._Layout.of(context.version, mode)
    header = stream.MAGIC + bytes((context.version, mode)) + bytes(SALT_BYTES)
    made = bytearray(layout.sealed_size(len(source)))
    made[: len(header)] = header
    assert stream._fill(memoryview(made), source, layout, stream._stream(key, header, context))
    return bytes(made)


def replace_manifest(
    root: Path,
    repository: Repository,
    backup: BackupMetadata,
    change: Callable[[Manifest], object],
    base: BackupMetadata | None = None,
) -> None:
    """Give a stored backup another manifest: a complete one, or one that inherits from its base."""
    data = (narrowed(backup, base) if base else backup).model_dump(mode="json")
    assert data["inherits"] is (base is not None)
    change(data)
    path = root / "backups" / PLAN / backup.backup_id / "manifest"
    rewrite(path, sealed_manifest(repository, data, backup.backup_id))


def replace_plaintext(
    root: Path,
    repository: Repository,
    backup: BackupMetadata,
    part: tuple[str, int],
    change: Callable[[bytes], Buffer],
    version: int = VERSION,
) -> None:
    """Give a part of a stored backup other data, sealed for its place, in a pack of its own; and the manifest for it.

    What the part shares with others is changed for all of them.
    """
    collection = next(c for c in backup.collections if c.name == part[0])
    segment = collection.parts[part[1]].segment
    assert segment is not None
    assert segment.data.number is not None
    folder = root / "backups" / PLAN / backup.backup_id
    keys = repository.keys
    key = keys.open_data_key(backup.encapsulated_key, backup.encryption_key_id, PLAN, backup.backup_id)
    context = ObjectContext.of_blob(backup, ObjectKind.SEGMENT, segment.data.number)
    stored = (folder / segment.data.name).read_bytes()[segment.data.offset :][: segment.data.size_bytes]
    made = sealed(change(unseal(stored, key, context)), key, replace(context, version=version))
    (folder / "99999.pack").write_bytes(made)
    one = {"name": "99999.pack", "size_bytes": len(made), "sha256": hashlib.sha256(made).hexdigest()}

    def name_it(data: Manifest) -> None:
        data["objects"].append(one)
        for blob in (blob for blob in blobs_of(data) if blob["number"] == segment.data.number):
            blob.update(one | {"offset": 0})

    replace_manifest(root, repository, backup, name_it)


def blobs_of(data: Manifest) -> list[Manifest]:
    """Return all blobs that a manifest names, those that parts share for each of them."""
    parts = [part for one in (*data["collections"], *data["changed"]) for part in one["parts"] if part["segment"]]
    return [part["segment"][kind] for part in parts for kind in ("data", "index")]


KEYS = {"first": "", "last": "", "kinds": [], "filter": None}


class ForgedBackup:
    """A whole backup made of chosen rows, as a writer's keys allow: sealed properly, under a key of its own.

    Args:
        root: The repository's folder.
        repository: Opened with any role.
        like: A real backup, whose manifest serves as a pattern.
        source: The one source that the backup is of.
        shared: Whether all parts share one blob of data and one of indexes.
        version: Version of the format that the manifest is of; in 1 each blob is an object, bound to its part.
        sealed_as: Version that the blobs are sealed in.
    """

    def __init__(
        self,
        root: Path,
        repository: Repository,
        like: BackupMetadata,
        source: str,
        *,
        shared: bool = False,
        version: int = VERSION,
        sealed_as: int | None = None,
    ) -> None:
        self._repository, self._shared, self._version = repository, shared, version
        self._sealed_as = sealed_as or version
        self.backup_id = new_backup_id(BackupType.FULL, like.timestamp)
        self.folder = root / "backups" / PLAN / self.backup_id
        self._key, encapsulated = repository.keys.new_data_key(PLAN, self.backup_id)
        self.data: Manifest = like.model_dump(mode="json") | {
            "format_version": version,
            "backup_id": self.backup_id,
            "backup_type": "full",
            "base": None,
            "chain": [],
            "encapsulated_key": encapsulated,
            "objects": [],
        }
        if version == 1:
            self.data.update(total_rows=None, history={})
        self.data["collections"] = []
        self.data["sources"] = [found for found in self.data["sources"] if found["name"] == source]
        self._like = like
        self._waiting: list[tuple[Manifest, pa.Table]] = []
        self._pack, self._numbers = b"", 0
        self.folder.mkdir()

    def _store(self, content: Buffer, kind: ObjectKind, place: tuple[int, int]) -> Manifest:
        """Seal a blob; in version 1 for a place, that is the numbers of a collection and of a part."""
        key = self._key if kind is ObjectKind.SEGMENT else self._repository.keys.catalogue_key
        numbers = place if self._version == 1 else (self._numbers, 0)
        context = ObjectContext(
            self._repository.repository_id, PLAN, self.backup_id, kind, *numbers, version=self._sealed_as
        )
        made = sealed(content, key, context)
        blob = {"size_bytes": len(made), "sha256": hashlib.sha256(made).hexdigest()}
        self._numbers += 1
        if self._version == 1:
            suffix = "seg" if kind is ObjectKind.SEGMENT else "idx"
            blob["name"] = f"{(self._numbers - 1) // 2:05d}.{suffix}"
            (self.folder / blob["name"]).write_bytes(made)
            return blob
        self._pack += made
        return blob | {"name": "00000.pack", "offset": len(self._pack) - len(made), "number": self._numbers - 1}

    def add(self, name: str, *parts: pa.Table, **changes: Any) -> None:
        """Add a collection of chosen rows (without `_key` and tombstones), shaped like one of the real backup."""
        like = next(c for c in self._like.collections if c.name == name).model_dump(mode="json")
        number = len(self.data["collections"])
        made = [self._part(number, n, rows, like["parts"][0]["bounds"]) for n, rows in enumerate(parts)]
        self.data["collections"].append(like | {"number": number, "parts": made} | changes)

    def _part(self, collection: int, number: int, rows: pa.Table, bounds: Manifest) -> Manifest:
        segment: Manifest = {"upserts": rows.num_rows, "tombstones": 0, "size_bytes": rows.nbytes, "size_compressed": 1}
        if self._version == 1:
            segment["number"] = self._numbers // 2
        else:
            segment["key_range"] = KEYS
        part = {"number": number, "bounds": bounds, "rows": rows.num_rows, "segment": segment}
        if self._shared:
            self._waiting.append((segment, rows))
            return part
        # an index is of no matter to a restore
        segment["data"] = self._store(_parquet(_with_key(rows)), ObjectKind.SEGMENT, (collection, number))
        segment["index"] = self._store(_parquet(rows.slice(0, 0)), ObjectKind.INDEX, (collection, number))
        return part

    def commit(self) -> str:
        """Store the manifest; return the backup's id."""
        if self._waiting:
            plain, ranges = join_rows([_with_key(rows) for _, rows in self._waiting])
            data = self._store(plain, ObjectKind.SEGMENT, (0, 0))
            index = self._store(_parquet(pa.table({})), ObjectKind.INDEX, (0, 0))
            for (segment, _), place in zip(self._waiting, ranges, strict=True):
                segment.update(data=data | {"shared": place}, index=index | {"shared": (0, 0)})
        if self._pack:
            (self.folder / "00000.pack").write_bytes(self._pack)
            digest = hashlib.sha256(self._pack).hexdigest()
            self.data["objects"] = [{"name": "00000.pack", "size_bytes": len(self._pack), "sha256": digest}]
        parts = [part for collection in self.data["collections"] for part in collection["parts"]]
        for field in ("size_bytes", "size_compressed"):
            self.data[field] = sum(part["segment"][field] for part in parts)
        if self._version > 1:
            self.data["total_rows"] = sum(part["rows"] for part in parts)
        made = sealed_manifest(self._repository, self.data, self.backup_id, self._version)
        (self.folder / "manifest").write_bytes(made)
        return self.backup_id


def _with_key(rows: pa.Table) -> pa.Table:
    return rows.add_column(0, "_key", pa.nulls(rows.num_rows, pa.large_binary()))


def _parquet(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return sink.getvalue()
