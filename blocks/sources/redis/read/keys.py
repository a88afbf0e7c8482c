"""All keys of a database, in the order of their hash slots, however many they are.

A key's position is its hash slot (as Redis Cluster counts them) and, below that, the CRC of the whole key: keys that
share a slot because they share a `{tag}` are distinguished by it, so that parts stay small there too.
"""

from __future__ import annotations

import itertools
from binascii import crc_hqx
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.read.crc import crcs_of
from blocks.sources.redis.read.grouping import offsets
from blocks.sources.runs import SortedRuns

SLOTS = 16384
END = SLOTS << 16
"""One more than the highest position."""

_POSITION = "position"
_RUN_BYTES = 64 * 1024 * 1024
_FLUSH_KEYS = 100_000


def slot_of(key: bytes) -> int:
    """Return the hash slot of a key: CRC16 (XMODEM) of it, or of what stands in its first braces."""
    opening = key.find(b"{")
    if opening >= 0:
        closing = key.find(b"}", opening + 1)
        if closing > opening + 1:
            key = key[opening + 1 : closing]
    return crc_hqx(key, 0) & (SLOTS - 1)


def position_of(key: bytes) -> int:
    """Return the position of a key."""
    crc = crc_hqx(key, 0)
    return (slot_of(key) << 16 | crc) if b"{" in key else ((crc & (SLOTS - 1)) << 16 | crc)


def positions_of(keys: pa.LargeBinaryArray) -> npt.NDArray[np.uint32]:
    """Return the positions of many keys.

    Args:
        keys: Names of keys, without NULLs; large_binary.
    """
    bounds, data = offsets(keys), np.frombuffer(keys.buffers()[2] or b"", np.uint8)
    crcs = crcs_of(data, bounds[:-1], bounds[1:]).astype(np.uint32)
    positions = crcs | (crcs & np.uint32(SLOTS - 1)) << np.uint32(16)
    # few keys have braces
    braces = bounds[0] + np.flatnonzero(data[bounds[0] : bounds[-1]] == ord("{"))
    for n in np.unique(np.searchsorted(bounds, braces, side="right") - 1).tolist():
        positions[n] = position_of(keys[n].as_py())
    return positions


class KeySpool(SortedRuns):
    """Keys sorted by position in runs, on disk where they are many; those that SCAN gave twice are there twice.

    Args:
        folder: Where runs go that do not fit into memory.
        run_bytes: How much is sorted at once.
    """

    def __init__(self, folder: Path, run_bytes: int = _RUN_BYTES) -> None:
        super().__init__(folder)
        self._run_bytes = run_bytes
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0

    def fill(self, batches: Iterable[list[bytes]]) -> None:
        """Take all keys there are; each may come more than once."""
        keys: list[bytes] = []
        for batch in batches:
            keys += batch
            if len(keys) >= _FLUSH_KEYS:
                self.add(keys)
                keys = []
        self.add(keys)
        self.end()

    def add(self, keys: list[bytes]) -> None:
        """Take some keys; they are found after `end`."""
        if not keys:
            return
        names = pa.array(keys, pa.large_binary())
        batch = pa.record_batch({_POSITION: positions_of(names), "key": names})
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= self._run_bytes:
            self._end_run()

    def end(self) -> None:
        """Say that all keys were added."""
        self._end_run(last=True)

    def between(self, start: int, end: int) -> pa.LargeBinaryArray:
        """Return the keys from one position up to before another, each once, sorted by name.

        Keys that were named alike were often written together, so a server finds them faster one after the other.
        """
        found = [run.column("key").combine_chunks() for run in self.slices(start, end)]
        if not found:
            return pa.array([], pa.large_binary())
        return _sorted(pa.concat_arrays(found))

    def sample(self, count: int) -> pa.LargeBinaryArray:
        """Return about so many keys from all over, each once; all of them where they are fewer."""
        every = max(1, len(self) // count)
        found = [run.column("key").take(pa.array(np.arange(0, len(run), every))) for run in self.slices(0, END)]
        return _sorted(pa.chunked_array(found, pa.large_binary()).combine_chunks())

    def steps(self, keys: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of about so many keys that cover all positions."""
        cuts = [0, *self.cuts(max(1, -(-len(self) // keys))), END]
        return itertools.pairwise(cuts)

    def _end_run(self, *, last: bool = False) -> None:
        if not self._waiting:
            return
        run = pa.Table.from_batches(self._waiting).combine_chunks()
        self._waiting, self._waiting_bytes = [], 0
        positions = run.column(_POSITION).to_numpy()
        self._keep(run.drop_columns(_POSITION), positions, spill=bool(self._runs) or not last)


def _sorted(keys: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """Sort keys, and leave out those that come again."""
    keys = keys.take(pc.sort_indices(keys))
    again = pc.equal(keys.slice(1), keys.slice(0, max(0, len(keys) - 1)))
    if not again.true_count:
        return keys
    return keys.filter(pa.concat_arrays([pa.array([True]), pc.invert(again)]))
