"""Metrics of plans over HTTP, with a page for people beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from blocks.plan.plan import BackupPlan
from flows.reading.exporter import exporter_of
from flows.reporting.exposition import CONTENT_TYPE
from flows.reporting.metrics_server import HTML, PLAIN, link_page, serving

LOCAL_HOST = "127.0.0.1"
"""Where is listened unless said otherwise: names of plans and places are nobody else's business."""


@contextmanager
def serving_metrics(plans: Sequence[BackupPlan], port: int, host: str = LOCAL_HOST, prefix: str = "") -> Iterator[str]:
    """Serve the metrics of plans for as long as the context lasts: /metrics, a page at /, and /healthz.

    Args:
        plans: Read and resolved, each with a name of its own.
        port: Port to listen on; 0 for any that is free.
        host: Address to listen on.
        prefix: What stands before the published names, `_` included.

    Yields:
        The address, as a URL.

    Raises:
        ConfigurationError: That address cannot be listened on.
    """
    exporter = exporter_of(plans, prefix)
    pages = {
        "/metrics": (CONTENT_TYPE, exporter.text),
        "/": (HTML, lambda: link_page("lastgood", {"/metrics": "Metrics, for Prometheus"})),
        "/healthz": (PLAIN, lambda: "ok\n"),
    }
    with serving(host, port, pages) as address, exporter.looking():
        yield address
