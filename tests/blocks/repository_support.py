"""A repository with a clock that tests turn, and backups made of arbitrary bytes."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import PrivateAttr

from blocks.crypto.keyring import Credential, Keyring, NoEncryption, generate_key_file
from blocks.crypto.stream import ObjectContext, ObjectKind, seal
from blocks.records import (
    BackupMetadata,
    BackupStatus,
    BackupType,
    Blob,
    Collection,
    Expiry,
    Link,
    Part,
    Segment,
    StoredObject,
)
from blocks.repository.block import BackupRepository, Repository
from blocks.repository.checksums import checksums_digest
from blocks.repository.lease import Lease
from blocks.repository.leases import Clock
from blocks.storage.base import StorageTier
from blocks.storage.fsync import Buffer
from blocks.storage.local import LocalTier
from blocks.verification import Verification

PLAN = "trading"
HOUR = timedelta(hours=1)
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class TurnedClock(Clock):
    """Stands still until it is turned; sleeping turns it."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def elapsed(self) -> float:
        return (self.time - START).total_seconds()

    def turn(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        self.turn(seconds)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait()


class HostClock(TurnedClock):
    """The clock of a host that is wrong, where the storage's is turned."""

    def __init__(self, storage: TurnedClock, ahead: timedelta) -> None:
        self._storage, self._ahead = storage, ahead

    def now(self) -> datetime:
        return self._storage.now() + self._ahead

    def elapsed(self) -> float:
        return self._storage.elapsed()

    def turn(self, seconds: float) -> None:
        self._storage.turn(seconds)


class StampedTier(LocalTier):
    """Storage whose time, as far as leases are concerned, is that of a clock that tests turn."""

    def __init__(self, url: str, clock: TurnedClock) -> None:
        super().__init__(url)
        self._clock = clock

    def _write(self, temporary: Path, path: Path, data: Buffer, like_before: bool) -> None:
        super()._write(temporary, path, data, like_before)
        if self._name(path).startswith(("locks/", "probes/")):
            # before it has its name: nobody sees another time
            moment = self._clock.now().timestamp()
            os.utime(temporary, (moment, moment))


class StampedRepository(BackupRepository):
    """A repository on such storage."""

    # its own, so that the registry of blocks keeps the real one
    _block_type_name = "Stamped Repository"
    _block_type_slug = "stamped-repository"
    _clock: TurnedClock = PrivateAttr()

    @property
    def tier(self) -> StorageTier:
        return StampedTier(self.url, self._clock)


class Shelf:
    """A fresh repository below a folder."""

    def __init__(self, folder: Path, encrypted: bool = True) -> None:
        key = folder / "key"
        generate_key_file(key)
        ring = Keyring(credential=Credential(key_file=key))
        self.keyring = ring if encrypted else NoEncryption(type="none")
        self.clock = TurnedClock()
        self.block = StampedRepository(url=str(folder / "repository"))
        self.block._clock = self.clock
        self.kit = self.block.initialize(self.keyring)
        self.root = folder / "repository"
        self.repository = self.open()

    def open(self, clock: Clock | None = None) -> Repository:
        """Open it again, as another process would."""
        return self.block.unlock(self.keyring, clock or self.clock)

    def folder(self, backup: BackupMetadata | str) -> Path:
        return self.root / "backups" / PLAN / (backup if isinstance(backup, str) else backup.backup_id)

    def draft(
        self,
        lease: Lease,
        kind: BackupType = BackupType.FULL,
        base: BackupMetadata | None = None,
        parts: Sequence[bytes] = (b"part",),
    ) -> tuple[BackupMetadata, list[StoredObject]]:
        """Store the objects of a backup and make its manifest, without committing."""
        repository = self.repository
        backup_id = repository.new_id(PLAN, kind, self.clock.now())
        lease.work_on(backup_id)
        objects, made = [], []
        for number, data in enumerate(parts):
            pair = [
                repository.put_object(PLAN, backup_id, f"{number:05d}.{suffix}", suffix.encode() + data)
                for suffix in ("seg", "idx")
            ]
            data, index = (Blob(**stored.model_dump(), number=2 * number + n) for n, stored in enumerate(pair))
            segment = Segment(data=data, index=index, upserts=1, tombstones=0, size_bytes=9, size_compressed=9)
            made.append(Part(number=number, bounds={}, rows=1, segment=segment))
            objects += pair
        collection = Collection(
            number=0, name="s/c", key=("k",), label=("k",), columns=(("k", "int64"),), definition={},
            parts=tuple(made),
        )  # fmt: skip
        sequence, previous = repository.next_position(PLAN)
        metadata = BackupMetadata(
            repository_id=repository.repository_id, plan=PLAN, backup_id=backup_id, backup_type=kind,
            requested_type=kind, timestamp=self.clock.now(), sequence=sequence, fencing_token=lease.token,
            base=base.backup_id if base else None,
            chain=(*base.chain, repository.link(base)) if base else (),
            previous=previous, sources=(), collections=(collection,), total_rows=len(made),
            objects=tuple(sorted(objects, key=lambda stored: stored.name)), size_bytes=9, size_compressed=9,
            size_stored=9, checksum=checksums_digest(objects), encryption_key_id=repository.keys.key_id,
            encapsulated_key=None, storage_tiers=("primary",), retention_days=30.0, source_system="test",
            backup_duration_seconds=0.1, tool_versions={},
        )  # fmt: skip
        return metadata, objects

    def back_up(
        self,
        kind: BackupType = BackupType.FULL,
        base: BackupMetadata | None = None,
        parts: Sequence[bytes] = (b"part",),
    ) -> BackupMetadata:
        """Make and commit a backup, a minute after the one before."""
        with self.repository.lease(PLAN, "backup", holder="host:1") as lease:
            metadata, objects = self.draft(lease, kind, base, parts)
            self.repository.commit(metadata, objects, lease)
        self.clock.turn(60)
        return metadata

    def links(self, *backups: BackupMetadata) -> tuple[Link, ...]:
        return tuple(self.repository.link(backup) for backup in backups)


def chain_of_three(shelf: Shelf):
    full = shelf.back_up()
    differential = shelf.back_up(BackupType.DIFFERENTIAL, full)
    return full, differential, shelf.back_up(BackupType.INCREMENTAL, differential)


def verification(shelf: Shelf, backup, status=BackupStatus.VERIFIED, at: datetime = START) -> Verification:
    return Verification(
        plan=PLAN, backup_id=backup.backup_id, manifest_sha256=shelf.repository.link(backup).manifest_sha256,
        verified_at=at, deep=True, status=status, rows=1, expectations=0, seconds=0.5,
    )  # fmt: skip


def expire(shelf: Shelf, *backups) -> None:
    """Remove on record, as retention does."""
    links = shelf.links(*backups)
    shelf.repository.record_expiry(
        Expiry(plan=PLAN, expired_at=shelf.clock.now(), removed=links, reasons={}, head=None)
    )
    shelf.repository.remove(PLAN, [backup.backup_id for backup in backups])


def sealed_by_hand(shelf: Shelf, backup, **changes) -> bytes:
    """Seal what is no manifest of ours with the real key, as a stolen worker could."""
    data = backup.model_dump(mode="json") | changes
    context = ObjectContext(
        repository_id=shelf.repository.repository_id,
        plan=PLAN,
        backup_id=backup.backup_id,
        kind=ObjectKind.MANIFEST,
    )
    return seal(gzip.compress(json.dumps(data).encode()), shelf.repository.keys.catalogue_key, context)


def age(shelf: Shelf, hours: float) -> None:
    """Make every object but the leases look that old, as seen from the turned clock."""
    moment = (shelf.clock.now() - timedelta(hours=hours)).timestamp()
    for path in sorted(shelf.root.rglob("*"), reverse=True):
        if path.parent.parent.name != "locks":
            os.utime(path, (moment, moment))


def abandon(shelf: Shelf):
    """Leave an unfinished backup behind."""
    with shelf.repository.lease(PLAN, "backup", holder="host:1") as lease:
        return shelf.draft(lease)[0]
