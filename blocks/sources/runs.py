"""Rows sorted by a position (of a key, of a part) in runs, on disk where they are many."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.host.leftovers import kept_temporarily, make_scratch_folder


class Allowance:
    """How much may be kept in memory, by all who share it.

    Args:
        size_bytes: The allowance in bytes.
    """

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes, self._lock = size_bytes, Lock()

    def take(self, size_bytes: int) -> bool:
        """Take some of it; False where that is not left."""
        with self._lock:
            fits = size_bytes <= self._left_bytes
            self._left_bytes -= size_bytes if fits else 0
            return fits

    def give_back(self, size_bytes: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._left_bytes += size_bytes


class RunFolder:
    """A scratch folder, which is made when the first run goes there.

    Args:
        kind: What it is for, as a word; part of its name.
    """

    def __init__(self, kind: str) -> None:
        self._kind, self._lock = kind, Lock()
        self._made: Path | None = None

    def __fspath__(self) -> str:
        """Return its path."""
        with self._lock:
            if self._made is None:
                self._made = make_scratch_folder(self._kind)
            return str(self._made)

    def __str__(self) -> str:
        """Name it in errors."""
        return "the folder for temporary files" if self._made is None else str(self._made)

    def close(self) -> None:
        """Remove it with all that is in it; what cannot be removed is left to the next run."""
        if self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)


class SortedRuns:
    """Runs of a table. Filled by one thread, then read by several.

    Args:
        folder: Where runs go that do not fit into memory.
    """

    def __init__(self, folder: Path | RunFolder) -> None:
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

    def slices(self, start: int, end: int) -> list[pa.Table]:
        """Return the rows from one position up to before another, as they are in each run; none of other runs."""
        return [_table(run).slice(first, last - first) for run, first, last in self._ranges(start, end) if last > first]

    def _ranges(self, start: int, end: int) -> Iterator[tuple[pa.Table | Path, int, int]]:
        for run, positions in zip(self._runs, self._positions, strict=True):
            # of the same type: else all positions would be converted, once for each part
            first, last = np.searchsorted(positions, np.array([start, end], positions.dtype))
            yield run, int(first), int(last)

    def _keep(self, rows: pa.Table, positions: npt.NDArray[np.uint32], *, spill: bool) -> None:
        """Sort rows and keep them as a run; rows that are sorted are not copied."""
        if len(positions) and (positions[1:] < positions[:-1]).any():
            order = np.argsort(positions, kind="stable")
            rows, positions = rows.take(pa.array(order)), positions[order]
        self._runs.append(self._spilled(rows) if spill else rows)
        self._positions.append(positions)

    def _spilled(self, run: pa.Table) -> Path:
        with (
            kept_temporarily("what was read", self._folder),
            tempfile.NamedTemporaryFile(dir=self._folder, prefix="run-", delete=False) as file,
            pa.ipc.new_file(file, run.schema) as writer,
        ):
            writer.write_table(run)
        return Path(file.name)


_FILE_BYTES = 32 * 1024 * 1024
"""What goes into one file: what is read later is read from all of them."""


class Spool(SortedRuns):
    """Rows that come in any order. Filled by one thread at a time, then read by several.

    Args:
        folder: Where runs go that do not fit into memory.
        room: How many bytes may stay in memory.
    """

    def __init__(self, folder: Path | RunFolder, room: Allowance) -> None:
        super().__init__(folder)
        self._room = room
        self._waiting: list[tuple[pa.Table, npt.NDArray[np.uint32]]] = []
        self._waiting_bytes = 0
        self._room_bytes = 0

    def put(self, rows: pa.Table, positions: npt.NDArray[np.uint32]) -> None:
        """Take rows; they are found after `end`."""
        if self._room.take(rows.nbytes):
            self._room_bytes += rows.nbytes
            self._keep(rows, positions, spill=False)
            return
        if rows.nbytes >= _FILE_BYTES:  # a run of its own, so that it need not be put together with others
            self._keep(rows, positions, spill=True)
            return
        self._waiting.append((rows, positions))
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= _FILE_BYTES:
            self.end()

    def end(self) -> None:
        """Say that all rows were put."""
        if self._waiting:
            tables, positions = zip(*self._waiting, strict=True)
            self._waiting, self._waiting_bytes = [], 0
            self._keep(self._joined(tables).combine_chunks(), np.concatenate(positions), spill=True)

    def discard(self) -> None:
        """Give back the room that it took, and remove its files; what was read of it stays readable."""
        self._room.give_back(self._room_bytes)
        self._room_bytes = 0
        for run in self._runs:
            if isinstance(run, Path):
                run.unlink(missing_ok=True)
        self._runs, self._positions = [], []

    def _joined(self, tables: Sequence[pa.Table]) -> pa.Table:
        return pa.concat_tables(tables)


def _table(run: pa.Table | Path) -> pa.Table:
    # mapped again each time, so that what was read of it does not stay in memory
    return pa.ipc.open_file(pa.memory_map(str(run))).read_all() if isinstance(run, Path) else run
