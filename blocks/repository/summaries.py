"""What lists show of backups, in short: of a repository in a network in one sealed file beside the copies of manifests.

It stands for as many manifests, which are what takes time to open. Like those copies it answers only to who shows
backups to a person, and like them it may be gone or damaged: then the manifests are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from blocks.records import BackupMetadata, BackupType, Count, Link, Record, UtcTime

SUMMARIES = "summaries.1"
"""Names the file; another number where a later version writes other fields, or means something else by them."""


class BackupSummary(Record):
    """What a list shows of a backup; what has a name of `BackupMetadata` is the same as there."""

    manifest_sha256: str
    """SHA-256 of the sealed manifest that it was made from."""
    backup_id: str
    backup_type: BackupType
    requested_type: BackupType
    promoted_because: str | None
    timestamp: UtcTime
    sequence: Count
    base: str | None
    chain_ids: tuple[str, ...]
    chain_sha256: tuple[str, ...]
    rows: Count
    upserts: Count
    tombstones: Count
    size_bytes: int
    size_compressed: int
    size_stored: int
    backup_duration_seconds: float
    whole: bool
    tags: tuple[str, ...]
    retention_days: float | None
    clock_doubt: str | None
    suspicions: tuple[str, ...]

    @property
    def chain(self) -> tuple[Link, ...]:
        """The backups that this one depends on, full first."""
        links = zip(self.chain_ids, self.chain_sha256, strict=True)
        return tuple(Link(backup_id=backup_id, manifest_sha256=sha256) for backup_id, sha256 in links)

    @property
    def link(self) -> Link:
        """Name the backup together with the digest of its manifest."""
        return Link(backup_id=self.backup_id, manifest_sha256=self.manifest_sha256)


_OF_LINKS = {"manifest_sha256", "chain_sha256"}


def summary(backup: BackupMetadata, manifest_sha256: str) -> BackupSummary:
    """Make the summary of a backup of its manifest, which may be as it is stored."""
    own = {name: getattr(backup, name) for name in BackupSummary.model_fields.keys() - _OF_LINKS}
    chain = tuple(link.manifest_sha256 for link in backup.chain)
    # all of it was validated when the manifest was read
    return BackupSummary.model_construct(manifest_sha256=manifest_sha256, chain_sha256=chain, **own)


Shown = BackupMetadata | BackupSummary
"""A backup, as far as a list shows it."""


class Summaries(Record):
    """The summaries of a plan's backups, as they are kept; in any order."""

    backups: tuple[BackupSummary, ...]


@dataclass(frozen=True)
class Listing:
    """What a plan's list shows.

    Attributes:
        backups: Committed backups whose manifests open, in the order of their commits.
        findings: What is wrong with the others, each a sentence that names the backup.
    """

    backups: list[BackupSummary]
    findings: list[str]


S = TypeVar("S", BackupMetadata, BackupSummary)


def in_order(backups: Iterable[S]) -> list[S]:
    """Sort as backups were committed."""
    return sorted(backups, key=lambda one: (one.sequence, one.timestamp, one.backup_id))


def worth_keeping(read: Mapping[str, object], known: Mapping[str, object]) -> bool:
    """Whether so much was read besides what is kept that the file, which is written as a whole, is written anew."""
    return len(read) * 50 > len(known)
