"""What a suite for a collection is suggested from: a backup's rows, and numbers of some backups before it."""

from __future__ import annotations

from collections.abc import Callable

from blocks.errors import CorruptionDetected, ObjectUnreadable
from blocks.records import BackupMetadata, Collection
from blocks.repository.block import Repository
from blocks.verification import CollectionProfile
from flows.proving.column_facts import ordered_pairs, text_facts
from flows.proving.earlier import Earlier, rows_of
from flows.proving.profile import kind_of, profile
from flows.proving.restored_rows import restored_rows
from flows.proving.suggest import Evidence, Seen


def gather(
    repository: Repository,
    backup: BackupMetadata,
    collection: Collection,
    history: int,
    values: bool,
    note: Callable[[str], None],
) -> Evidence:
    """Read the rows of a collection, and the numbers of earlier backups; those without any are read, too.

    Args:
        repository: The unlocked repository; a reader's credential is needed.
        backup: The backup.
        collection: One of its collections.
        history: How many backups before it are looked at.
        values: Whether texts of rows may stand in the suite.
        note: Told what was left out.

    Raises:
        CorruptionDetected: What was stored of the backup is missing or damaged.
    """
    earlier = Earlier(repository, backup)
    before = earlier.whole(collection.name)[:history]
    with restored_rows(repository, backup, [collection]) as tables:
        table = tables.table(collection.name)
        numbers = profile(table)
        if left_out := len(table.columns) - len(numbers.columns):
            note(f"{left_out} of {len(table.columns)} columns are left out: the table is wide")
        texts, pairs = text_facts(table, numbers, values), ordered_pairs(table, numbers)
        kinds = {name: kind_of(column.type) for name, column in table.columns.items()}
    seen = [Seen(backup.timestamp, numbers)]
    for one in before:
        if earlier.is_bad(one):
            note(f"{one.backup_id} is left out: something stands against it, as `lastgood show` says")
        elif found := _profile(repository, earlier, one, collection.name, note):
            seen.append(Seen(one.timestamp, found))
    rows = [collection.rows, *(rows_of(one, collection.name) or 0 for one in before)]
    return Evidence(collection, kinds, seen, rows, texts, pairs)


def _profile(
    repository: Repository, earlier: Earlier, backup: BackupMetadata, name: str, note: Callable[[str], None]
) -> CollectionProfile | None:
    if (kept := earlier.profile(backup, name)) is not None:
        return kept
    collections = [one for one in backup.collections if one.name == name]
    try:
        with restored_rows(repository, backup, collections) as tables:
            return profile(tables.table(name))
    except (CorruptionDetected, ObjectUnreadable) as exc:
        note(f"{backup.backup_id} is left out: {exc.message}")
        return None
