"""The metrics of the system that lastgood replaces, under their names, from what the operations of plans add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from blocks.telemetry.published import CLEANED, CREATED, OPERATIONS, REMOVED, SIZE, buckets_of, underscored
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

    def counter(name: str, meaning: str, value: int) -> Family:
        family = Family(underscored(name, prefix), "counter", meaning)
        family.add(value)
        return family

    def histogram(name: str, meaning: str, key: tuple[str, ...], unit: int = 1) -> Family:
        family = Family(underscored(name, prefix), "histogram", meaning)
        family.add_histogram(buckets(counts, *key), total(counts, *key) / unit, buckets_of(name))
        return family

    made, failed = _ended(counts, Verb.BACKUP, COMPLETED), _ended(counts, Verb.BACKUP, FAILED, PARTIAL)
    yield counter(f"{CREATED}_total", "Backups that were begun.", total(counts, "started", Verb.BACKUP))
    yield counter(f"{CREATED}_success", "Backups that were made and committed.", made)
    yield counter(f"{CREATED}_failed", "Backups that failed, those of killed processes among them.", failed)
    duration = f"{OPERATIONS}.duration_seconds"
    yield histogram(duration, "How long backups took that ended, well or not.", ("took", Verb.BACKUP), MICRO)
    yield histogram(SIZE, "What each backup that was made takes in the repository.", ("size",))
    cleaned, wrong = _ended(counts, Verb.RETENTION, COMPLETED), _ended(counts, Verb.RETENTION, FAILED, PARTIAL)
    yield counter(f"{CLEANED}_total", "Retention runs that were begun.", total(counts, "started", Verb.RETENTION))
    yield counter(f"{CLEANED}_success", "Retention runs that did all they should.", cleaned)
    yield counter(f"{CLEANED}_failed", "Retention runs that failed, or removed only a part.", wrong)
    yield histogram(REMOVED, "How many backups a retention run removed, of those that removed any.", ("removed",))


def _ended(counts: Counts, verb: str, *outcomes: str) -> int:
    return sum(count for name, count in counts.items() if name[:2] == ("ended", verb) and name[3] in outcomes)
