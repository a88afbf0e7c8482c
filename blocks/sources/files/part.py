"""Reading one part of a tree of files."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from blocks.errors import SourceChanged, SourceUnavailable
from blocks.sources.base import Known, Reading
from blocks.sources.files.chunks import Chunks
from blocks.sources.files.rows import CHUNK_BYTES, FILE, LINK, UNKNOWN, Range, entry_rows, kinds_of, part_rows
from blocks.sources.files.tree import STATS, Ladder, leaf, parent, shown, stat_row

if TYPE_CHECKING:
    from blocks.sources.files.view import FilesView

Signature = tuple[int, int, int, int]
"""Size, mtime, ctime (both in nanoseconds) and inode: what changes when a file's content does."""

_SIZE, _CTIME = STATS.index("size"), STATS.index("ctime_ns")
_SIGNATURE = [STATS.index(name) for name in ("size", "mtime_ns", "ctime_ns", "inode")]

# Non-blocking, so that a FIFO swapped in cannot hang the reader
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NO_ATIME = getattr(os, "O_NOATIME", 0)

# Kernels stamp files with a clock that stands still for up to 10 ms; some file systems keep whole seconds (FAT: two)
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_100_000_000


def signature(status: os.stat_result) -> Signature:
    """Take the signature from a stat."""
    row = stat_row(status)
    return (row[1], row[2], row[3], row[4])


def open_file(folder: int, name: bytes) -> int:
    """Open a file for reading, never through a symbolic link, leaving its access time alone where permitted."""
    try:
        return os.open(name, _OPEN_FLAGS | _NO_ATIME, dir_fd=folder)
    except PermissionError:
        if not _NO_ATIME:
            raise
        return os.open(name, _OPEN_FLAGS, dir_fd=folder)


def unsettled_ns(ctime_ns: int, now_ns: int) -> int:
    """Return how long to wait until any later change of a file is sure to leave another ctime; 0 if it is now.

    A ctime in the future (a server's clock) tells nothing: 0 too, but see `trusted`.
    """
    tick = _tick_ns(ctime_ns)
    age = now_ns - ctime_ns
    return tick - age if -tick < age < tick else 0


def trusted(ctime_ns: int, now_ns: int) -> bool:
    """Tell whether a ctime is in the past, so that an equal one later proves an unchanged file."""
    return now_ns - ctime_ns >= _tick_ns(ctime_ns)


def _tick_ns(ctime_ns: int) -> int:
    return _COARSE_TICK_NS if ctime_ns % 1_000_000_000 == 0 else _TICK_NS


class _Changed(Exception):
    """The file changed while it was read, or is another kind of entry by now."""


