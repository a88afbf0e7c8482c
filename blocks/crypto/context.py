"""The place of a sealed object, as bytes that are bound into it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from blocks.errors import CorruptionDetected
from blocks.records import BackupMetadata

VERSION = 2
"""Version of the format that is written; objects of version 1 are read for ever."""
VERSIONS = (1, 2)
DAMAGED_HINT = (
    "The stored bytes were damaged or replaced. Restore this object from a copy of the repository, "
    "or use a backup that does not depend on this one."
)


class ObjectKind(StrEnum):
    """What a sealed object holds."""

    SEGMENT = "segment"
    INDEX = "index"
    MANIFEST = "manifest"
    VERIFICATION = "verification"
    EXPIRY = "expiry"


@dataclass(frozen=True)
class ObjectContext:
    """The place of an object, bound into its bytes: opened anywhere else it is refused.

    Attributes:
        repository_id: Id of the repository from lastgood.json.
        plan: Name of the plan.
        backup_id: Id of the backup; for an expiry, whatever names the retention run.
        kind: What the object holds.
        collection: Of a blob its number in the backup; in version 1 the collection's number in the manifest. 0 where it
            does not apply.
        part: In version 1 the number of the part; 0 where it does not apply.
        version: Version of the format that the object is written in.
    """

    repository_id: str
    plan: str
    backup_id: str
    kind: ObjectKind
    collection: int = 0
    part: int = 0
    version: int = VERSION

    @classmethod
    def of_part(cls, backup: BackupMetadata, kind: ObjectKind, collection: int, part: int) -> ObjectContext:
        """Bind an object of version 1 to its part; `collection` and `part` are the manifest's numbers."""
        return cls(backup.repository_id, backup.plan, backup.backup_id, kind, collection, part, version=1)

    @classmethod
    def of_blob(cls, backup: BackupMetadata, kind: ObjectKind, number: int) -> ObjectContext:
        """Bind a blob to its number in a backup."""
        return cls(backup.repository_id, backup.plan, backup.backup_id, kind, number, version=backup.format_version)

    def encode(self) -> bytes:
        """Return the format version, four length-prefixed texts and two numbers: injective, so nothing is confused."""
        texts = (self.repository_id, self.plan, self.backup_id, self.kind.value)
        prefixed = b"".join(length_prefixed(text) for text in texts)
        return struct.pack(">B", self.version) + prefixed + struct.pack(">QQ", self.collection, self.part)

    def __str__(self) -> str:
        """Name the object for a person."""
        place = f"{self.kind.value} of backup {self.backup_id} of plan {self.plan}"
        if self.kind in (ObjectKind.SEGMENT, ObjectKind.INDEX):
            place += (
                f", blob {self.collection}" if self.version > 1 else f", collection {self.collection}, part {self.part}"
            )
        return place

    def damaged(self, what: str) -> CorruptionDetected:
        """Make the error that names this object and says what is wrong with it."""
        return CorruptionDetected(f"{self}: {what}", hint=DAMAGED_HINT)


def length_prefixed(text: str) -> bytes:
    """Return UTF-8 bytes behind their length (4 bytes, big-endian)."""
    data = text.encode("utf-8")
    return struct.pack(">I", len(data)) + data
