"""The logical changes that a slot reports, read as Arrow: there may be a million, and Python handles none by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def read(batches: Iterable[pa.RecordBatch], snapshot: Snapshot, take: Callable[[bytes], None]) -> int | None:
    """Read the logical changes that a slot reports.

    Args:
        batches: Record batches of `Slot.logical_changes`: ends of commit records (positions), transaction numbers, and
            changes as bytes; each column is NULL where a row is of another kind.
        snapshot: The snapshot whose position in the log is wanted.
        take: Called with blocks of changes (see decoding.py).

    Returns:
        The end of the last commit record before which all reported transactions are visible in the snapshot; None where
        all are.
    """
    prefix = Prefix(snapshot)
    for batch in batches:
        ends, numbers, changes = (column.drop_null() for column in batch.columns)
        prefix.add(ends.to_numpy(), numbers.to_numpy())
        if len(changes):
            take(_block(changes))
    return prefix.end


@dataclass(frozen=True)
class Snapshot:
    """Which transactions are visible."""

    upcoming: int
    """Its `xmax`, 64 bits."""
    running: tuple[int, ...]
    """Numbers of transactions below that had not ended, 32 bits."""

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read `xmin:xmax:running`."""
        _, upcoming, running = text.split(":")
        return cls(int(upcoming), tuple(int(number) % 2**32 for number in running.split(",") if number))

    def sees(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which transactions (32 bits, no subtransactions), all of which have committed, are visible."""
        ahead = (numbers - self.upcoming) % 2**32
        return (ahead >= 2**31) & ~np.isin(numbers, self.running)


class Prefix:
    """The first of all transactions, in the order of their commits, up to the first that a snapshot does not see.

    Args:
        snapshot: The snapshot that decides which transactions are visible.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._ended, self._last = snapshot, False, 0

    def add(self, ends: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> None:
        """Take the ends of the next commit records, and the numbers of their transactions."""
        if self._ended:
            return
        hidden = np.flatnonzero(~self._snapshot.sees(numbers))
        self._ended = len(hidden) > 0
        if count := int(hidden[0]) if self._ended else len(ends):
            self._last = int(ends[count - 1])

    @property
    def end(self) -> int | None:
        """The end of the last one; 0 where there is none; None where no transaction follows."""
        return self._last if self._ended else None


def _block(changes: pa.StringArray) -> bytes:
    together = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(changes)], pa.int32()), changes), "\0")
    joined: bytes = together.cast(pa.binary())[0].as_py()
    return b"\0" + joined + b"\0"
