"""Where a restore of files assembles them before any becomes visible."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import CorruptionDetected
from blocks.sources.files.rows import CHUNK_BYTES
from blocks.sources.files.tree import STAGING_PREFIX, shown

Positions = npt.NDArray[np.int64]

_SYNCED_SINGLY = 64
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """A private folder (mode 0700) of numbered files on the file system of the target.

    Its names owe nothing to the backup, so nothing in a backup can lead out of it. `write` may be called from several
    threads, for the same file too.

    Args:
        inside: An existing folder on the target's file system.
    """

    def __init__(self, inside: bytes) -> None:
        self.path = tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=inside)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._numbers: dict[bytes, int] = {}
        self._lengths: list[int] = []

    @staticmethod
    def name(number: int) -> bytes:
        """Return the name of a staged file."""
        return b"%d" % number

    def number(self, path: bytes) -> int:
        """Return the number under which a path is staged; a new one where it is not yet."""
        with self._lock:
            number = self._numbers.setdefault(path, len(self._lengths))
            if number == len(self._lengths):
                self._lengths.append(-1)
            return number

    def length(self, number: int) -> int:
        """Return how far a staged file was written, in bytes; -1 where no content came."""
        return self._lengths[number]

    def paths(self) -> Iterable[bytes]:
        """Return the paths for which content came."""
        return self._numbers.keys()

    def write(self, rows: pa.RecordBatch, wanted: Positions) -> None:
        """Write content rows straight from Arrow memory; rows of one file that follow each other share an open file.

        Args:
            rows: Rows with `path`, `offset` and `data`.
            wanted: The positions of the content rows among them.

        Raises:
            CorruptionDetected: A row has no content, or too much.
            OSError: The disk is full or fails.
        """
        paths = rows.column("path").take(pa.array(wanted)).to_pylist()
        offsets = rows.column("offset").to_numpy()[wanted].tolist()
        number, current, fd, reach = 0, None, -1, 0
        try:
            for path, offset, content in zip(
                paths, offsets, _contents(rows.column("data"), wanted, paths), strict=True
            ):
                if path != current:
                    if fd >= 0:
                        self._close(fd, number, reach)
                        fd = -1
                    number, current, reach = self.number(path), path, 0
                    fd = os.open(self.name(number), _FLAGS, 0o600, dir_fd=self.fd)
                done = os.pwrite(fd, content, offset)
                while done < len(content):
                    done += os.pwrite(fd, content[done:], offset + done)
                reach = max(reach, offset + done)
        finally:
            if fd >= 0:
                self._close(fd, number, reach)

    def _close(self, fd: int, number: int, reach: int) -> None:
        os.close(fd)
        with self._lock:
            self._lengths[number] = max(self._lengths[number], reach)

    def settle(self, number: int, size_bytes: int) -> None:
        """Give a staged file its exact size; create it where no content came."""
        if self._lengths[number] == size_bytes:
            return
        fd = os.open(self.name(number), _FLAGS, 0o600, dir_fd=self.fd)
        try:
            os.ftruncate(fd, size_bytes)
        finally:
            os.close(fd)

    def sync(self, numbers: list[int]) -> None:
        """Make staged files durable before anything replaces what they stand for.

        Few are synced one by one. For many, one sync of the whole file system lets the disk write in its own order:
        20,000 single syncs would each wait for the journal.
        """
        if len(numbers) > _SYNCED_SINGLY:
            sync_file_system(self.fd)
            return
        for number in numbers:
            fd = os.open(self.name(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def remove(self) -> None:
        """Remove the folder and what is left in it."""
        os.close(self.fd)
        inside = os.path.dirname(self.path)
        before = os.stat(inside)
        mode = stat.S_IMODE(before.st_mode)
        # where this is the restored root itself, it has its mode and time already
        shut = mode & 0o700 != 0o700 and before.st_uid == os.geteuid()
        if shut:
            os.chmod(inside, mode | 0o700)
        shutil.rmtree(self.path)
        if shut:
            os.chmod(inside, mode)
        with contextlib.suppress(PermissionError):
            os.utime(inside, ns=(before.st_atime_ns, before.st_mtime_ns))


def _contents(data: pa.Array, wanted: Positions, paths: list[bytes]) -> Iterator[memoryview]:
    """Yield each wanted value as a view of the Arrow buffer."""
    _, ends, values = data.buffers()
    offsets = np.frombuffer(ends, np.int64, len(data) + 1, data.offset * 8)
    starts, stops = offsets[wanted], offsets[wanted + 1]
    wrong = (stops - starts > CHUNK_BYTES) | data.is_null().to_numpy(zero_copy_only=False)[wanted]
    if wrong.any():
        path = paths[int(np.argmax(wrong))]
        raise CorruptionDetected(f"a piece of the file {shown(path)} has no content, or more than fits a piece")
    memory = memoryview(values if values is not None else b"")
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield memory[start:stop]


def sync_file_system(fd: int) -> None:
    """Write out everything of the file system that a descriptor lies on.

    Raises:
        OSError: The disk reports an error.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # not on this system
        os.sync()
    elif syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
