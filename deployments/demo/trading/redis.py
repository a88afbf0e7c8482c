"""A client of Redis in few lines: commands and answers over its socket."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

Word: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[Word, ...]
Reply: TypeAlias = "bytes | int | list[Reply] | None"

_SECONDS = 30.0


class RedisError(Exception):
    """Redis refused a command, or went away."""


class Redis:
    """A connection.

    Args:
        path: The socket of the server.

    Raises:
        OSError: Nobody listens there.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.close()
        self._socket.close()

    def __call__(self, *words: Word) -> Reply:
        """Send one command and return its answer.

        Raises:
            RedisError: It was refused.
        """
        return self.many([words])[0]

    def many(self, commands: list[Command]) -> list[Reply]:
        """Send commands at once and return their answers.

        Raises:
            RedisError: One was refused.
        """
        self._socket.sendall(b"".join(map(_packed, commands)))
        return [self._read() for _ in commands]

    def together(self, commands: list[Command]) -> None:
        """Send commands as one transaction."""
        self.many([("MULTI",), *commands, ("EXEC",)])

    def _read(self) -> Reply:
        line = self._answers.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"$":
            return None if rest == b"-1" else self._answers.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        raise RedisError(rest.decode() or "the server closed the connection")


def _packed(words: Command) -> bytes:
    data = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in data)
