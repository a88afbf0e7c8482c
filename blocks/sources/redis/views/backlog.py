"""The history that a server keeps for its replicas, its replication backlog: what was written since a moment.

A position in it is a replication id and an offset in bytes. A replica that attaches at an older position is sent
every command that wrote something since then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from blocks.errors import ConfigurationError, SourceUnavailable
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Connection, packed

NO_PORT = 65_536
"""The port at which we say to listen: shown in INFO, and no Sentinel takes it for a replica that could be promoted."""

_QUICK_FORK_BYTES = 2**30
"""Of a server with as much memory a fork takes some ten milliseconds."""
_LOOKS, _PAUSE_SECONDS = 100, 0.01
_CONTINUE = re.compile(rb"\+CONTINUE(?: [0-9a-f]{40})?\r\n")
_LINE_BYTES = 1024


@dataclass(frozen=True)
class Position:
    """A moment in the history of a server's data: of a master and all of its replicas, the same."""

    replication_id: str
    offset: int


class History:
    """The history of one server. May be used from several threads."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def position(self) -> Position | None:
        """Return where the server is now; None where it keeps no history, because then the offset may stand still.

        What is read afterwards has everything that was written up to there.
        """
        return _position(self._server.info("replication"))

    def begin(self) -> None:
        """Let a master that keeps no history begin to: it does when somebody asks for its dataset as a replica.

        The dataset is not taken. By default a server waits some seconds for other replicas before it forks, and we are
        gone by then. One that would fork at once is asked only if it is small; it is asked for no data.

        Raises:
            ConfigurationError: The user may not replicate.
            SourceUnavailable: The server refused, or went away.
        """
        facts = self._server.info("replication")
        if _position(facts) or facts.get("role") != "master" or not self._forks_late_or_quickly():
            return
        with self._attached() as connection:
            connection.send(packed("PSYNC", "?", -1))
            looks = 0
            while looks < _LOOKS and not self.position() and not connection.answers_within(_PAUSE_SECONDS):
                looks += 1

    def continues(self, before: Position) -> bool:
        """Whether the server knows what was written since a position.

        A request for more than it knows makes it fork, so this is checked before.
        """
        facts = self._server.info("replication")
        if _position(facts) is None or not _descends(before, facts):
            return False
        first, length = int(facts["repl_backlog_first_byte_offset"]), int(facts["repl_backlog_histlen"])
        return first <= before.offset + 1 <= first + length

    def descends(self, before: Position) -> bool:
        """Whether the data of the server are still those of a position, with what was written since."""
        return _descends(before, self._server.info("replication"))

    def between(self, before: Position, upto: int) -> Iterator[bytes]:
        """Yield what was written from a position up to a later offset, as RESP commands cut anywhere.

        Raises:
            ConfigurationError: The user may not replicate.
            SourceUnavailable: The server does not know that any more, or went away.
        """
        with self._attached() as connection:
            connection.send(packed("PSYNC", before.replication_id, before.offset + 1))
            data, left = _accepted(connection), upto - before.offset
            while left > len(data):
                left -= len(data)
                yield data
                data = connection.receive()
            yield data[:left]

    @contextmanager
    def _attached(self) -> Iterator[Connection]:
        """Open a connection that says it is a replica."""
        connection = self._server.open()
        try:
            # a full synchronisation, which is not wanted but might begin, shall have nothing in it
            for words in (("listening-port", NO_PORT), ("capa", "eof"), ("rdb-filter-only", "")):
                connection.call("REPLCONF", *words, doing="asking for its history")
            yield connection
        finally:
            connection.close()

    def _forks_late_or_quickly(self) -> bool:
        if int(self._server.info("memory").get("used_memory", 0)) <= _QUICK_FORK_BYTES:
            return True
        try:
            found = self._server.call("CONFIG", "GET", "repl-diskless-sync*")
        except (ConfigurationError, SourceUnavailable):
            return False
        settings = dict(zip(found[::2], found[1::2], strict=False)) if isinstance(found, list) else {}
        delay = settings.get(b"repl-diskless-sync-delay")
        return settings.get(b"repl-diskless-sync") == b"yes" and delay not in (None, b"0")


def _position(facts: dict[str, str]) -> Position | None:
    if facts.get("repl_backlog_active") != "1" or facts.get("master_sync_in_progress", "0") != "0":
        return None
    if facts.get("slave_read_only", "1") != "1":  # what others write to a replica is in no history
        return None
    return Position(facts["master_replid"], int(facts["master_repl_offset"]))


def _descends(before: Position, facts: dict[str, str]) -> bool:
    if before.offset > int(facts.get("master_repl_offset", -1)):
        return False
    if before.replication_id == facts.get("master_replid"):
        return True
    # a replica that was promoted continues the history of its master from where it had it
    upto = int(facts.get("second_repl_offset", -1))
    return before.replication_id == facts.get("master_replid2") and before.offset + 1 <= upto


def _accepted(connection: Connection) -> bytes:
    """Wait for the answer to PSYNC; return what follows it."""
    data = b""
    while b"\n" not in data and len(data) < _LINE_BYTES:
        data += connection.receive()
    found = _CONTINUE.match(data)
    if found is None:
        raise SourceUnavailable(f"{connection.place}: it does not continue its history: {data[:_LINE_BYTES]!r}")
    return data[found.end() :]
