"""The records of a backup: frozen, exact mirrors of what docs/format.md specifies for a manifest.

BackupMetadata            one backup: identity, base, chain, numbers
├── SourceState           one source: when its view was taken, its change token
└── Collection            one table or tree: key, columns, definition
└── Part              one disjoint piece: its bounds
└── Segment       what this backup stored for the part: sealed data and its index
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

FORMAT_VERSION = 1


class BackupType(StrEnum):
    """The five types of backup; the value is what people type."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    INCREMENTAL = "incremental"
    SNAPSHOT = "snapshot"
    EMERGENCY = "emergency"

    @property
    def prefix(self) -> str:
        """First three letters of the ids of this type, upper case."""
        return self.value[:3].upper()

    @property
    def needs_base(self) -> bool:
        """Whether the type stores changes over another backup."""
        return self in (BackupType.DIFFERENTIAL, BackupType.INCREMENTAL)

    @property
    def can_be_base(self) -> bool:
        """Whether a backup of this type can be the base of an incremental."""
        return self in (BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL)


class BackupStatus(StrEnum):
    """States of a backup; a repository holds only completed, verified and corrupted ones."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    VERIFIED = "verified"
    CORRUPTED = "corrupted"


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    return moment.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_aware)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
FormatVersion = Annotated[int, Field(ge=1, le=FORMAT_VERSION)]


class Record(BaseModel):
    """A frozen record; unknown fields are an error, so that nothing is silently dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredObject(Record):
    """One sealed object: its name inside the backup's folder, sealed size in bytes, SHA-256 of the sealed bytes."""

    name: str
    size_bytes: Count
    sha256: str


class Segment(Record):
    """What one backup stored for one part: sealed Parquet data and the sealed index of its keys and digests."""

    number: Count
    data: StoredObject
    index: StoredObject
    upserts: Count
    tombstones: Count
    size_bytes: Count
    """Bytes of the Arrow rows before compression."""
    size_compressed: Count
    """Bytes of the Parquet files (data and index) before encryption."""


class Part(Record):
    """A disjoint piece of a collection. `bounds` are the source's own words; a chain keeps those of its full."""

    number: Count
    bounds: dict[str, JsonValue]
    rows: Count
    """Rows of the part as of this backup, base included."""
    segment: Segment | None = None
    """None where nothing changed (or, in a full, where the part is empty)."""


class Collection(Record):
    """One table, keyspace or tree. Its number binds its objects; a restore needs its definition besides the rows."""

    number: Count
    name: str
    key: tuple[str, ...]
    label: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    tracking: tuple[str, ...] = ()
    definition: dict[str, JsonValue]
    fingerprint: str
    selected_keys: tuple[str, ...] = ()
    """Key globs that an emergency backup was narrowed to; empty where the collection is whole."""
    parts: tuple[Part, ...]

    @model_validator(mode="after")
    def _coherent(self) -> Collection:
        if len({part.number for part in self.parts}) != len(self.parts):
            raise ValueError(f"{self.name} has two parts of one number")
        return self

    @property
    def source(self) -> str:
        """Name of the source in the plan."""
        return self.name.partition("/")[0]

    @property
    def rows(self) -> int:
        """Rows of the collection as of this backup."""
        return sum(part.rows for part in self.parts)

    @property
    def upserts(self) -> int:
        """Rows this backup stored."""
        return sum(part.segment.upserts for part in self.parts if part.segment)

    @property
    def tombstones(self) -> int:
        """Deletions this backup stored."""
        return sum(part.segment.tombstones for part in self.parts if part.segment)


class SourceState(Record):
    """One source as it was backed up. The token lets the next incremental see that nothing changed."""

    name: str
    type: str
    system: str
    """What answered: product, version, and the place without secrets."""
    taken_at: UtcTime
    token: str | None
    definition: dict[str, JsonValue]
    warnings: tuple[str, ...] = ()


class Link(Record):
    """A backup named together with the SHA-256 of its sealed manifest, so that a swap is seen."""

    backup_id: str
    manifest_sha256: str


class BackupMetadata(Record):
    """The manifest of one backup."""

    format_version: FormatVersion = FORMAT_VERSION
    repository_id: str
    plan: str
    backup_id: str
    backup_type: BackupType
    requested_type: BackupType
    promoted_because: str | None = None
    """Why a type that needs a base became a full."""
    timestamp: UtcTime
    """When the last source's view was taken: the point in time that a restore returns to."""
    sequence: Count
    """Counts the plan's committed backups from 1."""
    fencing_token: int
    base: str | None
    chain: tuple[Link, ...]
    """The backups that this one depends on, full first; empty where it depends on none."""
    previous: Link | None
    """The plan's backup committed before this one, whatever its type."""
    sources: tuple[SourceState, ...]
    collections: tuple[Collection, ...]
    size_bytes: int
    size_compressed: int
    size_stored: int
    checksum: str
    """SHA-256 of SHA256SUMS without the manifest's own line."""
    encryption_key_id: str
    encapsulated_key: str | None
    """HPKE encapsulation of the backup's data key, base64; None with `encryption: none`."""
    storage_tiers: tuple[str, ...]
    retention_days: float | None
    source_system: str
    backup_duration_seconds: float
    whole: bool = True
    """False where an emergency backup was narrowed to what the plan calls critical."""
    tags: tuple[str, ...] = ()
    tool_versions: dict[str, str]

    def source(self, name: str) -> SourceState:
        """Return the state of a source that the backup holds, by its name in the plan."""
        return next(state for state in self.sources if state.name == name)

    @model_validator(mode="after")
    def _distinct(self) -> BackupMetadata:
        for what in ({c.number for c in self.collections}, {c.name for c in self.collections}):
            if len(what) != len(self.collections):
                raise ValueError("two collections have one number or one name")
        return self

    @property
    def data_sources(self) -> tuple[str, ...]:
        """Names of the sources, in the plan's order."""
        return tuple(source.name for source in self.sources)

    @property
    def rows(self) -> int:
        """Rows in the backed up state."""
        return sum(collection.rows for collection in self.collections)

    @property
    def upserts(self) -> int:
        """Rows stored by this backup."""
        return sum(collection.upserts for collection in self.collections)

    @property
    def tombstones(self) -> int:
        """Deletions stored by this backup."""
        return sum(collection.tombstones for collection in self.collections)


class Verification(Record):
    """The result of one verification of one backup."""

    format_version: FormatVersion = FORMAT_VERSION
    plan: str
    backup_id: str
    manifest_sha256: str
    verified_at: UtcTime
    deep: bool
    status: BackupStatus
    rows: int
    expectations: int
    seconds: float
    findings: tuple[str, ...] = ()
    """What was wrong, in words; empty where the backup was proved good."""
    warnings: tuple[str, ...] = ()
    """Expectations that are broken but not critical."""


class Expiry(Record):
    """What one retention run removed, and why; written before the removal."""

    format_version: FormatVersion = FORMAT_VERSION
    plan: str
    expired_at: UtcTime
    removed: tuple[Link, ...]
    reasons: dict[str, str]
    head: Link | None
    """The plan's newest backup at that moment."""


def new_backup_id(kind: BackupType, moment: datetime) -> str:
    """Make an id such as `INC_20260102_030405_9f3a` from a type and an aware time."""
    return f"{kind.prefix}_{moment.astimezone(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(2)}"
