"""Tables sorted by the positions of keys, in runs, on disk where they are large."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import SourceUnavailable


class Allowance:
    """How much may be kept in memory, by all who share it.

    Args:
        size_bytes: How much that is.
    """

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes, self._lock = size_bytes, Lock()

    def take(self, size_bytes: int) -> bool:
        """Take some of it; False where that is not left."""
        with self._lock:
            fits = size_bytes <= self._left_bytes
            self._left_bytes -= size_bytes if fits else 0
            return fits


class SortedRuns:
    """Runs of a table. Filled by one thread, then read by several.

    Args:
        folder: Where runs go that do not fit into memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: list[pa.Table | Path] = []
        self._positions: list[npt.NDArray[np.uint32]] = []

    def __len__(self) -> int:
        return sum(len(positions) for positions in self._positions)

    def cuts(self, parts: int) -> list[int]:
        """Return positions that cut the rows into about equal parts: one fewer than parts, or less."""
        if not len(self):
            return []
        everywhere = np.sort(np.concatenate(self._positions))
        wanted = [everywhere[len(everywhere) * n // parts] for n in range(1, parts)]
        return [int(cut) for cut in dict.fromkeys(wanted) if cut > everywhere[0]]

    def count(self, start: int, end: int) -> int:
        """Count the rows from one position up to before another."""
        return sum(last - first for _, first, last in self._ranges(start, end))

    def most_together(self, start: int, end: int) -> int:
        """Count the rows that share a position with most others: no cut can be between them."""
        ranges = zip(self._positions, self._ranges(start, end), strict=True)
        there = np.concatenate([positions[first:last] for positions, (_, first, last) in ranges])
        return int(np.unique(there, return_counts=True)[1].max(initial=0))

    def _slices(self, start: int, end: int) -> list[pa.Table]:
        return [_table(run).slice(first, last - first) for run, first, last in self._ranges(start, end) if last > first]

    def _ranges(self, start: int, end: int) -> Iterator[tuple[pa.Table | Path, int, int]]:
        for run, positions in zip(self._runs, self._positions, strict=True):
            first, last = np.searchsorted(positions, [start, end])
            yield run, int(first), int(last)

    def _keep(self, rows: pa.Table, positions: npt.NDArray[np.uint32], *, spill: bool) -> None:
        """Sort rows and keep them as a run."""
        order = np.argsort(positions, kind="stable")
        run = rows.take(pa.array(order))
        self._runs.append(self._spilled(run) if spill else run)
        self._positions.append(positions[order])

    def _spilled(self, run: pa.Table) -> Path:
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="run-", delete=False) as file:
                with pa.ipc.new_file(file, run.schema) as writer:
                    writer.write_table(run)
                return Path(file.name)
        except OSError as exc:
            raise SourceUnavailable(
                f"what was read of keys cannot be kept in {self._folder}: {exc}",
                hint="Is there room? TMPDIR names the folder.",
            ) from exc


def _table(run: pa.Table | Path) -> pa.Table:
    # mapped anew each time, so that what was read of it does not stay in memory
    return pa.ipc.open_file(pa.memory_map(str(run))).read_all() if isinstance(run, Path) else run
