"""The place of a sealed object, as bytes that are bound into it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from blocks.errors import CorruptionDetected
from blocks.records import BackupMetadata

VERSION = 1
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
        collection: Number of the collection in the manifest; 0 where it does not apply.
        part: Number of the part; 0 where it does not apply.
    """

    repository_id: str
    plan: str
    backup_id: str
    kind: ObjectKind
    collection: int = 0
    part: int = 0

    @classmethod
    def of_part(cls, backup: BackupMetadata, kind: ObjectKind, collection: int, part: int) -> ObjectContext:
        """Bind an object of a part to its place; `collection` and `part` are the manifest's numbers."""
        return cls(backup.repository_id, backup.plan, backup.backup_id, kind, collection, part)

    def encode(self) -> bytes:
        """Return the format version, four length-prefixed texts and two numbers: injective, so nothing is confused."""
        texts = (self.repository_id, self.plan, self.backup_id, self.kind.value)
        prefixed = b"".join(length_prefixed(text) for text in texts)
        return struct.pack(">B", VERSION) + prefixed + struct.pack(">QQ", self.collection, self.part)

    def __str__(self) -> str:
        """Name the object for a person."""
        place = f"{self.kind.value} of backup {self.backup_id} of plan {self.plan}"
        if self.kind in (ObjectKind.SEGMENT, ObjectKind.INDEX):
            place += f", collection {self.collection}, part {self.part}"
        return place

    def damaged(self, what: str) -> CorruptionDetected:
        """Make the error that names this object and says what is wrong with it."""
        return CorruptionDetected(f"{self}: {what}", hint=DAMAGED_HINT)


def length_prefixed(text: str) -> bytes:
    """Return UTF-8 bytes behind their length (4 bytes, big-endian)."""
    data = text.encode("utf-8")
    return struct.pack(">I", len(data)) + data
