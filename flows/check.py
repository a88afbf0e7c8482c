"""The integrity of a plan's part of a repository: does the history add up, and are the bytes what was stored?

Without reading data, names, sizes and sealed records are compared. Reading data compares the SHA-256 of every object
(or of a random share) with its manifest and, as far as the credential reaches, opens it. A repair mends what can be
made again from the manifests, and marks what cannot, so that no backup is made on it.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel

from blocks.errors import CorruptionDetected
from blocks.keyring import Role
from blocks.manifest import BackupMetadata, BackupStatus, StoredObject, Verification
from blocks.plan import BackupPlan
from blocks.repository import Repository
from blocks.sealing import ObjectContext, ObjectKind, unseal
from flows.progress import Progress
from flows.units import human_time

READERS = 2
"""Objects that are read at once; each needs memory for its sealed and its opened bytes."""


class CheckResult(BaseModel):
    """The outcome of a check.

    Attributes:
        findings: What is wrong, each a sentence; after a repair, what is still wrong.
        notes: What is worth knowing and no fault.
        actions: What a repair did.
    """

    plan: str
    repository: str
    backups: int
    objects: int
    objects_read: int
    bytes_read: int
    findings: list[str]
    notes: list[str]
    actions: list[str]
    seconds: float


@dataclass(frozen=True)
class _Object:
    """A sealed object, and what opens it."""

    backup: BackupMetadata
    stored: StoredObject
    context: ObjectContext

    def __str__(self) -> str:
        return f"{self.backup.backup_id}/{self.stored.name}"


def check_repository(
    plan: BackupPlan,
    read_share: float = 0.0,
    repair: bool = False,
    accept_head: bool = False,
    progress: Progress | None = None,
) -> CheckResult:
    """Check what a plan has in its repository.

    Args:
        plan: Its backups are checked.
        read_share: Share of the objects whose bytes are read, 0 to 1; a share below 1 is drawn at random.
        repair: Mend what can be mended; waits for no other run.
        accept_head: Take the newest backup there is as the newest ever, after a person has looked.
        progress: Told of objects that were read.

    Raises:
        RepositoryLocked: A repair was asked for, and another run holds the plan.
    """
    started = time.monotonic()
    repository = plan.repository.unlock(plan.encryption)
    actions = []
    if accept_head:
        repository.accept_head(plan.name)
        actions.append("took the newest backup there is as the newest that this machine has seen")
    check = _Check(plan, repository)
    check.read(read_share, progress)
    if repair:
        with repository.lease(plan.name, f"{socket.gethostname()}:{os.getpid()}", "repair"):
            actions += check.repair()
    return CheckResult(
        plan=plan.name,
        repository=repository.url,
        backups=len(check.backups),
        objects=len(check.objects),
        objects_read=check.objects_read,
        bytes_read=check.bytes_read,
        findings=check.findings(),
        notes=check.notes(),
        actions=actions,
        seconds=round(time.monotonic() - started, 3),
    )


class _Check:
    """One check while it goes on."""

    def __init__(self, plan: BackupPlan, repository: Repository) -> None:
        self._plan, self._repository = plan, repository
        self.backups = repository.survey(plan.name).backups
        self.objects = [one for backup in self.backups for one in _objects(backup)]
        self._damage = {b.backup_id: [f"it lacks {m}" for m in repository.missing(b)] for b in self.backups}
        self._missing = {f"{b.backup_id}/{m}" for b in self.backups for m in repository.missing(b)}
        self._data_findings: list[str] = []
        self.objects_read = self.bytes_read = 0

    def read(self, share: float, progress: Progress | None) -> None:
        """Read a share of the objects that are there."""
        present = [one for one in self.objects if str(one) not in self._missing]
        chosen = _draw(present, share)
        keys = self._data_keys({one.backup.backup_id for one in chosen})
        with ThreadPoolExecutor(READERS, thread_name_prefix="check") as pool:
            for one, wrong in zip(chosen, pool.map(lambda one: self._read(one, keys), chosen), strict=True):
                self.objects_read += 1
                self.bytes_read += one.stored.size_bytes
                if wrong:
                    self._data_findings.append(f"{one}: {wrong}")
                    self._damage[one.backup.backup_id].append(wrong)
                if progress is not None:
                    progress.entered(str(one))
                    progress.left(str(one))

    def findings(self) -> list[str]:
        """Return what is wrong as of now."""
        found = [*self._repository.audit(self._plan.name), *self._data_findings]
        for backup in self.backups:
            if self._repository.status(backup) is BackupStatus.CORRUPTED:
                last = self._repository.verifications(self._plan.name, backup.backup_id)[-1]
                found.append(
                    f"{backup.backup_id} failed its verification of {human_time(last.verified_at)}: {last.findings[0]}"
                )
        return list(dict.fromkeys(found))

    def notes(self) -> list[str]:
        """Return what is no fault: who is at work, and what unfinished runs left."""
        notes = []
        if lease := self._repository.current_lease(self._plan.name):
            since = human_time(lease.acquired_at)
            notes.append(f"{lease.holder} holds the plan for {lease.purpose} since {since}")
        grace = self._plan.retention.sweep_grace
        notes += [
            f"{backup_id} was never finished; retention sweeps what it left after {grace}"
            for backup_id in self._repository.abandoned(self._plan.name)
        ]
        if self._repository.keys.role is Role.WRITER and self.objects_read:
            notes.append("a writer's credential opens no data: of segments only the SHA-256 was compared")
        return notes

    def repair(self) -> list[str]:
        """Mend what can be made again; mark what cannot. Returns what was done, in words."""
        now = datetime.now(UTC)
        actions = [f"wrote SHA256SUMS of {b.backup_id} again" for b in self.backups if self._repository.repair_sums(b)]
        for backup in self.backups:
            damage = self._damage[backup.backup_id]
            if damage and self._repository.status(backup) is not BackupStatus.CORRUPTED:
                self._repository.record_verification(self._failed(backup, damage, now))
                actions.append(f"marked {backup.backup_id} as corrupted: no backup will be made on it")
        swept = self._repository.sweep(self._plan.name, self._plan.retention.sweep_grace, now)
        return actions + [f"removed {name}, left by an unfinished run" for name in swept]

    def _failed(self, backup: BackupMetadata, damage: Sequence[str], now: datetime) -> Verification:
        return Verification(
            plan=backup.plan,
            backup_id=backup.backup_id,
            manifest_sha256=self._repository.link(backup).manifest_sha256,
            verified_at=now,
            deep=False,
            status=BackupStatus.CORRUPTED,
            rows=0,
            expectations=0,
            seconds=0.0,
            findings=tuple(damage),
        )

    def _data_keys(self, ids: set[str]) -> dict[str, bytes | CorruptionDetected | None]:
        """Open the data keys of backups; empty for a writer, who has none."""
        keys, opened = self._repository.keys, dict[str, bytes | CorruptionDetected | None]()
        if keys.role is Role.WRITER:
            return opened
        for b in self.backups:
            if b.backup_id in ids:
                try:
                    opened[b.backup_id] = keys.open_data_key(
                        b.encapsulated_key, b.encryption_key_id, b.plan, b.backup_id
                    )
                except CorruptionDetected as exc:
                    opened[b.backup_id] = exc
        return opened

    def _read(self, one: _Object, keys: dict[str, bytes | CorruptionDetected | None]) -> str | None:
        """Read and open one object; return what is wrong with it."""
        try:
            sealed = self._repository.get_object(one.backup.plan, one.backup.backup_id, one.stored)
            if one.context.kind is ObjectKind.INDEX:
                unseal(sealed, self._repository.keys.catalogue_key, one.context)
            elif one.backup.backup_id in keys:
                key = keys[one.backup.backup_id]
                if isinstance(key, CorruptionDetected):
                    return key.message
                unseal(sealed, key, one.context)
        except CorruptionDetected as exc:
            return exc.message
        return None


def _objects(backup: BackupMetadata) -> Iterator[_Object]:
    for collection in backup.collections:
        for part in collection.parts:
            if part.segment is None:
                continue
            for stored, kind in ((part.segment.data, ObjectKind.SEGMENT), (part.segment.index, ObjectKind.INDEX)):
                context = ObjectContext(
                    repository_id=backup.repository_id,
                    plan=backup.plan,
                    backup_id=backup.backup_id,
                    kind=kind,
                    collection=collection.number,
                    part=part.number,
                )
                yield _Object(backup, stored, context)


def _draw(objects: list[_Object], share: float) -> list[_Object]:
    if share >= 1:
        return objects
    return secrets.SystemRandom().sample(objects, math.ceil(len(objects) * share))
