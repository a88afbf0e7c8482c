"""The program that reads files: it answers until who asks is gone."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable, Sequence

from .channel import CHANGED, FAILED, GONE, READ, Asked, AskingWatch, Channel, Outcome, Watch
from .content import CHUNK_BYTES, Content, data_chunks
from .ladder import FolderHandles
from .stats import granted_mode, leaf, parent, stat_row, trusted, unsettled_ns
from .xattrs import look_at

# non-blocking, so that a FIFO swapped in cannot hang the reader
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NO_ATIME = getattr(os, "O_NOATIME", 0)
_PARENT_LOOKED_AFTER_MS = 5000


class FileReader:
    """Reads files of one tree.

    Args:
        root: Descriptor of its root.
        watch: Gives the time and waits.
        alive: Called before each file and chunk: ends the process where nobody waits for it any more.
    """

    def __init__(self, root: int, watch: Watch, alive: Callable[[], None]) -> None:
        self._handles, self._watch, self._alive = FolderHandles(root), watch, alive

    def read(self, files: Sequence[Asked], attempts: int, content: Content, until: Sequence[int]) -> list[Outcome]:
        """Read files one after another, each until it stayed the same; stop behind an outcome that is in `until`."""
        outcomes: list[Outcome] = []
        for asked in files:
            outcomes.append(self._attempts(asked, len(outcomes), attempts, content))
            if outcomes[-1][0] in until:
                break
            self._alive()
        return outcomes

    def _attempts(self, asked: Asked, owner: int, attempts: int, content: Content) -> Outcome:
        before = len(content.owners)
        for attempt in range(attempts):
            if attempt:
                self._watch.back_off(attempt - 1)
            outcome = self._attempt(asked, owner, content)
            if outcome[0] != READ:
                content.forget_after(before)
            if outcome[0] != CHANGED:
                break
        return outcome

    def _attempt(self, asked: Asked, owner: int, content: Content) -> Outcome:
        started_ns = self._watch.now_ns()
        try:
            fd = self.open(asked[0])
        except (FileNotFoundError, NotADirectoryError):
            return (GONE, 0, (), False, None)
        except OSError as exc:
            # a symbolic link, or a FIFO or socket, took its place
            return (CHANGED if exc.errno in (errno.ELOOP, errno.ENXIO) else FAILED, exc.errno or 0, (), False, None)
        try:
            return self._content(fd, asked, owner, content, started_ns)
        except OSError as exc:
            return (FAILED, exc.errno or 0, (), False, None)
        finally:
            os.close(fd)

    def open(self, path: bytes) -> int:
        """Open a file, never through a symbolic link, leaving its access time alone where permitted."""
        folder = self._handles.folder(parent(path))
        try:
            return os.open(leaf(path), _OPEN_FLAGS | _NO_ATIME, dir_fd=folder)
        except PermissionError:
            if not _NO_ATIME:
                raise
            return os.open(leaf(path), _OPEN_FLAGS, dir_fd=folder)

    def _content(self, fd: int, asked: Asked, owner: int, content: Content, started_ns: int) -> Outcome:
        watch, (path, first, beyond) = self._watch, asked
        status, changed = os.fstat(fd), (CHANGED, 0, (), False, None)
        if not stat.S_ISREG(status.st_mode):
            return changed
        if wait_ns := unsettled_ns(status.st_ctime_ns, started_ns):
            watch.wait(wait_ns / 1e9)
            started_ns, status = watch.now_ns(), os.fstat(fd)
            if unsettled_ns(status.st_ctime_ns, started_ns):
                return changed
        watch.reading(path)
        stop = -(-status.st_size // CHUNK_BYTES)
        stop = stop if beyond < 0 else min(stop, beyond)
        numbers = range(first, stop) if status.st_size <= CHUNK_BYTES else data_chunks(fd, first, stop)
        whole = content.read(fd, owner, status.st_size, numbers, self._alive)
        attributes = look_at(fd)
        row = stat_row(os.fstat(fd))
        if not whole or row != stat_row(status):
            return changed
        if attributes.access_list is not None:
            row = (granted_mode(row[0], attributes.access_list), *row[1:])
        return (READ, 0, row, trusted(status.st_ctime_ns, started_ns), attributes.kept)

    def chunks(self, path: bytes, first: int, stop: int) -> list[int]:
        """Number the chunks of a file that hold data; all where it cannot be opened, which reading will explain."""
        try:
            fd = self.open(path)
        except OSError:
            return list(range(first, stop))
        try:
            return list(data_chunks(fd, first, stop))
        finally:
            os.close(fd)

    def head(self, path: bytes, count: int) -> bytes:
        """Return the first bytes of a file; none where it cannot be read or is none."""
        try:
            fd = self.open(path)
        except OSError:
            return b""
        try:
            return os.read(fd, count) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        except OSError:
            return b""
        finally:
            os.close(fd)


def main() -> None:
    """Serve on the socket that the first argument numbers, for the root and the parent process that the others do."""
    end, root, parent_id = (int(argument) for argument in sys.argv[-3:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides when it is over, and closes its end

    def alive() -> None:
        if os.getppid() != parent_id:
            os._exit(0)

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Channel(socket.socket(fileno=end)), root, alive)


def _serve(channel: Channel, root: int, alive: Callable[[], None]) -> None:
    """Answer one question after another until the other end is gone."""
    channel.send("ready")
    plain = FileReader(root, Watch(), alive)
    waiting = select.poll()
    waiting.register(channel.socket, select.POLLIN)
    while True:
        while not waiting.poll(_PARENT_LOOKED_AFTER_MS):  # a process forked from the parent may keep its end open
            alive()
        (kind, arguments), _ = channel.receive()
        if kind != "read":
            channel.send(getattr(plain, kind)(*arguments))
            continue
        files, attempts, until, watched = arguments
        content = Content()
        reader = FileReader(root, AskingWatch(channel), alive) if watched else plain
        outcomes = reader.read(files, attempts, content, until)
        rows = (content.owners.tobytes(), content.offsets.tobytes(), content.ends.tobytes())
        channel.send(("done", outcomes, rows), content.file)
        os.close(content.file)
