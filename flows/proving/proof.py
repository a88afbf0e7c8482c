"""What a verification has proved so far, and the comparisons it proves with."""

from __future__ import annotations

import threading
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.plan.plan import BackupPlan
from blocks.plan.quality import QualitySuite, load_suites
from blocks.records import BackupMetadata, BackupStatus, Collection
from blocks.rows.canonical import DIGEST, KEY, is_sorted, one_chunk, unify
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex, positions
from blocks.rows.keys import no_keys
from blocks.rows.normalize import to_normal

BLOCK_ROWS = 1 << 17
"""Rows that are compared at once: their keys take as much room as the rows themselves may."""


@cache
def _nothing() -> pa.Table:
    """Return a table without rows; made when it is needed, since making an array loads pandas."""
    return pa.table({KEY: no_keys(), DIGEST: pa.array([], pa.uint64())})


class Proof:
    """Collects what was compared and what was wrong; keeps the rows that quality suites ask for.

    Args:
        plan: Its quality suites are read at once, so that a bad file is refused before any work.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self.suites: list[QualitySuite] = load_suites(plan.quality)
        self.findings: list[str] = []
        self.warnings: list[str] = []
        self.corrupted = False
        self.rows = 0
        self._guard = threading.Lock()
        self.expectations = 0
        self._kept: dict[str, list[pa.Table]] = {suite.collection: [] for suite in self.suites}

    @property
    def status(self) -> BackupStatus:
        """Verified where nothing was found; corrupted where bytes are wrong; else (bad data) only completed."""
        if self.corrupted:
            return BackupStatus.CORRUPTED
        return BackupStatus.COMPLETED if self.findings else BackupStatus.VERIFIED

    def corrupt(self, finding: str) -> None:
        """Take note that the backup is not what was stored."""
        self.corrupted = True
        self.findings.append(finding)

    def count(self, rows: int) -> None:
        """Count rows that were compared and found the same."""
        with self._guard:
            self.rows += rows

    def keep(self, collection: str, rows: pa.Table) -> None:
        """Keep restored rows for the quality suites, where one asks for the collection.

        Args:
            collection: Full name of the collection.
            rows: Restored rows with canonical columns.
        """
        if collection in self._kept and rows.num_columns:
            self._kept[collection].append(rows)

    def run_suites(self, backup: BackupMetadata) -> None:
        """Run the quality suites on the rows that were kept; the manifest says how many there must be."""
        collections = {c.name: c for c in backup.collections}
        for suite in self.suites:
            if suite.collection not in collections:
                self.findings.append(f"suite {suite.name}: the backup holds no collection {suite.collection}")
                continue
            collection = collections[suite.collection]
            result = suite.run(self._rows(collection), {"expected_rows": collection.rows})
            self.expectations += result.evaluated
            self.findings += [f"{suite.collection}: {finding}" for finding in result.findings]
            self.warnings += [f"{suite.collection}: {warning}" for warning in result.warnings]

    def _rows(self, collection: Collection) -> pa.Table:
        if kept := self._kept[collection.name]:
            return pa.concat_tables(unify(kept))
        return pa.table({name: pa.nulls(0) for name, _ in collection.columns})


def compare(what: str, expected: PartIndex, rows: pa.Table, key: tuple[str, ...], digest: RowDigest) -> None:
    """Compare rows with an index, key by key.

    Args:
        what: What errors call the part.
        expected: Keys and digests as they were recorded.
        rows: Restored rows as their source knows them: the columns that digests are of.
        key: Names of the key columns.
        digest: Digests rows as in the index.

    Raises:
        CorruptionDetected: A row is missing, is not the same, or is one too many.
    """
    if _same_in_order(expected, rows, key, digest):
        return
    normal = to_normal(rows, key, digest) if rows.num_columns else _nothing()
    found = positions(expected.keys, one_chunk(normal.column(KEY)))
    lost = found.null_count
    same = pc.equal(one_chunk(normal.column(DIGEST)).take(found.drop_null()), expected.digests.filter(found.is_valid()))
    different = len(same) - (same.true_count if len(same) else 0)
    extra = rows.num_rows - (len(expected) - lost)
    if lost or different or extra:
        raise CorruptionDetected(
            f"{what}: {lost} rows are missing, {different} differ and {extra} are too many",
            hint="Restore an earlier backup; `lastgood check --read-data` reports what else is damaged.",
        )


def _same_in_order(expected: PartIndex, rows: pa.Table, key: tuple[str, ...], digest: RowDigest) -> bool:
    """Whether rows are those of an index, in its order; so the keys of all rows need not be there at once."""
    keys, digests = expected.keys, expected.digests
    if len(keys) != rows.num_rows or not is_sorted(keys):
        return False
    for start in range(0, rows.num_rows, BLOCK_ROWS):
        block = to_normal(rows.slice(start, BLOCK_ROWS), key, digest)
        same_keys = one_chunk(block.column(KEY)).equals(keys.slice(start, BLOCK_ROWS))
        if not same_keys or not one_chunk(block.column(DIGEST)).equals(digests.slice(start, BLOCK_ROWS)):
            return False
    return True
