"""The objects that a check reads: which there are, what opens them, and what is wrong with one."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from blocks.crypto.keyring import Role
from blocks.crypto.stream import ObjectContext, ObjectKind, unseal
from blocks.errors import CorruptionDetected, LastgoodError, RepositoryUnavailable
from blocks.records import BackupMetadata, StoredObject
from blocks.repository.block import Repository


@dataclass(frozen=True)
class CheckedObject:
    """A sealed object, and what opens it."""

    backup: BackupMetadata
    stored: StoredObject
    context: ObjectContext

    def __str__(self) -> str:
        return f"{self.backup.backup_id}/{self.stored.name}"


@dataclass(frozen=True)
class Wrong:
    """What is wrong with an object; `proved` where it was read and is not what was stored."""

    one: CheckedObject
    text: str
    proved: bool


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
        """Read and open one object; return what is wrong with it."""
        try:
            sealed = self._repository.get_object(one.backup.plan, one.backup.backup_id, one.stored)
            if one.context.kind is ObjectKind.INDEX:
                unseal(sealed, self._repository.keys.catalogue_key, one.context)
            elif one.backup.backup_id in self._keys:
                key = self._keys[one.backup.backup_id]
                if isinstance(key, LastgoodError):
                    return Wrong(one, key.message, isinstance(key, CorruptionDetected))
                unseal(sealed, key, one.context)
        except CorruptionDetected as exc:
            # a few moments ago it was there: it is missing now, which the repair looks at by itself
            return Wrong(one, exc.message, one.stored.name not in self._missing(one.backup))
        except RepositoryUnavailable as exc:
            return Wrong(one, exc.message, proved=False)
        return None


def objects_to_check(backup: BackupMetadata) -> Iterator[CheckedObject]:
    """Yield the sealed objects that a backup's manifest names."""
    for collection in backup.collections:
        for part in collection.parts:
            if part.segment is None:
                continue
            for stored, kind in ((part.segment.data, ObjectKind.SEGMENT), (part.segment.index, ObjectKind.INDEX)):
                yield CheckedObject(backup, stored, ObjectContext.of_part(backup, kind, collection.number, part.number))


def sample(objects: list[CheckedObject], share: float) -> list[CheckedObject]:
    """Return a random sample of objects; the share is between 0 and 1."""
    if share >= 1:
        return objects
    return secrets.SystemRandom().sample(objects, math.ceil(len(objects) * share))
