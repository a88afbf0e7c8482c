"""What prefect.yaml says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import yaml

from tests.e2e.prefect_support import ROOT

EVERY = {
    "backup/full": timedelta(hours=24),
    "backup/differential": timedelta(hours=6),
    "backup/incremental": timedelta(minutes=15),
    "retention/daily": timedelta(days=1),
    "verify/weekly": timedelta(weeks=1),
    "restore/by-hand": None,
    "undo/by-hand": None,
}
"""How often each deployment runs; None for one that is only run by hand."""


def written() -> dict[str, dict[str, Any]]:
    """Return the deployments of prefect.yaml by the flow's name and their own."""
    found = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    return {f"{d['entrypoint'].rpartition(':')[2]}/{d['name']}": d for d in found}
