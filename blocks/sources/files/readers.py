"""The processes that read the files of a tree (see `reading`), as their owner sees them."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import SourceUnavailable
from blocks.sources.files import reading
from blocks.sources.files.reading.channel import Asked, Channel, Outcome, Watch

_STARTED_WITHIN_SECONDS = 60.0
_ENDED_WITHIN_SECONDS = 5.0
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from reading.child import main; main()"

Numbers = npt.NDArray[np.int64]

SPARE_BYTES = 8
"""Behind all content: who digests it reads short values in whole words, the last one, too."""


@dataclass(frozen=True)
class Contents:
    """What was read of some files.

    Attributes:
        outcomes: What came of each, up to the one that reading stopped at.
        owners: For each piece of content the position of its file.
        offsets: Where in the file it lies.
        data: The pieces of content that were read, one value per row; large_binary.
    """

    outcomes: Sequence[Outcome]
    owners: Numbers
    offsets: Numbers
    data: pa.LargeBinaryArray


class ContentReaders(Protocol):
    """What reads the content of entries for a view."""

    def read(self, files: Sequence[Asked], attempts: int, until: Sequence[int]) -> Contents:
        """Read files, each until it stayed the same, in at most so many attempts; see `Readers`."""
        ...

    def chunks(self, path: bytes, first: int, stop: int) -> list[int]:
        """Number the chunks of a file that hold data."""
        ...

    def close(self) -> None:
        """End what is being read; may be called twice."""
        ...


class Readers:
    """Processes that read files beneath one root, started as they are needed: one for each thread that asks.

    Args:
        root: Descriptor of the root, open for as long.
        watch: Gives the time and waits.
    """

    def __init__(self, root: int, watch: Watch) -> None:
        self._root, self._watch = root, watch
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._all: list[_Process] = []
        self._closed = False

    def read(self, files: Sequence[Asked], attempts: int, until: Sequence[int]) -> Contents:
        """Read files, each until it stayed the same, in at most so many attempts.

        Args:
            files: The files to read, each with its path and what is known of it.
            attempts: How often a file is read that changes meanwhile.
            until: Outcomes behind which to stop.

        Raises:
            SourceUnavailable: The process that reads could not be started, or died.
        """
        watched = type(self._watch) is not Watch
        with self._borrowed() as process:
            arguments = (list(files), attempts, tuple(until), watched)
            (_, outcomes, rows), file = process.ask("read", arguments, self._watch)
            assert file is not None
            return _contents(outcomes, rows, file)

    def chunks(self, path: bytes, first: int, stop: int) -> list[int]:
        """Number the chunks of a file that hold data; all where it cannot be opened."""
        with self._borrowed() as process:
            return list(process.ask("chunks", (path, first, stop), self._watch)[0])

    def head(self, path: bytes, count: int) -> bytes:
        """Return the first bytes of a file; none where it cannot be read."""
        with self._borrowed() as process:
            return bytes(process.ask("head", (path, count), self._watch)[0])

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[_Process]:
        with self._lock:
            if self._closed:
                raise SourceUnavailable("files are not read any more", hint="The backup was given up.")
            process = self._idle.pop() if self._idle else None
        process = process or self._started()
        try:
            yield process
        except BaseException:
            process.end()
            raise
        with self._lock:
            self._idle.append(process)

    def _started(self) -> _Process:
        process = _Process(self._root)
        with self._lock:
            self._all.append(process)
            closed = self._closed
        if closed:
            process.end()
        return process

    def close(self) -> None:
        """End all of them, also what they are reading; may be called twice."""
        with self._lock:
            self._closed = True
            processes, self._all, self._idle = self._all, [], []
        for process in processes:
            process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    def __init__(self, root: int) -> None:
        ours, theirs = socket.socketpair()
        folder = str(Path(reading.__file__).absolute().parent.parent)
        program = [_interpreter(), "-I", "-S", "-c", _PROGRAM, folder]
        try:
            with theirs:
                self._process = _start([*program, str(theirs.fileno()), str(root), str(os.getpid())], theirs, root)
        except OSError as exc:
            ours.close()
            raise _not_started(str(exc.strerror or exc)) from exc
        self._channel = Channel(ours)
        self._greet()

    def _greet(self) -> None:
        self._channel.socket.settimeout(_STARTED_WITHIN_SECONDS)
        try:
            greeting, _ = self._channel.receive()
        except (EOFError, OSError) as exc:
            self.end()
            raise _not_started("it did not answer") from exc
        assert greeting == "ready"
        self._channel.socket.settimeout(None)

    def ask(self, kind: str, arguments: tuple[object, ...], watch: Watch) -> tuple[Any, int | None]:
        """Ask something and wait for the answer; meanwhile it may use our watch."""
        try:
            self._channel.send((kind, arguments))
            while True:
                answer, file = self._channel.receive()
                if not (isinstance(answer, tuple) and answer[0] == "watch"):
                    return answer, file
                self._channel.send(getattr(watch, answer[1])(*answer[2]))
        except (EOFError, OSError) as exc:
            raise SourceUnavailable(
                "the process that reads files ended while it read",
                hint="Look whether the system's log names it, for want of memory perhaps, and run again.",
            ) from exc

    def end(self) -> None:
        """Kill it; it holds nothing that could be lost."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a disk that hangs; it ends when that answers
            self._process.wait(_ENDED_WITHIN_SECONDS)
        self._channel.socket.close()


def _start(command: list[str], theirs: socket.socket, root: int) -> subprocess.Popen[bytes]:
    def start(executable: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # our own interpreter and program
            command,
            executable=executable,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            pass_fds=(theirs.fileno(), root),
            start_new_session=True,  # Ctrl-C in a terminal is for who asks
        )

    try:
        return start(command[0])
    except PermissionError:  # who gave up root's rights may not reach the interpreter by its path any more
        return start("/proc/self/exe")


def _not_started(why: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"the process that reads files cannot be started: {why}",
        hint="Files are read by a second Python process, started as `sys.executable` says; see that it may be started.",
    )


def _interpreter() -> str:
    """Find the program of this interpreter; a host that embeds Python may call its own one `sys.executable`."""
    if "python" in Path(sys.executable or "").name.lower() or "pypy" in Path(sys.executable or "").name.lower():
        return sys.executable
    return str(Path(sys.exec_prefix) / "bin" / "python3")


def _contents(outcomes: Sequence[Outcome], rows: tuple[bytes, bytes, bytes], file: int) -> Contents:
    owners, offsets, ends = (np.frombuffer(column, np.int64) for column in rows)
    size_bytes = int(ends[-1]) + SPARE_BYTES
    try:
        os.ftruncate(file, size_bytes)
        memory = pa.py_buffer(mmap.mmap(file, size_bytes, mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)))
    finally:
        os.close(file)
    data = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(owners), [None, pa.py_buffer(ends), memory])
    return Contents(outcomes, owners, offsets, data)
