"""Taking the whole dataset as of one moment from a server, as a replica does: an RDB over the wire."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import hiredis

from blocks.errors import LastgoodError, SourceUnavailable
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Connection, failure, packed
from blocks.sources.redis.views.backlog import Position

_MARK_BYTES = 40
_EOF = b"$EOF:"
_POSITION = re.compile(rb"\+FULLRESYNC ([0-9a-f]{40}) (\d+)")
_MS_PER_SECOND = 1000
_NS_PER_MS = 1_000_000


class Dataset:
    """What a server sends: a length and as many bytes, or a mark and all up to the same mark.

    Args:
        connection: On which nothing else is done any more.

    Raises:
        SourceUnavailable: The server refuses.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._rest = connection, b""
        connection.send(b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n")
        found = _POSITION.fullmatch(header := self._line())
        if found is None:
            raise self._refused(header)
        self.position = Position(found[1].decode(), int(found[2]))
        """Of which position in the history of all writes it is; at the same position nothing was written in between.

        A key that has expired is no longer read, and yet stays a part of the history until the server removes it.
        """
        self.begun_ms = time.time_ns() // _NS_PER_MS
        """When the server began, by the clock of this machine."""

    def moment_ms(self, made_at: datetime | None) -> int:
        """Return the moment that it is of, in milliseconds since 1970.

        Args:
            made_at: The same by the clock of the server, to the second.
        """
        if made_at is None:
            return self.begun_ms
        earliest = int(made_at.timestamp()) * _MS_PER_SECOND
        return min(max(self.begun_ms, earliest), earliest + _MS_PER_SECOND - 1)

    def chunks(self) -> Iterator[bytes]:
        """Yield its bytes in pieces, once.

        Raises:
            SourceUnavailable: The server went away before the end.
        """
        header = self._line()
        if header.startswith(_EOF):
            return self._up_to(header[len(_EOF) :])
        if header[:1] == b"$" and header[1:].isdigit():
            return self._exactly(int(header[1:]))
        raise self._refused(header)

    def _line(self) -> bytes:
        data = self._rest
        while b"\n" not in (data := data.lstrip(b"\n")):  # empty lines say that it is still at work
            data += self._connection.receive()
        header, _, self._rest = data.partition(b"\n")
        return header.rstrip(b"\r")

    def _refused(self, header: bytes) -> LastgoodError:
        if header.startswith(b"-NOPERM"):
            error = hiredis.ReplyError(header[1:].decode("utf-8", "replace"))
            return failure(error, self._connection.place, "asking for the dataset")
        hint = "`consistent` needs a user who may replicate (+psync +replconf); a managed Redis may forbid it."
        if header.startswith(b"-NOMASTERLINK"):
            hint = "It is a replica without a link to its master: back up the master, or leave `consistent` out."
        return SourceUnavailable(
            f"{self._connection.place}: it does not give its dataset away: {header.decode('utf-8', 'replace')}",
            hint=hint,
        )

    def _exactly(self, size: int) -> Iterator[bytes]:
        data = self._rest
        while len(data) < size:
            yield data
            size -= len(data)
            data = self._connection.receive()
        yield data[:size]

    def _up_to(self, mark: bytes) -> Iterator[bytes]:
        if len(mark) != _MARK_BYTES:
            raise SourceUnavailable(f"{self._connection.place}: the dataset came in an unknown form")
        data = self._rest
        # the server sends nothing after the mark but to a replica that goes on, which we are not
        while not data.endswith(mark):
            yield data[:-_MARK_BYTES]
            data = data[-_MARK_BYTES:] + self._connection.receive()
        yield data[:-_MARK_BYTES]


@contextmanager
def dataset_of(server: Server) -> Iterator[Dataset]:
    """Ask a server for its dataset, over a connection of its own.

    The server makes it in a child process and keeps answering; the commands need the rights +psync and +replconf.

    Raises:
        ConfigurationError: The user may not do this.
        SourceUnavailable: The server refused.
    """
    connection = server.open()
    try:
        connection.call("REPLCONF", "capa", "eof", doing="asking for the dataset")
        # Valkey gives fields that expire only to who says a version that has them; Redis knows nothing of this. To who
        # says none Valkey 9 gives all else in the form of older ones, which is read here without another program
        if not server.writes_older_form:
            connection.ask(packed("REPLCONF", "version", server.own_version), 1)
        # it shall not keep what is written from now on for us
        connection.call("REPLCONF", "rdb-only", 1, doing="asking for the dataset")
        yield Dataset(connection)
    finally:
        connection.close()


def take_rdb(server: Server, path: Path) -> None:
    """Write the RDB of a server to a file.

    Raises:
        ConfigurationError: The user may not do this.
        SourceUnavailable: The server refused, or went away before the end.
    """
    with dataset_of(server) as dataset:
        try:
            with path.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                for chunk in dataset.chunks():
                    file.write(chunk)
        except OSError as exc:
            raise SourceUnavailable(f"{server}: the dataset cannot be kept at {path}: {exc}") from exc
