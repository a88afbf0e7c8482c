"""What a suite for a collection is suggested from: a backup's rows, and numbers of some backups before it."""

from __future__ import annotations

from collections.abc import Callable

from blocks.errors import CorruptionDetected, ObjectUnreadable
from blocks.plan.quality.suite import Expectation, Format, QualitySuite
from blocks.records import BackupMetadata, Collection
from blocks.repository.block import Repository
from blocks.verification import CollectionProfile
from flows.proving.column_facts import ordered_pairs, text_facts
from flows.proving.earlier import Earlier, rows_of
from flows.proving.profile import kind_of, profile
from flows.proving.restored_rows import restored_rows
from flows.proving.suggest import Evidence, Seen


def draft(collection: Collection, keys: str | None, format: Format | None) -> QualitySuite:
    """Make a suite that says only what it is about; its expectation stands for those to come.

    Args:
        collection: A collection of the backup.
        keys: Glob of the keys or paths that it is about; None for all.
        format: What stands under them; None for the columns of the collection.
    """
    nothing = Expectation(type="expect_column_to_exist", kwargs={"column": "key"})
    name = collection.name if keys is None else f"{collection.name} {keys}"
    return QualitySuite(name=name, collection=collection.name, keys=keys, format=format, expectations=[nothing])


def gather(
    repository: Repository,
    backup: BackupMetadata,
    suite: QualitySuite,
    history: int,
    values: bool,
    note: Callable[[str], None],
) -> Evidence:
    """Read the rows that a suite is about, and the numbers of earlier backups; those without any are read, too.

    Args:
        repository: The unlocked repository; a reader's credential is needed.
        backup: The backup.
        suite: What it is about, as `draft` makes it.
        history: How many backups before it are looked at.
        values: Whether texts of rows may stand in the suite.
        note: Told what was left out.

    Raises:
        CorruptionDetected: What was stored of the backup is missing or damaged.
    """
    earlier = Earlier(repository, backup)
    before = earlier.whole(suite.collection)[:history]
    with restored_rows(repository, backup, suite) as table:
        numbers = profile(table)
        if left_out := len(table.columns) - len(numbers.columns):
            note(f"{left_out} of {len(table.columns)} columns are left out: the table is wide")
        texts, pairs = text_facts(table, numbers, values), ordered_pairs(table, numbers)
        kinds = {name: kind_of(column.type) for name, column in table.columns.items()}
        mixed = frozenset(name for name, column in table.columns.items() if column.wrong)
    if mixed:
        note(f"values of several types are in {', '.join(sorted(mixed))}: nothing is said of that")
    seen = [Seen(backup.timestamp, numbers)]
    for one in before:
        if earlier.is_bad(one):
            note(f"{one.backup_id} is left out: something stands against it, as `lastgood show` says")
        elif found := _profile(repository, earlier, one, suite, note):
            seen.append(Seen(one.timestamp, found))
    head = suite.model_dump(mode="json", include={"name", "collection", "keys", "format"}, exclude_none=True)
    (collection,) = (one for one in backup.collections if one.name == suite.collection)
    own = suite.keys is None and suite.format is None
    counts = [rows_of(one, collection.name) or 0 for one in before] if own else [one.profile.rows for one in seen[1:]]
    key = collection.key if suite.format is None else table.key
    return Evidence(head, key, kinds, seen, [numbers.rows, *counts], collection.tracking, texts, pairs, mixed)


def _profile(
    repository: Repository, earlier: Earlier, backup: BackupMetadata, suite: QualitySuite, note: Callable[[str], None]
) -> CollectionProfile | None:
    plain = suite.keys is None and suite.format is None
    if plain and (kept := earlier.profile(backup, suite.collection)) is not None:
        return kept
    try:
        with restored_rows(repository, backup, suite) as table:
            return profile(table)
    except (CorruptionDetected, ObjectUnreadable) as exc:
        note(f"{backup.backup_id} is left out: {exc.message}")
        return None
