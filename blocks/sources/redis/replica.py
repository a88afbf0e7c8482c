"""Taking the whole dataset as of one moment from a server, as a replica does: an RDB file over the wire."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from blocks.errors import SourceUnavailable
from blocks.sources.redis.server import Server
from blocks.sources.redis.wire import Connection

_MARK_BYTES = 40
_EOF = b"$EOF:"


def take_rdb(server: Server, path: Path) -> None:
    """Write the RDB of a server to a file.

    The server makes it in a child process and keeps answering; the command needs the rights +sync and +replconf.

    Raises:
        ConfigurationError: The user may not do this.
        SourceUnavailable: The server refused, or went away before the end.
    """
    connection = server.open()
    try:
        connection.call("REPLCONF", "capa", "eof", doing="asking for the dataset")
        # it shall not keep what is written from now on for us
        connection.call("REPLCONF", "rdb-only", 1, doing="asking for the dataset")
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            _Transfer(connection, file.write).run()
    except OSError as exc:
        raise SourceUnavailable(f"{server}: the dataset cannot be kept at {path}: {exc}") from exc
    finally:
        connection.close()


class _Transfer:
    """Receives what the server sends after SYNC: a length and as many bytes, or a mark and all up to the same mark."""

    def __init__(self, connection: Connection, write: Callable[[bytes], object]) -> None:
        self._connection, self._write = connection, write

    def run(self) -> None:
        self._connection.send(b"*1\r\n$4\r\nSYNC\r\n")
        header, rest = self._header()
        if header.startswith(_EOF):
            self._up_to(header[len(_EOF) :], rest)
        elif header[:1] == b"$" and header[1:].isdigit():
            self._exactly(int(header[1:]), rest)
        else:
            raise SourceUnavailable(
                f"{self._connection.place}: it does not give its dataset away: {header.decode('utf-8', 'replace')}",
                hint="`consistent` needs a user who may replicate (+sync +replconf); a managed Redis may forbid it.",
            )

    def _header(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\n" not in (data := data.lstrip(b"\n")):  # empty lines say that it is still at work
            data += self._connection.receive()
        header, _, rest = data.partition(b"\n")
        return header.rstrip(b"\r"), rest

    def _exactly(self, size: int, data: bytes) -> None:
        while len(data) < size:
            self._write(data)
            size -= len(data)
            data = self._connection.receive()
        self._write(data[:size])

    def _up_to(self, mark: bytes, data: bytes) -> None:
        if len(mark) != _MARK_BYTES:
            raise SourceUnavailable(f"{self._connection.place}: the dataset came in an unknown form")
        # the server sends nothing after the mark but to a replica that goes on, which we are not
        while not data.endswith(mark):
            self._write(data[:-_MARK_BYTES])
            data = data[-_MARK_BYTES:] + self._connection.receive()
        self._write(data[:-_MARK_BYTES])
