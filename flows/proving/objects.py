"""The objects that a check reads: which there are, what opens them, and what is wrong with one."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from blocks.crypto.keyring import Role
from blocks.crypto.stream import ObjectContext, ObjectKind, unseal
from blocks.errors import CorruptionDetected, LastgoodError, ObjectUnreadable, RepositoryUnavailable
from blocks.records import BackupMetadata, BackupStatus, Blob, Link, Segment, StoredObject
from blocks.repository.block import Repository
from blocks.repository.checksums import objects_of
from blocks.verification import Axis, AxisResult, CheckOutcome, Depth, Verification
from flows.pipeline.tool_versions import tool_versions
from flows.proving.proof import limited


@dataclass(frozen=True)
class CheckedObject:
    """An object, and what opens the blobs in it."""

    backup: BackupMetadata
    stored: StoredObject
    blobs: Sequence[tuple[Blob, ObjectContext]]

    def __str__(self) -> str:
        return f"{self.backup.backup_id}/{self.stored.name}"


@dataclass(frozen=True)
class Wrong:
    """What is wrong with an object.

    Attributes:
        error: What was raised when it was read.
        proved: It was read and is not what was stored.
        unavailable: The storage failed or refused, which says nothing about the object.
    """

    one: CheckedObject
    error: LastgoodError
    proved: bool
    unavailable: bool = False

    @property
    def text(self) -> str:
        """What is wrong, in a sentence."""
        return self.error.message

    def __str__(self) -> str:
        return f"{self.one}: {self.text}"


class ObjectReader:
    """Reads objects, and opens them as far as the credential reaches. Thread-safe.

    Args:
        repository: The unlocked repository.
        backups: Those whose objects are read; their data keys are opened at once, none for a writer, who has none.
        missing: Returns what a backup lacks now.
    """

    def __init__(
        self,
        repository: Repository,
        backups: Sequence[BackupMetadata],
        missing: Callable[[BackupMetadata], list[str]],
    ) -> None:
        self._repository, self._missing = repository, missing
        self._keys = dict[str, bytes | LastgoodError | None]()
        if repository.keys.role is not Role.WRITER:
            self._keys = {backup.backup_id: self._data_key(backup) for backup in backups}

    def _data_key(self, b: BackupMetadata) -> bytes | LastgoodError | None:
        try:
            return self._repository.keys.open_data_key(b.encapsulated_key, b.encryption_key_id, b.plan, b.backup_id)
        except LastgoodError as exc:
            return exc

    def read(self, one: CheckedObject) -> Wrong | None:
        """Read an object and open what is in it; return what is wrong with it."""
        try:
            sealed = memoryview(self._repository.get_object(one.backup.plan, one.backup.backup_id, one.stored))
            for blob, context in one.blobs:
                part = sealed[blob.offset : blob.offset + blob.size_bytes]
                if hashlib.sha256(part).hexdigest() != blob.sha256:
                    raise context.damaged("its SHA-256 is not that of the manifest")
                if context.kind is ObjectKind.INDEX:
                    unseal(part, self._repository.keys.catalogue_key, context)
                elif one.backup.backup_id in self._keys:
                    key = self._keys[one.backup.backup_id]
                    if isinstance(key, LastgoodError):
                        return Wrong(one, key, isinstance(key, CorruptionDetected))
                    unseal(part, key, context)
        except CorruptionDetected as exc:
            # a few moments ago it was there: it is missing now, which the repair looks at by itself
            return Wrong(one, exc, one.stored.name not in self._missing(one.backup))
        except RepositoryUnavailable as exc:
            return Wrong(one, exc, proved=False, unavailable=not isinstance(exc, ObjectUnreadable))
        return None


def objects_to_check(backup: BackupMetadata) -> Iterator[CheckedObject]:
    """Yield the objects that a backup's manifest names."""
    blobs: dict[str, dict[tuple[Blob, ObjectContext], None]] = {}
    for blob, context in _blobs(backup):
        alone = blob if blob.shared is None else blob.model_copy(update={"shared": None})
        blobs.setdefault(blob.name, {})[alone, context] = None
    for stored in objects_of(backup):
        yield CheckedObject(backup, stored, list(blobs.get(stored.name, {})))


def _blobs(backup: BackupMetadata) -> Iterator[tuple[Blob, ObjectContext]]:
    """Yield the sealed blobs of a backup; those that parts share come for each of them."""
    if backup.format_version > 1:
        for segment in (part.segment for part in backup.stored_parts if part.segment):
            for blob, kind in _both(segment):
                yield blob, ObjectContext.of_blob(backup, kind, blob.number or 0)
        return
    for collection in backup.collections:
        for part in collection.parts:
            for blob, kind in _both(part.segment) if part.segment else ():
                yield blob, ObjectContext.of_part(backup, kind, collection.number, part.number)


def _both(segment: Segment) -> tuple[tuple[Blob, ObjectKind], tuple[Blob, ObjectKind]]:
    return (segment.data, ObjectKind.SEGMENT), (segment.index, ObjectKind.INDEX)


def sample(objects: list[CheckedObject], share: float) -> list[CheckedObject]:
    """Return a random sample of objects; the share is between 0 and 1."""
    if share >= 1:
        return objects
    return secrets.SystemRandom().sample(objects, math.ceil(len(objects) * share))


def verification_of_objects(plan: str, link: Link, wrong: Sequence[str], now: datetime) -> Verification:
    """Make the record of a backup of which only objects were read.

    Args:
        plan: Name of the plan.
        link: The backup.
        wrong: What is wrong with them, in sentences; nothing where all are what was stored.
        now: When that was found.
    """
    findings = limited(wrong)
    outcome = CheckOutcome.BAD if wrong else CheckOutcome.GOOD
    results = {axis.value: AxisResult(outcome=CheckOutcome.UNTRIED) for axis in Axis}
    results[Axis.BYTES.value] = AxisResult(outcome=outcome, depth=Depth.OBJECTS.value, findings=findings)
    return Verification(
        plan=plan,
        backup_id=link.backup_id,
        manifest_sha256=link.manifest_sha256,
        verified_at=now,
        deep=False,
        status=BackupStatus.CORRUPTED if wrong else BackupStatus.COMPLETED,
        rows=0,
        expectations=0,
        seconds=0.0,
        findings=findings,
        results=results,
        tool_versions=tool_versions(),
    )
