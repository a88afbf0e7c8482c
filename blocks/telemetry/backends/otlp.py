"""Metrics to an OpenTelemetry collector, by OTLP over HTTP."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource

from blocks.telemetry.published import buckets_of
from blocks.version import VERSION

SEND_SECONDS = 3.0
"""No attempt to send is made later than so long after the first one."""

_PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_UNITS = {"seconds": "s", "bytes": "By"}


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
        deltas: dict[type, AggregationTemporality] = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
        self._exporter = OTLPMetricExporter(
            endpoint=endpoint,
            timeout=SEND_SECONDS,
            preferred_temporality=None if os.environ.get(_PREFERENCE) else deltas,
        )
        self._reader = InMemoryMetricReader(self._exporter._preferred_temporality)
        self._tags = dict(tags)
        self._counters: dict[str, metrics.Counter] = {}
        self._histograms: dict[str, metrics.Histogram] = {}
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
        gathered = self._reader.get_metrics_data()
        if gathered is not None and self._exporter.export(gathered) is not MetricExportResult.SUCCESS:
            raise ConnectionError("the collector did not take them")

    def close(self) -> None:
        """Close the connection."""
        self._provider.shutdown()
        self._exporter.shutdown()


def _resource() -> Resource:
    # what the environment names is found by the resource itself
    own = {"host.name": socket.gethostname()}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        own["service.name"] = "lastgood"
    return Resource.create(own)
