"""The records of a backup: frozen, exact mirrors of what docs/format.md specifies for a manifest.

BackupMetadata            one backup: identity, base, chain, numbers
├── StoredObject          one object of the backup: name, size, checksum
├── SourceState           one source: when its view was taken, its change token
└── Collection            one table or tree: key, columns, definition
    └── Part              one disjoint piece: its bounds
        └── Segment       what this backup stored for the part
            ├── Blob      the sealed rows, and the sealed index: a range of an object
            └── KeyRange  which keys it can hold
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

FORMAT_VERSION = 2
"""What is written; records of version 1 are read for ever."""

FEATURES: frozenset[str] = frozenset()
"""What a record may require of its reader, beyond the version, and this lastgood knows."""


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


def first_wrong(error: ValidationError) -> str:
    """Say on one line what is wrong with a record first, without its content."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


class StoredObject(Record):
    """One sealed object: its name inside the backup's folder, sealed size in bytes, SHA-256 of the sealed bytes."""

    name: str
    size_bytes: Count
    sha256: str


class Blob(StoredObject):
    """A sealed run of bytes: a range of an object, or all of it. Size and SHA-256 are of the run alone."""

    offset: Count = 0
    """Where it begins in the object, in bytes."""
    number: Count | None = None
    """Its number in the backup, which is bound into it; None in version 1, where an object is bound to its part."""
    shared: tuple[Count, Count] | None = None
    """Of a blob that several small parts share, what is this part's: of data offset and length in its plaintext, in
    bytes; of an index the first row and the number of rows. None where all of it is."""

    @property
    def stored(self) -> StoredObject:
        """The object that holds nothing else."""
        return StoredObject(name=self.name, size_bytes=self.size_bytes, sha256=self.sha256)


class KeyRange(Record):
    """Which keys a segment can hold; a key that it says is not there is not there, or the segment is corrupted."""

    first: str
    """The least `_key` of its rows, base64; not more than the first 64 bytes of it."""
    last: str
    """The greatest one, likewise; of the keys that begin with 64 such bytes all may be there."""
    kinds: tuple[str, ...]
    """For each key column the letters of the types that its values have here, as `blocks.rows.key_kinds` has them."""
    filter: str | None = None
    """A Bloom filter of the `_key`s, base64; None where it would be large, and where there is nothing below to skip."""


class Segment(Record):
    """What one backup stored for one part: sealed rows and the sealed index of their keys and digests."""

    number: Count | None = None
    """Only in version 1, where it is in the names of both objects."""
    data: Blob
    index: Blob
    key_range: KeyRange | None = None
    """None in version 1. Not `keys`, which would make a mapping of it for `dict`, and so for Prefect."""
    upserts: Count
    tombstones: Count
    size_bytes: Count
    """Bytes of the Arrow rows before compression."""
    size_compressed: Count
    """Bytes of data and index after compression, before encryption; of a shared blob this part's share."""

    @property
    def stored_bytes(self) -> int:
        """What it takes in the repository; its share of what it shares with others."""
        return self.size_compressed if self.data.shared else self.data.size_bytes + self.index.size_bytes


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
    fingerprint: str = ""
    """Only in version 1, where it was stored; see `CollectionSpec.fingerprint`."""
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
    same_definition: bool = False
    """Stored in place of a definition that is the same as in the base."""
    warnings: tuple[str, ...] = ()
    rows: Count | None = None
    """Records of all of its collections as of this backup; None in version 1."""
    identity: dict[str, JsonValue] = {}
    """What tells this source from another one of its kind (a server's own id, say), where that is known: by name a list
    of words, of which one in common makes two the same."""


class PartChange(Record):
    """A part that is as in the base, but for its rows."""

    number: Count
    rows: Count
    segment: Segment


class CollectionChange(Record):
    """A collection that is as in the base, but for some parts."""

    name: str
    parts: tuple[PartChange, ...]

    @model_validator(mode="after")
    def _distinct(self) -> CollectionChange:
        if len({part.number for part in self.parts}) != len(self.parts):
            raise ValueError(f"{self.name} has two parts of one number")
        return self


class Link(Record):
    """A backup named together with the SHA-256 of its sealed manifest, so that a swap is seen."""

    backup_id: str
    manifest_sha256: str


