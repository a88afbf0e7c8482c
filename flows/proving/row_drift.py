"""Rows that got lost since the backup before: seen in the two manifests, without any suite and at any depth."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.errors import LastgoodError
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from flows.proving.earlier import rows_of

FEW_ROWS = 100
"""Of collections with fewer rows in the backup before nothing is said: a queue, a small cache or a list of settings
is emptied in the course of things."""
KEPT_SHARE = 0.5
"""Share of its rows up to which a collection has lost more than is usual from one backup to the next."""


def row_drift(repository: Repository, backup: BackupMetadata) -> list[str]:
    """Say which collections are gone, are empty, or lost half of their rows or more since the plan's backup before.

    Args:
        repository: The unlocked repository.
        backup: The backup.

    Returns:
        Sentences, none where the backup before is not there any more or covers something else.
    """
    try:
        before = repository.manifest(backup.plan, backup.previous.backup_id) if backup.previous is not None else None
    except LastgoodError:  # what is wrong with another backup is found by its own verification
        return []
    return [] if before is None else list(_drift(before, backup))


def _drift(before: BackupMetadata, backup: BackupMetadata) -> Iterator[str]:
    if not (before.whole and backup.whole):
        return
    kinds, there = ({state.name: state.type for state in one.sources} for one in (before, backup))
    names = {collection.name for collection in backup.collections}
    for collection in before.collections:
        name, rows = collection.name, rows_of(before, collection.name)
        if rows is None or rows < FEW_ROWS or there.get(collection.source) != kinds[collection.source]:
            continue
        now = rows_of(backup, name)
        if name not in names:
            yield f"since {before.backup_id}: {name} is gone, which had {rows:,} rows."
        elif now is not None and now <= KEPT_SHARE * rows:
            yield f"since {before.backup_id}: {name} has {now:,} rows, {rows:,} before."
