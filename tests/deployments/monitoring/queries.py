"""What Grafana asks Prometheus for the dashboard's panels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployments.monitoring.files import DASHBOARD, monitoring_files


def dashboard(prefix: str = "") -> Mapping[str, Any]:
    """The dashboard, as it is imported."""
    found: Mapping[str, Any] = json.loads(monitoring_files(prefix)[DASHBOARD])
    return found


def panels(prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each panel with queries: the title of its row, and what it is."""
    row = ""
    for panel in dashboard(prefix)["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            yield row, panel


def queries(seconds: int, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The title of its panel and each query, over a range of so many seconds, a second apart, of all plans."""
    variables = {"$__range": f"{seconds}s", "$__interval": "1s", "$plan": ".*"}
    for _, panel in panels(prefix):
        # as Grafana does: no point is nearer to the next than that
        own = variables | ({"$__interval": panel["interval"]} if "interval" in panel else {})
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in own.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression
