"""Sends the numbers of a plan's operations to the backend that the plan names, each at its moment.

Backups and retention have the names that monitoring knows them by; restores and verifications have none, and are
counted by how they ended: `lastgood.verification.bad`.
"""

from __future__ import annotations

from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.telemetry.collector import MetricsCollector
from blocks.telemetry.published import CLEANED, CREATED, OPERATIONS, REMOVED, SIZE
from blocks.verification import Verification
from flows.pipeline.results import RetentionResult
from flows.reporting.journal import outcome
from flows.reporting.lifecycle import Operation, Verb

_PUBLISHED = {Verb.BACKUP: CREATED, Verb.RETENTION: CLEANED}


class SentMetrics:
    """Is told of one operation, and tells a backend. It never waits for one but at the end, for three seconds at most.

    Args:
        plan: Names the backend.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self._plan = plan
        self._collector: MetricsCollector | None = None

    def started(self, operation: Operation) -> None:
        """Count an operation that begins.

        Raises:
            ConfigurationError: The client of the backend is not installed; then nothing is sent at the end, either.
        """
        self._collector = self._plan.metrics.collector(self._plan.name)
        published = _PUBLISHED.get(operation.verb)
        self._collector.record_counter(f"{published}_total" if published else f"{_own(operation)}.started")

    def ended(self, operation: Operation) -> None:
        """Count how it ended, and send its numbers."""
        if (collector := self._collector) is None:
            return
        if published := _PUBLISHED.get(operation.verb):
            collector.record_counter(f"{published}_{'success' if operation.error is None else 'failed'}")
        else:
            collector.record_counter(f"{_own(operation)}.{outcome(operation)}")
        for name, value in _observed(operation).items():
            collector.record_histogram(name, value)
        collector.close()


def _own(operation: Operation) -> str:
    return f"lastgood.{operation.verb.value}"


def _observed(operation: Operation) -> dict[str, float]:
    """Return what is observed of an operation that ended, by name."""
    seconds = operation.seconds or 0.0
    match operation.verb:
        case Verb.BACKUP:
            found = {f"{OPERATIONS}.duration_seconds": seconds}
        case Verb.RETENTION:
            found = {}
        case _:
            found = {f"{_own(operation)}.duration_seconds": seconds}
    if operation.error is not None:
        return found
    match operation.result:
        case BackupMetadata(size_stored=size):
            found[SIZE] = size
        case RetentionResult(removed=removed) if removed:
            found[REMOVED] = len(removed)
        case Verification(restore_seconds=float(took)):
            found[f"{_own(operation)}.restore_seconds"] = took
    return found