class BackupMetadata(Record):
    """The manifest of one backup."""

    format_version: FormatVersion = FORMAT_VERSION
    requires: tuple[str, ...] = ()
    """What a reader has to know besides this version; other fields that it does not know do not matter."""
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
    objects: tuple[StoredObject, ...] = ()
    """The objects of the backup, sorted by name; empty in version 1, where segments name them."""
    collections: tuple[Collection, ...]
    inherits: bool = False
    """Whether collections and parts that are not named here are those of the base, with nothing stored for them."""
    changed: tuple[CollectionChange, ...] = ()
    """Collections of which only some parts are not as in the base; stored in place of them where `inherits`."""
    total_rows: Count | None = None
    """Rows in the backed up state; None in version 1."""
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
    clock_doubt: str | None = None
    """Why the clock that `timestamp` was read from was not believed, a sentence; None where nothing spoke against it.
    Retention takes no such time for a proof that time has passed."""
    suspicions: tuple[str, ...] = ()
    """What is not as the backups before lead one to expect, each a sentence that begins with a collection; empty where
    nothing is. Such a backup is as good as any other; retention keeps the last one before it until a person settled
    it."""
    history: dict[str, str] = {}
    """What the plan's backups up to this one counted, by collection, as `blocks.plan.suspicion_history` writes and
    reads it; empty where the chain tells. A text: it is read with every manifest, and looked at once for a new one."""
    tool_versions: dict[str, str]

    def source(self, name: str) -> SourceState:
        """Return the state of a source that the backup holds, by its name in the plan."""
        return next(state for state in self.sources if state.name == name)

    @model_validator(mode="after")
    def _of_one_version(self) -> BackupMetadata:
        segments = [part.segment for part in self.stored_parts if part.segment]
        blobs = [blob for segment in segments for blob in (segment.data, segment.index)]
        takes = self.inherits or self.changed or any(source.same_definition for source in self.sources)
        if self.format_version == 1:
            later = takes or self.requires or self.objects or self.total_rows is not None
            told = self.clock_doubt or self.suspicions or self.history
            if later or told or any(blob.offset or blob.shared or blob.number is not None for blob in blobs):
                raise ValueError("a manifest of version 1 holds what only later ones can")
            return self
        if takes and (not self.inherits or self.base is None):
            raise ValueError("a manifest inherits without a base")
        sizes = {stored.name: stored.size_bytes for stored in self.objects}
        if len(sizes) != len(self.objects):
            raise ValueError("two objects have one name")
        for blob in blobs:
            if blob.number is None or blob.offset + blob.size_bytes > sizes.get(blob.name, -1):
                raise ValueError(f"a blob of {blob.name} lies outside of the objects")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> BackupMetadata:
        for what in ({c.number for c in self.collections}, {c.name for c in self.collections}):
            if len(what) != len(self.collections):
                raise ValueError("two collections have one number or one name")
        named = [*(c.name for c in self.collections), *(c.name for c in self.changed)]
        if self.changed and len(set(named)) != len(named):
            raise ValueError("what changed in a collection is told twice")
        return self

    @property
    def stored_parts(self) -> Iterator[Part | PartChange]:
        """All parts that the manifest names, however it is stored."""
        for collection in self.collections:
            yield from collection.parts
        for change in self.changed:
            yield from change.parts

    @property
    def is_regular(self) -> bool:
        """Whether it is of the plan's own course; an emergency backup, which may hold part of the state, is not."""
        return self.backup_type is not BackupType.EMERGENCY

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """Ids of the backups that this one depends on, full first."""
        return tuple(link.backup_id for link in self.chain)

    @property
    def data_sources(self) -> tuple[str, ...]:
        """Names of the sources, in the plan's order."""
        return tuple(source.name for source in self.sources)

    @property
    def rows(self) -> int:
        """Rows in the backed up state."""
        if self.total_rows is not None:
            return self.total_rows
        return sum(collection.rows for collection in self.collections)

    @property
    def upserts(self) -> int:
        """Rows stored by this backup."""
        return sum(part.segment.upserts for part in self.stored_parts if part.segment)

    @property
    def tombstones(self) -> int:
        """Deletions stored by this backup."""
        return sum(part.segment.tombstones for part in self.stored_parts if part.segment)


class Acceptance(Record):
    """What a person said in words of the records that a plan had then (`--accept-clock`, `--adopt`, `accept`)."""

    sequence: Count
    """Number of the plan's newest backup then: what was said is about that one and those before."""
    newest: UtcTime | None = None
    """The newest time on record then, where the clock was accepted; None where it was not in doubt."""
    identities: dict[str, dict[str, JsonValue]] = {}
    """By name the identity of sources whose own the backups were said to be, although they have another one."""
    suspicions: tuple[str, ...] = ()
    """Ids of suspicious backups that were said to be right."""


class Expiry(Record):
    """What one retention run removed, and why; written before the removal."""

    format_version: FormatVersion = FORMAT_VERSION
    plan: str
    expired_at: UtcTime
    removed: tuple[Link, ...]
    reasons: dict[str, str]
    head: Link | None
    """The plan's newest backup at that moment."""
    accepted: Acceptance | None = None
    """What a person said to the run, where it would have refused without; `removed` may then be empty."""


def new_backup_id(kind: BackupType, moment: datetime) -> str:
    """Make an id such as `INC_20260102_030405_9f3a` from a type and an aware time."""
    return f"{kind.prefix}_{moment.astimezone(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(2)}"
