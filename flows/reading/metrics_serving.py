"""Metrics of plans over HTTP, with a page for people beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from blocks.plan.plan import BackupPlan
from flows.reading.exporter import exporter_of
from flows.reading.report import report_html
from flows.reporting.exposition import CONTENT_TYPE
from flows.reporting.metrics_server import HTML, PLAIN, serving

LOCAL_HOST = "127.0.0.1"
"""Where is listened unless said otherwise: names of plans and places are nobody else's business."""

_PAGE_SECONDS = 15.0
"""For so long a page is shown again: repositories are read for each one."""


class _ReportPage:
    """The report of plans, as it was a moment ago."""

    def __init__(self, plans: Sequence[BackupPlan]) -> None:
        self._plans = plans
        self._guard = threading.Lock()
        self._made_at = -_PAGE_SECONDS
        self._page = ""

    def text(self) -> str:
        """Return the page."""
        with self._guard:
            if time.monotonic() - self._made_at >= _PAGE_SECONDS:
                self._page = report_html(self._plans, datetime.now(UTC))
                self._made_at = time.monotonic()
            return self._page


@contextmanager
def serving_metrics(
    plans: Sequence[BackupPlan], port: int, host: str = LOCAL_HOST, prefix: str | None = None
) -> Iterator[str]:
    """Serve the metrics of plans for as long as the context lasts: /metrics, their report at /, and /healthz.

    Args:
        plans: Read and resolved, each with a name of its own.
        port: Port to listen on; 0 for any that is free.
        host: Address to listen on.
        prefix: What stands before the published names; None for what the plans say.

    Yields:
        The address, as a URL.

    Raises:
        ConfigurationError: That address cannot be listened on, or the prefix is wrong.
    """
    exporter = exporter_of(plans, prefix)
    pages = {
        "/metrics": (CONTENT_TYPE, exporter.text),
        "/": (HTML, _ReportPage(plans).text),
        "/healthz": (PLAIN, lambda: "ok\n"),
    }
    with serving(host, port, pages) as address, exporter.looking():
        yield address
