"""What the operations of a program are counted by, under the names that monitoring knows them by."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger(__name__)


class Collector(Protocol):
    """What a manager tells its numbers to, `lastgood.MetricsCollector` for one.

    Whatever it raises is logged, and stops nothing.
    """

    def record_counter(self, name: str) -> object:
        """Count one, such as of `backup.operations.created_success`."""
        ...

    def record_histogram(self, name: str, value: float) -> object:
        """Observe a value, such as of `backup.operations.duration_seconds`."""
        ...


class Numbers:
    """What a program counts, for itself and for a collector. Thread-safe.

    Args:
        collector: Is told all of it; None for nobody.
    """

    def __init__(self, collector: Collector | None) -> None:
        self._collector = collector
        self._guard = threading.Lock()
        self._counted: dict[str, int] = {}

    def counted(self) -> dict[str, int]:
        """Return all counters by name."""
        with self._guard:
            return dict(self._counted)

    @contextmanager
    def operation(self, name: str) -> Iterator[None]:
        """Count an operation when it starts, and whether it succeeds or fails."""
        self._count(f"{name}_total")
        try:
            yield
        except BaseException:
            self._count(f"{name}_failed")
            raise
        self._count(f"{name}_success")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observe how long something takes, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.observe(f"{name}.duration_seconds", time.monotonic() - started)

    def observe(self, name: str, value: float) -> None:
        """Tell the collector a value."""
        if (collector := self._collector) is not None:
            self._told(lambda: collector.record_histogram(name, value))

    def _count(self, name: str) -> None:
        with self._guard:
            self._counted[name] = self._counted.get(name, 0) + 1
        if (collector := self._collector) is not None:
            self._told(lambda: collector.record_counter(name))

    def _told(self, tell: Callable[[], object]) -> None:
        try:
            tell()
        except Exception:
            logger.warning("the metrics collector failed", exc_info=True)
