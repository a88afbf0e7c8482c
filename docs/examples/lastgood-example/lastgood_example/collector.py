"""A collector: a line in a CSV file for each thing that is counted or observed."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping


class CSVCollector:
    """Appends time, name and value to a file. Lines of several processes are never mixed.

    Args:
        prefix: Stands before each name.
        address: The file.
        tags: Not used.
    """

    def __init__(self, prefix: str, address: str | None, tags: Mapping[str, str]) -> None:
        self._prefix, self._path = f"{prefix}." if prefix else "", address or "metrics.csv"

    def record_counter(self, name: str) -> None:
        """Count one."""
        self._append(name, 1)

    def record_histogram(self, name: str, value: float) -> None:
        """Observe a value."""
        self._append(name, value)

    def _append(self, name: str, value: float) -> None:
        line = io.StringIO()
        csv.writer(line).writerow([f"{time.time():.3f}", f"{self._prefix}{name}", value])
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.getvalue().encode())
        finally:
            os.close(file)
