"""What a verification has proved so far, and the comparisons it proves with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.plan.quality import QualitySuite, load_suites
from blocks.plan.quality.findings import NOT_TRIED, Judgement, evaluated, faults, findings, oddities, own_rule, untried
from blocks.records import BackupMetadata, BackupStatus
from blocks.rows.canonical import DIGEST, KEY, is_sorted, one_chunk
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex, positions
from blocks.rows.keys import no_keys
from blocks.rows.normalize import to_normal
from blocks.verification import Axis, AxisResult, CheckOutcome, CollectionProfile, Depth, RuleOutcome, RuleResult
from flows.pipeline.chain import RestorePart
from flows.proving.suites import SuiteRows, Values

logger = logging.getLogger(__name__)

BLOCK_ROWS = 1 << 17
"""Rows that are compared at once: their keys take as much room as the rows themselves may."""


@cache
def _nothing() -> pa.Table:
    """No keys and digests; made when it is needed, since the first array that Arrow makes imports pandas."""
    return pa.table({KEY: no_keys(), DIGEST: pa.array([], pa.uint64())})


MOST_SENTENCES = 100
"""Findings of a kind that are kept one by one: a lost disk has one for each part."""


def limited(sentences: Iterable[str]) -> tuple[str, ...]:
    """Return sentences, each once; of very many the first, and how many more there are."""
    once = list(dict.fromkeys(sentences))
    if len(once) <= MOST_SENTENCES:
        return tuple(once)
    return (*once[:MOST_SENTENCES], f"and {len(once) - MOST_SENTENCES:,} more")


@dataclass
class Findings:
    """What was found on one axis so far.

    Attributes:
        depth: How far it was looked at; None where it was not.
        bad: What is wrong, in sentences.
        unproven: What could not be tried, in sentences: no fault of the backup.
        odd: What is worth a warning.
    """

    depth: Depth | None = None
    bad: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    def reach(self, depth: Depth) -> None:
        """Say that it was looked at as deep as that; what reached deeper stays so."""
        order = list(Depth)
        if self.depth is None or order.index(depth) > order.index(self.depth):
            self.depth = depth

    @property
    def result(self) -> AxisResult:
        """What it amounts to."""
        outcome = CheckOutcome.UNTRIED if self.depth is None else CheckOutcome.GOOD
        if self.unproven:
            outcome = CheckOutcome.UNPROVEN
        if self.bad:
            outcome = CheckOutcome.BAD
        return AxisResult(
            outcome=outcome,
            depth="" if self.depth is None else self.depth.value,
            findings=limited(self.bad),
            warnings=limited([*self.unproven, *self.odd]),
        )


class Proof:
    """Collects what was found on each axis; keeps the rows that quality suites ask for.

    Args:
        plan: Its quality suites are read at once, so that a bad file is refused before any work.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self.suites: list[QualitySuite] = load_suites(plan.quality)
        self.axes = {axis: Findings() for axis in Axis}
        self.rows = 0
        self._guard = threading.Lock()
        self.expectations = 0
        self.evaluated: dict[str, str] = {}
        """SHA-256 of each suite that was evaluated, hex, by its name."""
        self.rules: list[RuleResult] = []
        """What each expectation came to."""
        self.profile: dict[str, CollectionProfile] = {}
        """Numbers about the rows that suites were evaluated on."""
        self.suite_rows: SuiteRows | None = None
        self._untried: str | None = None

    def __getitem__(self, axis: Axis) -> Findings:
        return self.axes[axis]

    @property
    def results(self) -> dict[str, AxisResult]:
        """What was found on each axis, by its name."""
        return {axis.value: found.result for axis, found in self.axes.items()}

    @property
    def findings(self) -> list[str]:
        """What is wrong, on all axes."""
        return [sentence for found in self.axes.values() for sentence in found.result.findings]

    @property
    def warnings(self) -> list[str]:
        """What could not be tried, and what is odd, on all axes."""
        return [sentence for found in self.axes.values() for sentence in found.result.warnings]

    @property
    def status(self) -> BackupStatus:
        """What this proof alone amounts to; see `Verdict.status`."""
        if self[Axis.BYTES].bad or self[Axis.RESTORABLE].bad:
            return BackupStatus.CORRUPTED
        proved = self[Axis.BYTES].result.outcome is CheckOutcome.GOOD
        return BackupStatus.VERIFIED if proved and not self.findings else BackupStatus.COMPLETED

    def count(self, rows: int) -> None:
        """Count rows that were compared and found the same."""
        with self._guard:
            self.rows += rows

    def keep(self, collection: str, rows: pa.Table, part: int = 0) -> None:
        """Keep restored rows for the quality suites, where one asks for the collection.

        Args:
            collection: Full name of the collection.
            rows: Restored rows with canonical columns.
            part: Number of the part that they are.
        """
        if self.suite_rows is not None and self._untried is None:
            with self._trying():
                self.suite_rows.add(collection, rows, part)

    def rows_of(self, backup: BackupMetadata) -> AbstractContextManager[object]:
        """Keep the rows of a backup that suites ask for; they are gone when the context ends."""
        if not self.suites:
            return nullcontext()
        with self._trying():
            self.suite_rows = SuiteRows(backup.plan, self.suites, backup)
        return self.suite_rows or nullcontext()

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Keep why suites cannot be run here (no room, a storage that fails), which ends no other proof."""
        import duckdb  # takes a while, and most plans have no suites

        try:
            yield
        except LastgoodError as exc:
            if isinstance(exc, ConfigurationError):
                raise
            self._untried = exc.message
        except (OSError, MemoryError, duckdb.Error) as exc:
            logger.debug("the quality suites could not be run", exc_info=exc)
            # the text of DuckDB's errors may hold values of rows
            self._untried = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__

    def run_suites(self, parameters: Values, whole: bool = True) -> None:
        """Run the quality suites on the rows that were kept.

        Args:
            parameters: Knows the values that suites name.
            whole: Whether all of its rows came; some of them are not judged.
        """
        if not self.suites:
            return
        quality = self[Axis.QUALITY]
        if not whole:
            quality.unproven.append("The quality suites were not run, since not all rows could be read.")
            return
        if self.suite_rows is not None and self._untried is None:
            with self._trying():
                self.rules = self.suite_rows.run(parameters)
        if self.suite_rows is None or self._untried is not None:
            self.rules = [_untried(suite, f"it could not be evaluated: {self._untried}") for suite in self.suites]
            quality.unproven += [f"suite {rule.suite}: {rule.sentence}" for rule in self.rules]
            return
        quality.reach(Depth.ROWS)
        self.profile = self.suite_rows.profiles
        self.evaluated = {suite.name: suite.sha256 for suite in self.suites}
        self.expectations = evaluated(self.rules)
        quality.bad += findings(self.rules)
        quality.unproven += [*faults(self.rules), *untried(self.rules)]
        quality.odd += oddities(self.rules)


def _untried(suite: QualitySuite, sentence: str) -> RuleResult:
    return own_rule(suite, suite.collection, (), sentence, Judgement(RuleOutcome.UNJUDGED, NOT_TRIED))


def proved_index(part: RestorePart, rows: pa.Table) -> PartIndex:
    """Compare the rows of a part with its index, which is returned.

    Args:
        part: The part.
        rows: Its rows as their source knows them; no columns where there never was a row.

    Raises:
        CorruptionDetected: They are not those of the index, or not as many as the manifest says.
    """
    expected = part.chain.index(part.collection.name, part.part.number)
    if part.part.rows != len(expected):
        raise CorruptionDetected(f"{part}: the index holds {len(expected)} rows, the manifest {part.part.rows}")
    if rows.num_columns:
        compare(str(part), expected, rows, part.spec.key, part.chain.index_digest)
    elif len(expected):
        raise CorruptionDetected(f"{part}: the index holds {len(expected)} rows, the data none")
    return expected


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
