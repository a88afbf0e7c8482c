"""Where a restore of files assembles them before any becomes visible."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import CorruptionDetected
from blocks.host.leftovers import owned_name
from blocks.sources.files.leavings import JOURNAL, Moved, unchanged_times
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.reading.ladder import FOLDER_FLAGS
from blocks.sources.files.reading.xattrs import DEFAULT_LIST, SUPPORTED
from blocks.sources.files.tree import REPLACED_PREFIX, STAGING_PREFIX, shown

Positions = npt.NDArray[np.int64]

_SYNCED_SINGLY = 64
_LINK = b"link"
_NAMES = b"names"
"""Folder in which names are tried."""
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Staging:
    """A private folder (mode 0700) of numbered files on the file system of the target.

    Its names owe nothing to the backup, so nothing in a backup can lead out of it. `write` may be called from several
    threads, for the same file too. From the first visible change on its numbers may be what the staged files replaced:
    then it has another name, which nobody takes for something to be deleted.

    Args:
        inside: An existing folder on the target's file system.
        plan: Name of the plan.
    """

    def __init__(self, inside: bytes, plan: str) -> None:
        self._name = os.fsencode(owned_name(os.fsdecode(STAGING_PREFIX), plan))
        self.path = os.path.join(inside, self._name)
        with unchanged_times(inside):
            os.mkdir(self.path, 0o700)
            if SUPPORTED:
                with contextlib.suppress(OSError):  # it has none, as hardly any folder has
                    os.removexattr(self.path, DEFAULT_LIST)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.exposed = False
        """Whether the numbers may be replaced files."""
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
            rows: Content rows with `path` (large_binary), `offset` (int64) and `data` (large_binary).
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

    def link(self, number: int, further: int) -> None:
        """Make a number another name of a staged file, in place of what was staged under it.

        Raises:
            OSError: The file system refused; what was staged is as it was.
        """
        os.link(self.name(number), _LINK, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        os.rename(_LINK, self.name(further), src_dir_fd=self.fd, dst_dir_fd=self.fd)

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

    def inode(self, number: int) -> int:
        """Return the inode of a staged entry; -1 where there is none."""
        try:
            return os.lstat(self.name(number), dir_fd=self.fd).st_ino
        except FileNotFoundError:
            return -1

    def refuses_name(self, name: bytes) -> OSError | None:
        """Try a name, in a folder in here; return why the file system does not take it."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(_NAMES, 0o700, dir_fd=self.fd)
        fd = os.open(_NAMES, FOLDER_FLAGS, dir_fd=self.fd)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
            os.rmdir(name, dir_fd=fd)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return exc
        finally:
            os.close(fd)
        return None

    def write_journal(self, moved: Iterable[Moved]) -> None:
        """Write down, durably, what the numbers are."""
        fd = os.open(JOURNAL, _FLAGS, 0o600, dir_fd=self.fd)
        with open(fd, "w", encoding="utf-8") as file:
            file.writelines(one.line() for one in moved)
            file.flush()
            os.fsync(fd)

    def expose(self) -> None:
        """Take the name of a folder of replaced files: from now on nothing in it is deleted unseen."""
        inside = os.path.dirname(self.path)
        path = os.path.join(inside, REPLACED_PREFIX + self._name.removeprefix(STAGING_PREFIX))
        self.exposed = True
        with unchanged_times(inside):
            os.rename(self.path, path)
        self.path = path

    def close(self) -> None:
        """Let go of the folder; may be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove the folder and what is left in it."""
        self.close()
        # where this lies in the restored root itself, that has its mode and time already
        with unchanged_times(os.path.dirname(self.path)):
            shutil.rmtree(self.path)


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
