"""What a backup counted of its collections, as backups are compared by it: pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from blocks.records import BackupMetadata, Collection

FEWEST_GAINED = 200
"""Rows that a collection held before for it to have grown: small tables jump."""

FEWEST_SAMPLED, LEAST_SAMPLED_BYTES = 100, 64 * 1024
"""Rows and Arrow bytes that have to be stored for widths and compression to say anything."""


class Tally(NamedTuple):
    """What a backup counted of one collection.

    Attributes:
        rows: Its rows.
        changed: Rows that were written or deleted since the backup before, at least; None where that is not known.
        stored: Rows that were stored.
        size_bytes: What those take in Arrow, in bytes.
        size_compressed: The same, compressed.
        shape: Its columns; where they differ, rows are not compared by what they take.
    """

    rows: int
    changed: int | None
    stored: int
    size_bytes: int
    size_compressed: int
    shape: object = None

    @property
    def is_sample(self) -> bool:
        """Whether so much of it was stored that width and ratio say anything."""
        most = 2 * self.stored >= self.rows and self.stored >= FEWEST_SAMPLED
        return most and self.size_bytes >= LEAST_SAMPLED_BYTES

    @property
    def width(self) -> int:
        """What a stored row takes, in bytes; of a sample only."""
        return round(self.size_bytes / self.stored)

    @property
    def ratio(self) -> int:
        """What compression left, in thousandths."""
        return round(1000 * self.size_compressed / max(1, self.size_bytes))

    def lost_since(self, last: Tally) -> float:
        """Return the share of its rows that a collection lost."""
        return max(0.0, 1 - self.rows / last.rows) if last.rows else 0.0

    def gained_since(self, last: Tally) -> float:
        """Return by what share it grew, as if it had held some rows at least; to be filled is not to grow."""
        return max(0.0, self.rows / max(last.rows, FEWEST_GAINED) - 1) if last.rows else 0.0

    def replaced_since(self, last: Tally) -> int | None:
        """Return how many rows changed beside those by which it grew or shrank; None where that is not known."""
        return None if self.changed is None else max(0, self.changed - abs(self.rows - last.rows))


@dataclass(frozen=True)
class Census:
    """What a backup counted.

    Attributes:
        backup_id: Id of the backup.
        at: The time that it restores.
        counts: By the full name of each collection.
    """

    backup_id: str
    at: datetime
    counts: Mapping[str, Tally]


def census_of(backup: BackupMetadata, lineage: Sequence[BackupMetadata]) -> Census:
    """Count a backup that is made after those of a lineage.

    Args:
        backup: The backup; it names all of its collections.
        lineage: As of `history_of`.
    """
    if backup.base is None or not lineage:
        return counted(backup, None)
    if backup.base == lineage[-1].backup_id:
        return counted(backup, {})
    if backup.base != lineage[0].backup_id:
        return counted(backup, None)
    # a differential: what changed since its full, without what had changed by the backup before
    known: dict[str, int] = {}
    for one in lineage[1:]:
        for c in one.collections:
            known[c.name] = known.get(c.name, 0) + c.upserts + c.tombstones
    return counted(backup, known)


def counted(backup: BackupMetadata, known: Mapping[str, int] | None) -> Census:
    """Count a backup.

    Args:
        backup: The backup; it names all of its collections.
        known: By collection how many rows that it stored had changed by the backup before; None where it is not known
            which of them changed.
    """
    counts = {c.name: _count(c, None if known is None else known.get(c.name, 0)) for c in backup.collections}
    return Census(backup.backup_id, backup.timestamp, counts)


def _count(collection: Collection, known: int | None) -> Tally:
    rows = stored = removed = size_bytes = size_compressed = 0
    for part in collection.parts:
        rows += part.rows
        if (segment := part.segment) is not None:
            stored, removed = stored + segment.upserts, removed + segment.tombstones
            size_bytes, size_compressed = size_bytes + segment.size_bytes, size_compressed + segment.size_compressed
    changed = None if known is None else max(0, stored + removed - known)
    return Tally(rows, changed, stored, size_bytes, size_compressed, (collection.key, collection.columns))
