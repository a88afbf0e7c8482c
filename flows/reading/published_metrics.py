"""The metrics of the system that lastgood replaces, under their names, from what the operations of plans add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from blocks.telemetry.published import (
    CLEANED,
    COUNTERS,
    CREATED,
    HISTOGRAMS,
    OPERATIONS,
    REMOVED,
    SIZE,
    buckets_of,
    underscored,
)
from flows.reporting.exposition import Family
from flows.reporting.journal import COMPLETED, FAILED, PARTIAL
from flows.reporting.lifecycle import Verb
from flows.reporting.plan_totals import MICRO, Counts, PlanTotals, buckets, total


def published(totals: Sequence[PlanTotals], prefix: str = "") -> Iterator[Family]:
    """Return them: without labels, of all plans together.

    Args:
        totals: What the operations of each plan add up to.
        prefix: What stands before each name.
    """
    counts: Counts = Counter()
    for one in totals:
        counts.update(one.counts)

    def counter(name: str, value: int) -> Family:
        family = Family(underscored(name, prefix), "counter", COUNTERS[name])
        family.add(value)
        return family

    def histogram(name: str, key: tuple[str, ...], unit: int = 1) -> Family:
        family = Family(underscored(name, prefix), "histogram", HISTOGRAMS[name])
        family.add_histogram(buckets(counts, *key), total(counts, *key) / unit, buckets_of(name))
        return family

    made, failed = _ended(counts, Verb.BACKUP, COMPLETED), _ended(counts, Verb.BACKUP, FAILED, PARTIAL)
    yield counter(f"{CREATED}_total", total(counts, "started", Verb.BACKUP))
    yield counter(f"{CREATED}_success", made)
    yield counter(f"{CREATED}_failed", failed)
    yield histogram(f"{OPERATIONS}.duration_seconds", ("took", Verb.BACKUP), MICRO)
    yield histogram(SIZE, ("size",))
    cleaned, wrong = _ended(counts, Verb.RETENTION, COMPLETED), _ended(counts, Verb.RETENTION, FAILED, PARTIAL)
    yield counter(f"{CLEANED}_total", total(counts, "started", Verb.RETENTION))
    yield counter(f"{CLEANED}_success", cleaned)
    yield counter(f"{CLEANED}_failed", wrong)
    yield histogram(REMOVED, ("removed",))


def _ended(counts: Counts, verb: str, *outcomes: str) -> int:
    return sum(count for name, count in counts.items() if name[:2] == ("ended", verb) and name[3] in outcomes)
