"""What lists show of backups, in short: of a repository in a network in one sealed file beside the copies of manifests.

It stands for as many manifests, which are what takes time to open. Like those copies it answers only to who shows
backups to a person, and like them it may be gone or damaged: then the manifests are read.

Of many backups only the folders are listed, which tells as much as long as nothing was removed: on some servers, and
after a removal that was interrupted, a folder outlives its manifest. So the expiries are listed, too, and where there
is one that is not known, all objects are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from blocks.records import FORMAT_VERSION, BackupMetadata, BackupType, Count, FormatVersion, Link, Record, UtcTime
from blocks.storage.base import StoredName

SUMMARIES = "summaries.1"
"""Names the file; another number where a later version writes other fields, or means something else by them."""
MANY = 1000
"""Backups from which on a listing of all of their objects takes long."""
REMOVAL = timedelta(hours=1)
"""No removal takes longer."""


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
    """What is kept of a plan's backups for its lists."""

    format_version: FormatVersion = FORMAT_VERSION
    backups: tuple[BackupSummary, ...] = ()
    """In any order."""
    expiries: frozenset[str] = frozenset()
    """Names of the expiries whose removals had ended when all objects were listed last."""


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


def ended(expiries: Iterable[StoredName], now: datetime) -> frozenset[str]:
    """Return the names of those expiries whose removals have ended, or will not go on; `now` is aware."""
    return frozenset(one.name for one in expiries if one.modified_at < now - REMOVAL)


def worth_keeping(read: Collection[object], kept: Summaries, expiries: frozenset[str]) -> bool:
    """Whether the file is written anew, as a whole.

    Args:
        read: What was read besides what is kept.
        kept: What is kept.
        expiries: What is to be kept of expiries.
    """
    return len(read) * 50 > len(kept.backups) or (len(kept.backups) >= MANY and not expiries <= kept.expiries)
