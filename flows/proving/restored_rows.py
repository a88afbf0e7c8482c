"""The rows of some collections of a backup as typed tables, read from the repository; nothing live is touched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from blocks.records import BackupMetadata, Collection
from blocks.repository.block import Repository
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain
from flows.pipeline.executor import retried
from flows.proving.tables import RestoredTables


@contextmanager
def restored_rows(
    repository: Repository, backup: BackupMetadata, collections: Sequence[Collection]
) -> Iterator[RestoredTables]:
    """Read rows through the chain of a backup, part by part; the tables are gone afterwards.

    Args:
        repository: The unlocked repository; a reader's credential is needed.
        backup: The backup.
        collections: Some of its collections.

    Raises:
        CorruptionDetected: What was stored is missing or damaged.
    """
    chain = Chain(repository, backup)
    chain.open_data({})
    kinds = {state.name: state.type for state in backup.sources}
    with RestoredTables(backup.plan, collections, kinds) as tables:
        for collection in collections:
            for part in chain.parts_of(collection, Selection()):
                tables.add(collection.name, retried(part.load), part.part.number)
        yield tables
