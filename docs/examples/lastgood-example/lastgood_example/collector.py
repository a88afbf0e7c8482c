"""A collector: a line in a CSV file for each thing that is counted or observed."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping


class CSVCollector:
    """Appends time, name and value to a file.

    It is made and called in a thread of its own, so it may take its time; what it raises is logged.

    Args:
        address: `metrics.address` of the plan: the file.
        tags: `metrics.tags`, which this one does not use.
    """

    def __init__(self, address: str | None, tags: Mapping[str, str]) -> None:
        self._file = open(address or "metrics.csv", "a", newline="", encoding="utf-8")  # noqa: SIM115  closed in `close`
        self._rows = csv.writer(self._file)

    def count(self, name: str) -> None:
        """Write that one is to be counted; the name has the plan's prefix already."""
        self.observe(name, 1)

    def observe(self, name: str, value: float) -> None:
        """Write a value."""
        self._rows.writerow([f"{time.time():.3f}", name, value])

    def flush(self) -> None:
        """See that all is in the file."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
