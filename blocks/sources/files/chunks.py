"""Reading the content of one open file into Arrow memory, chunk by chunk, holes left out."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.sources.files.rows import CHUNK_BYTES

_SPARE_BYTES = 8


def data_chunks(fd: int, first: int, stop: int) -> Iterator[int]:
    """Yield the numbers of the chunks in a range that are not wholly a hole; all where holes cannot be seen."""
    chunk = first
    while chunk < stop:
        try:
            data = os.lseek(fd, chunk * CHUNK_BYTES, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # only a hole from here on
                return
            data, hole = chunk * CHUNK_BYTES, stop * CHUNK_BYTES
        chunk = data // CHUNK_BYTES
        end = min(stop, -(-hole // CHUNK_BYTES))
        yield from range(chunk, end)
        chunk = max(end, chunk + 1)


class Chunks:
    """The content rows of one part while it is read: values back to back in one growing Arrow buffer.

    Args:
        capacity_bytes: How much content is expected.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._owners, self._offsets, self._ends = array("q"), array("q"), array("q", [0])
        self._allocate(max(capacity_bytes, 1))

    def _allocate(self, size_bytes: int) -> None:
        # the digest reads short values in whole words and would copy where the last one ends with the buffer
        self._buffer = pa.allocate_buffer(size_bytes + _SPARE_BYTES)
        self._memory = memoryview(self._buffer)

    def __len__(self) -> int:
        return len(self._owners)

    def forget_after(self, count: int) -> None:
        """Drop all rows after the first `count`: those of an attempt that failed."""
        del self._owners[count:], self._offsets[count:], self._ends[count + 1 :]

    def read(self, fd: int, owner: int, size_bytes: int, first: int, stop: int) -> bool:
        """Read some chunks of an open file.

        Args:
            fd: The file.
            owner: Position of its entry, remembered for `rows`.
            size_bytes: Its size.
            first: First chunk to read.
            stop: The chunk to stop before.

        Returns:
            False where the file ended before its size: it changed.

        Raises:
            OSError: The file cannot be read.
        """
        numbers = range(first, stop) if size_bytes <= CHUNK_BYTES else data_chunks(fd, first, stop)
        for number in numbers:
            offset = number * CHUNK_BYTES
            length = min(CHUNK_BYTES, size_bytes - offset)
            start = self._ends[-1]
            end = start + length
            if end > len(self._memory):
                self._grow(end)
            done = os.preadv(fd, [self._memory[start:end]], offset)
            while done < length:
                more = os.preadv(fd, [self._memory[start + done : end]], offset + done)
                if more == 0:
                    return False
                done += more
            if not self._all_zero(start, end):
                self._owners.append(owner)
                self._offsets.append(offset)
                self._ends.append(end)
        return True

    def _grow(self, needed_bytes: int) -> None:
        old, used = self._memory, self._ends[-1]
        self._allocate(max(needed_bytes, len(old) * 3 // 2))
        self._memory[:used] = old[:used]

    def _all_zero(self, start: int, end: int) -> bool:
        memory = self._memory
        # nearly all content fails the first test, which costs nothing
        if memory[start] or memory[end - 1] or memory[(start + end) // 2]:
            return False
        return not np.frombuffer(memory[start:end], np.uint8).any()

    def rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], pa.LargeBinaryArray]:
        """Return owners, offsets and contents of what was read, without copying the contents."""
        ends = pa.py_buffer(np.frombuffer(self._ends, np.int64).copy())
        data = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), [None, ends, self._buffer])
        return (
            np.frombuffer(self._owners, np.int64).copy(),
            np.frombuffer(self._offsets, np.int64).copy(),
            data,
        )
