"""Grafana's published schema, and TypeScript to check by it: `python -m tests.grafana_release` installs them."""

from __future__ import annotations

from pathlib import Path

from tests import node_packages

_NAME = "grafana"


def grafana_packages() -> Path:
    """The folder where node finds `@grafana/schema` and `typescript`."""
    found = node_packages.installed(_NAME)
    assert (found / "@grafana").exists(), "Grafana's schema is missing: run `make tools`"
    return found


if __name__ == "__main__":
    node_packages.install(_NAME)
