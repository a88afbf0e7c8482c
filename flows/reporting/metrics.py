"""What the operations of a program are counted by, under the names that monitoring knows them by."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Protocol

from blocks.host.threads import ShortCalls

logger = logging.getLogger(__name__)

WAIT_SECONDS = 3.0
"""So long a collector is waited for. While a call of it takes longer, it is told nothing."""


class Collector(Protocol):
    """What a manager tells its numbers to, `lastgood.MetricsCollector` for one.

    Whatever it raises is logged, and stops nothing. What it returns is awaited where that can be, in another thread's
    event loop.
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
        self._calls, self._calling = ShortCalls("metrics-collector"), threading.Lock()
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
            with self._calling:
                self._calls.call(lambda: _finish(tell()), WAIT_SECONDS)
        except TimeoutError as exc:
            logger.warning("the metrics collector was not told all: %s", exc)
        except Exception:
            logger.warning("the metrics collector failed", exc_info=True)


def _finish(result: object) -> None:
    """Await what a collector returned whose methods are coroutines."""
    if isawaitable(result):
        import asyncio  # few collectors need it

        async def wait(result: Awaitable[object]) -> None:
            await result

        asyncio.run(wait(result))
