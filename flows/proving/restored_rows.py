"""The rows of a collection of a backup as a suite sees them, read from the repository; nothing live is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blocks.plan.quality.suite import QualitySuite
from blocks.plan.quality.table import CheckedTable
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain
from flows.pipeline.executor import retried
from flows.proving.suites import SuiteRows


@contextmanager
def restored_rows(repository: Repository, backup: BackupMetadata, suite: QualitySuite) -> Iterator[CheckedTable]:
    """Read rows through the chain of a backup, part by part; the table is gone afterwards.

    Args:
        repository: The unlocked repository; a reader's credential is needed.
        backup: The backup.
        suite: Names one collection of it, and what of it is read as what.

    Raises:
        CorruptionDetected: What was stored is missing or damaged.
    """
    chain = Chain(repository, backup)
    chain.open_data({})
    (collection,) = (one for one in backup.collections if one.name == suite.collection)
    with SuiteRows(backup.plan, [suite], backup) as rows:
        for part in chain.parts_of(collection, Selection()):
            rows.add(collection.name, retried(part.load), part.part.number)
        yield rows.tables_of(suite.name)[collection.name]