class PartReader:
    """Reads one part once.

    Args:
        view: The view it belongs to.
        span: The part's range of rows.
        known: What the base holds of it, if that may be relied on.
    """

    def __init__(self, view: FilesView, span: Range, known: Known | None) -> None:
        self._view, self._span, self._known = view, span, known
        here = span.locate(view.listing.paths)
        self._paths = view.listing.paths[here]
        self._stats = view.listing.stats[here].copy()
        self._kinds = kinds_of(self._stats)
        self._firsts = np.zeros(len(self._paths), np.int64)
        if self._paths:
            self._firsts[0] = span.first_chunk(self._paths[0])
        # a file that goes on here has a row of its own only if it reaches here
        reaches = (self._kinds == FILE) & (self._stats[:, _SIZE] > self._firsts * CHUNK_BYTES)
        self._emitted = (self._firsts == 0) | reaches
        self._targets: dict[int, bytes] = {}
        self._from_base: list[bytes] = []
        self._warnings: list[str] = []

    def read(self) -> Reading:
        """Read the part; see `FilesView.read`."""
        self._leave_unchanged()
        todo = np.flatnonzero((self._kinds == FILE) & ~self._unchanged).tolist()
        self._chunks = Chunks(self._expected_bytes(todo))
        with Ladder(self._view.root) as ladder:
            for i in todo:
                self._read_file(ladder, i)
            for i in np.flatnonzero((self._kinds == LINK) & self._emitted).tolist():
                self._read_link(ladder, i)
        return Reading(self._rows(), self._base_keys(), warnings=tuple(self._warnings))

    def _leave_unchanged(self) -> None:
        """Find the files that the base holds as they are: their content need not be read."""
        self._unchanged = np.zeros(len(self._paths), bool)
        if self._known is None:
            return
        asked = np.flatnonzero((self._kinds == FILE) & self._emitted)
        rows = entry_rows([self._paths[i] for i in asked], self._firsts[asked], self._kinds[asked], self._stats[asked])
        if not len(asked):
            return
        same = asked[np.asarray(self._known.same(rows).to_numpy(zero_copy_only=False), dtype=bool)]
        self._unchanged[same] = True
        self._emitted[same] = False
        self._from_base = [self._paths[i] for i in same]
        for i in same.tolist():
            if self._span.splits(self._paths[i]):
                size, mtime, ctime, inode = self._stats[i, _SIGNATURE].tolist()
                self._view.agree(self._paths[i], (size, mtime, ctime, inode))

    def _expected_bytes(self, todo: list[int]) -> int:
        # a sparse file's size says little: beyond a part's size the buffer grows as needed
        total = int(self._stats[todo, _SIZE].sum()) if todo else 0
        return min(total, self._view.options.part_size_bytes + CHUNK_BYTES)

    def _read_file(self, ladder: Ladder, i: int) -> None:
        try:
            seen = self._attempts(ladder, i)
        except _Changed:
            self._leave_out(i)
            return
        if seen is None:
            self._gone(i)
        if self._span.splits(self._paths[i]):
            self._view.agree(self._paths[i], seen)

    def _attempts(self, ladder: Ladder, i: int) -> Signature | None:
        before, last = len(self._chunks), self._view.options.read_attempts - 1
        for attempt in range(last):
            try:
                return self._attempt(ladder, i)
            except _Changed:
                self._chunks.forget_after(before)
                self._view.watch.back_off(attempt)
        try:
            return self._attempt(ladder, i)
        except _Changed:
            self._chunks.forget_after(before)
            raise

    def _attempt(self, ladder: Ladder, i: int) -> Signature | None:
        """Read one file once; None where it is not there any more."""
        path, started_ns = self._paths[i], self._view.watch.now_ns()
        try:
            fd = open_file(ladder.folder(parent(path)), leaf(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENXIO):  # a symbolic link, or a FIFO or socket, took its place
                raise _Changed from exc
            raise _unreadable(path, exc) from exc
        try:
            return self._content(fd, i, started_ns)
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        finally:
            os.close(fd)

    def _content(self, fd: int, i: int, started_ns: int) -> Signature:
        watch, path = self._view.watch, self._paths[i]
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _Changed
        if wait_ns := unsettled_ns(status.st_ctime_ns, started_ns):
            watch.wait(wait_ns / 1e9)
            started_ns, status = watch.now_ns(), os.fstat(fd)
            if unsettled_ns(status.st_ctime_ns, started_ns):
                raise _Changed
        watch.reading(path)
        first, stop = int(self._firsts[i]), -(-status.st_size // CHUNK_BYTES)
        beyond = self._span.stop_chunk(path)
        stop = stop if beyond is None else min(stop, beyond)
        whole = self._chunks.read(fd, i, status.st_size, first, stop)
        row = stat_row(os.fstat(fd))
        if not whole or row != stat_row(status):
            raise _Changed
        self._stats[i] = row
        if not trusted(status.st_ctime_ns, started_ns):
            self._stats[i, _CTIME] = UNKNOWN
        self._emitted[i] = first == 0 or status.st_size > first * CHUNK_BYTES
        return (row[1], row[2], row[3], row[4])

    def _read_link(self, ladder: Ladder, i: int) -> None:
        path = self._paths[i]
        try:
            self._targets[i] = os.readlink(leaf(path), dir_fd=ladder.folder(parent(path)))
        except (FileNotFoundError, NotADirectoryError):
            self._gone(i)
        except OSError as exc:
            if exc.errno != errno.EINVAL:  # it is no symbolic link any more
                raise _unreadable(path, exc) from exc
            self._leave_out(i)

    def _gone(self, i: int) -> None:
        self._emitted[i] = False
        self._warnings.append(f"{shown(self._paths[i])} vanished while the backup was made and is taken as deleted")

    def _leave_out(self, i: int) -> None:
        """Give up an entry: an error, or a recorded skip, as the source says."""
        path, attempts = self._paths[i], self._view.options.read_attempts
        if self._view.options.on_change == "error":
            raise SourceChanged(
                f"{shown(path)} changed each of the {attempts} times it was read",
                hint="Run again when it is at rest, copy it aside first, raise `read_attempts`, leave it out with "
                "`exclude`, or say `on_change: skip`.",
            )
        if self._span.splits(path):
            raise split_changed(path)
        self._emitted[i] = False
        if self._known is not None and len(self._known.under(pa.array([path], pa.large_binary()))):
            self._from_base.append(path)
            self._warnings.append(f"{shown(path)} kept changing; the backup keeps the version of its base")
        else:
            self._warnings.append(f"{shown(path)} kept changing and is not in this backup")

    def _base_keys(self) -> pa.LargeBinaryArray | None:
        if self._known is None or not self._from_base:
            return None
        return self._known.under(pa.array(self._from_base, pa.large_binary()))

    def _rows(self) -> pa.Table:
        here = np.flatnonzero(self._emitted)
        entries = entry_rows(
            [self._paths[i] for i in here],
            self._firsts[here],
            self._kinds[here],
            self._stats[here],
            [self._targets.get(i) for i in here.tolist()] if self._targets else None,
        )
        owners, offsets, data = self._chunks.rows()
        paths = pa.array([self._paths[i] for i in owners.tolist()], pa.large_binary())
        return part_rows(entries, paths, (here, owners), offsets, data)


def split_changed(path: bytes) -> SourceChanged:
    """Make the error for a file that is read in several parts and was not the same for all of them."""
    return SourceChanged(
        f"the file {shown(path)} changed while its parts were read",
        hint="It is so large that it is read in several parts; as some may be stored already, it cannot be "
        "skipped. Run again when it is at rest, copy it aside first, or leave it out with `exclude`.",
    )


def _unreadable(path: bytes, error: OSError) -> SourceUnavailable:
    return SourceUnavailable(
        f"{shown(path)} cannot be read: {error.strerror or error}",
        hint="Give the user who runs the backup access, or leave it out with `exclude`.",
    )
