"""The conversation between who wants files read and the process that reads them."""

from __future__ import annotations

import marshal
import random
import socket
import struct
import time
from typing import Any

from .content import CHUNK_BYTES
from .stats import Row

READ, GONE, CHANGED, FAILED = range(4)
"""What came of a file: it was read; it is not there any more; it changed each time; the system refused."""

Asked = tuple[bytes, int, int]
"""A file to read: its path, the first chunk, and the one to stop before (-1: none)."""

Outcome = tuple[int, int | str, Row, bool, bytes | None]
"""What came of it, the error's number or why, the row as it was read, whether its ctime proves it, its attributes."""

_LENGTH = struct.Struct("<Q")
_QUIET = getattr(socket, "MSG_NOSIGNAL", 0)


class Watch:
    """Where reading meets the clock. Tests put their own in place, to step in at a chosen moment."""

    def now_ns(self) -> int:
        """Return nanoseconds since 1970, by the clock that also stamps files."""
        return time.time_ns()

    def wait(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def back_off(self, attempt: int) -> None:
        """Wait before reading again: 20 ms and more, doubled with each attempt, with jitter."""
        self.wait(0.02 * 2**attempt * random.uniform(1, 2))  # noqa: S311  # not a secret

    def reading(self, path: bytes) -> None:
        """Called when a file was opened and looked at, before its content is read."""


class Channel:
    """One end of a conversation: messages of plain values, each perhaps with one descriptor."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    def send(self, message: Any, descriptor: int | None = None) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        payload = marshal.dumps(message)
        sent = socket.send_fds(
            self.socket, [_LENGTH.pack(len(payload))], [] if descriptor is None else [descriptor], _QUIET
        )
        assert sent == _LENGTH.size  # never torn: it is far smaller than any buffer
        self.socket.sendall(payload, _QUIET)

    def receive(self) -> tuple[Any, int | None]:
        """Wait for a message; return it, and the descriptor that came with it.

        Raises:
            EOFError: The other end is gone.
            OSError: None came in time, where the socket has a timeout.
        """
        head, descriptors, _, _ = socket.recv_fds(self.socket, _LENGTH.size, 1, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        head += self._exactly(_LENGTH.size - len(head)) if head else b""
        if not head:
            raise EOFError
        # both ends are this program, and nobody else has them
        return marshal.loads(self._exactly(_LENGTH.unpack(head)[0])), next(iter(descriptors), None)  # noqa: S302

    def _exactly(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            piece = self.socket.recv(min(count - len(got), CHUNK_BYTES))
            if not piece:
                raise EOFError
            got += piece
        return bytes(got)


class AskingWatch(Watch):
    """The watch of who asked, used from here."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def _ask(self, name: str, *arguments: object) -> Any:
        self._channel.send(("watch", name, arguments))
        return self._channel.receive()[0]

    def now_ns(self) -> int:
        """Ask for the time."""
        return int(self._ask("now_ns"))

    def wait(self, seconds: float) -> None:
        """Let the asker wait."""
        self._ask("wait", seconds)

    def back_off(self, attempt: int) -> None:
        """Let the asker wait."""
        self._ask("back_off", attempt)

    def reading(self, path: bytes) -> None:
        """Notify the asker, and go on when it lets us."""
        self._ask("reading", path)
