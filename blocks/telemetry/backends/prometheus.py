"""Metrics of this process, as Prometheus fetches them."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from blocks.telemetry.published import COUNTERS, HISTOGRAMS, buckets_of, underscored

if TYPE_CHECKING:  # what counts does without it
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric


class _Histogram:
    """What was observed, by bucket."""

    def __init__(self, name: str) -> None:
        self.bounds = buckets_of(name)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0


class PrometheusBackend:
    """Counts in memory; a collector in the sense of prometheus_client. Thread-safe.

    Names are those that rules and panels know: with underscores, and without a `_total` that a counter does not have
    itself. The published ones are there from the beginning, at zero, since a rate cannot tell the first event of a
    series from the series itself.

    Args:
        prefix: Stands before each name.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._guard = threading.Lock()
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._histograms = {name: _Histogram(name) for name in HISTOGRAMS}

    def count(self, name: str) -> None:
        """Count one."""
        with self._guard:
            self._counters[name] = self._counters.get(name, 0) + 1

    def observe(self, name: str, value: float) -> None:
        """Observe a value."""
        with self._guard:
            if (found := self._histograms.get(name)) is None:
                found = self._histograms[name] = _Histogram(name)
            found.counts[bisect_left(found.bounds, value)] += 1
            found.sum += value

    def flush(self, seconds: float) -> bool:
        """Return that there is nothing to send."""
        return True

    def close(self, seconds: float) -> None:
        """Do nothing: it can still be fetched."""

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, for a registry of prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, UnknownMetricFamily

        with self._guard:
            counters = dict(self._counters)
            histograms = {name: (one.bounds, list(one.counts), one.sum) for name, one in self._histograms.items()}
        for name, value in counters.items():
            # a family of counters would add `_total` to all names
            family = CounterMetricFamily if name.endswith("_total") else UnknownMetricFamily
            yield family(underscored(name, self._prefix), COUNTERS.get(name, name), value)
        for name, (bounds, counts, total) in histograms.items():
            bounded = zip([*map(str, map(float, bounds)), "+Inf"], accumulate(counts), strict=True)
            yield HistogramMetricFamily(
                underscored(name, self._prefix), HISTOGRAMS.get(name, name), list(bounded), total
            )

    def registry(self) -> CollectorRegistry:
        """Return a registry that has these metrics and no others."""
        from prometheus_client import CollectorRegistry

        made = CollectorRegistry()
        made.register(self)
        return made
