"""Metrics to an OpenTelemetry collector, by OTLP over HTTP."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Counter, Histogram
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from blocks.telemetry.published import buckets_of
from blocks.version import VERSION

SEND_SECONDS = 2.0
"""Attempts to send what was gathered take no longer than this: less than the end of an operation waits for them."""

_PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_UNITS = {"seconds": "s", "bytes": "By"}


class _Exporter(OTLPMetricExporter):
    """Sends, and remembers whether what it sent last was taken, which nobody else tells."""

    taken = True

    def export(self, metrics_data: MetricsData, timeout_millis: float | None = None, **more: Any) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **more)
        self.taken = result is MetricExportResult.SUCCESS
        return result


class OtlpClient:
    """Gathers metrics, and sends what was gathered since it last did.

    Runs are processes that live for seconds, so each sends the difference that it made (temporality `delta`), unless
    the environment asks for something else. Headers, certificates and what else the exporter needs come from the
    variables that OpenTelemetry knows.

    Args:
        endpoint: URL of the collector's metrics; None for what the environment says.
        tags: Attributes of each number.
    """

    def __init__(self, endpoint: str | None, tags: Mapping[str, str]) -> None:
        deltas: dict[type, AggregationTemporality] = dict.fromkeys(
            (SdkCounter, SdkHistogram), AggregationTemporality.DELTA
        )
        self._exporter = _Exporter(
            endpoint=endpoint,
            timeout=SEND_SECONDS,
            preferred_temporality=None if os.environ.get(_PREFERENCE) else deltas,
        )
        # without a thread of its own: ours says when
        self._reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        self._tags = dict(tags)
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._provider = MeterProvider((self._reader,), _resource(), shutdown_on_exit=False)
        self._meter = self._provider.get_meter("lastgood", VERSION)

    def count(self, name: str) -> None:
        """Gather that one is to be counted."""
        if name not in self._counters:
            self._counters[name] = self._meter.create_counter(name)
        self._counters[name].add(1, self._tags)

    def observe(self, name: str, value: float) -> None:
        """Gather a value."""
        if name not in self._histograms:
            unit = next((unit for word, unit in _UNITS.items() if word in name), "")
            self._histograms[name] = self._meter.create_histogram(
                name, unit, explicit_bucket_boundaries_advisory=buckets_of(name)
            )
        self._histograms[name].record(value, self._tags)

    def flush(self) -> None:
        """Send what was gathered.

        Raises:
            ConnectionError: The collector did not take it.
        """
        with _kept_from_the_log() as said:
            self._reader.force_flush()
        if not self._exporter.taken:
            raise ConnectionError(said[0] if said else "the collector did not take them")

    def close(self) -> None:
        """Close the connection."""
        self._provider.shutdown()


@contextmanager
def _kept_from_the_log() -> Iterator[list[str]]:
    """Keep what the exporter logs in this thread out of the log, each attempt and its end: it is said once, by us.

    Yields:
        What it said.
    """
    said: list[str] = []
    here = threading.get_ident()

    def kept(record: logging.LogRecord) -> bool:
        if record.thread != here:
            return True
        said.append(record.getMessage())
        return False

    logger = logging.getLogger(OTLPMetricExporter.__module__)
    logger.addFilter(kept)
    try:
        yield said
    finally:
        logger.removeFilter(kept)


def _resource() -> Resource:
    # what the environment names is found by the resource itself
    own = {"host.name": socket.gethostname()}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        own["service.name"] = "lastgood"
    return Resource.create(own)
