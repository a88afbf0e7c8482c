"""Sends the numbers of a plan's backups and retention to the backend that the plan names, each at its moment."""

from __future__ import annotations

from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.telemetry.collector import MetricsCollector
from blocks.telemetry.published import CLEANED, CREATED, OPERATIONS, REMOVED, SIZE
from flows.pipeline.results import RetentionResult
from flows.reporting.lifecycle import Operation, Verb

_COUNTED = {Verb.BACKUP: CREATED, Verb.RETENTION: CLEANED}


class SentMetrics:
    """Is told of one operation, and tells a backend. It never waits for one but at the end, for three seconds at most.

    Args:
        plan: Names the backend.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self._metrics = plan.metrics
        self._collector: MetricsCollector | None = None

    def started(self, operation: Operation) -> None:
        """Count a backup, or a retention run, that begins.

        Raises:
            ConfigurationError: The client of the backend is not installed; then nothing is sent at the end, either.
        """
        if name := _COUNTED.get(operation.verb):
            self._collector = self._metrics.collector()
            self._collector.record_counter(f"{name}_total")

    def ended(self, operation: Operation) -> None:
        """Count how it ended, and send its numbers."""
        if (collector := self._collector) is None:
            return
        collector.record_counter(f"{_COUNTED[operation.verb]}_{'success' if operation.error is None else 'failed'}")
        if operation.verb is Verb.BACKUP and operation.seconds is not None:
            collector.record_histogram(f"{OPERATIONS}.duration_seconds", operation.seconds)
        match operation.result:
            case BackupMetadata(size_stored=size) if operation.error is None:
                collector.record_histogram(SIZE, size)
            case RetentionResult(removed=removed) if operation.error is None and removed:
                collector.record_histogram(REMOVED, len(removed))
        collector.close()
