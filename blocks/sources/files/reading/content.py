"""Content of files in memory that can be handed to another process, chunk by chunk, holes left out."""

from __future__ import annotations

import errno
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator

CHUNK_BYTES = 1 << 20
"""Content is read, and kept, in pieces of this size; the last one of a file is shorter."""


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


class Content:
    """The content rows of one part while it is read: values back to back in a file that exists in memory only.

    It is written, not mapped: one piece of memory that stays warm is cheaper than a fault for each page.
    """

    def __init__(self) -> None:
        self.owners, self.offsets, self.ends = array("q"), array("q"), array("q", [0])
        self.file = _memory_file()
        self._piece = memoryview(bytearray(CHUNK_BYTES))

    def forget_after(self, count: int) -> None:
        """Drop all rows after the first `count`: those of an attempt that failed."""
        del self.owners[count:], self.offsets[count:], self.ends[count + 1 :]

    def read(self, fd: int, owner: int, size_bytes: int, numbers: Iterable[int], alive: Callable[[], None]) -> bool:
        """Read chunks, by their numbers, of an open file of a given size.

        Returns:
            False where it ended before its size: it changed.

        Raises:
            OSError: It cannot be read.
        """
        for number in numbers:
            alive()
            offset = number * CHUNK_BYTES
            piece = self._piece[: min(CHUNK_BYTES, size_bytes - offset)]
            done = os.preadv(fd, [piece], offset)
            while done < len(piece):
                more = os.preadv(fd, [piece[done:]], offset + done)
                if more == 0:
                    return False
                done += more
            if not _all_zero(piece):
                self._append(owner, offset, piece)
        return True

    def _append(self, owner: int, offset: int, piece: memoryview) -> None:
        start = self.ends[-1]
        done = os.pwrite(self.file, piece, start)
        while done < len(piece):
            done += os.pwrite(self.file, piece[done:], start + done)
        self.owners.append(owner)
        self.offsets.append(offset)
        self.ends.append(start + done)


def _all_zero(piece: memoryview) -> bool:
    # nearly all content fails the first test, which costs nothing
    if piece[0] or piece[-1] or piece[len(piece) // 2]:
        return False
    return bytes(piece) == bytes(len(piece))


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("lastgood", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(buffering=0) as file:  # where the system has nothing better; it has no name
        return os.dup(file.fileno())
