"""One connection to a Redis server: raw RESP2, packed and parsed in C by hiredis, and its errors in our words."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import hiredis

from blocks.errors import ConfigurationError, LastgoodError, SourceUnavailable

Reply = bytes | int | list["Reply"] | hiredis.ReplyError | None
"""What a server answers; an error is a value here, because one failed command of many is often expected."""

Word = bytes | str | int

_CHUNK_BYTES = 256 * 1024
_OK, _QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
_MULTI, _EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"

_SETTINGS = {
    "WRONGPASS": "Check the user name and the password in the plan.",
    "NOAUTH": "The server asks for a password: name it with `password_env` in the plan.",
    "NOPERM": "docs/sources.md lists the commands that the ACL user has to be allowed.",
    "ERR": "",
}
_PASSING = {
    "LOADING": "The server is still loading its data; try again later.",
    "BUSY": "A script keeps the server busy.",
    "CLUSTERDOWN": "The cluster does not serve all of its hash slots now; `redis-cli --cluster check` shows why.",
    "MASTERDOWN": "This replica has lost its master.",
    "READONLY": "The server became a replica.",
    "OOM": "The server's `maxmemory` is reached; nothing more can be written to it.",
    "MISCONF": "The server cannot persist and refuses writes; see its log.",
}


def packed(*words: Word) -> bytes:
    """Write one command as RESP."""
    # its types say one word, it takes any number
    return cast(bytes, hiredis.pack_command(words))  # type: ignore[arg-type]


def failure(error: hiredis.ReplyError, place: str, doing: str) -> LastgoodError:
    """Say an error of the server in our words."""
    text = str(error)
    kind = text.partition(" ")[0]
    message = f"{place}: {doing}: {text}"
    if kind in ("WRONGPASS", "NOAUTH", "NOPERM"):
        return ConfigurationError(message, hint=_SETTINGS[kind])
    if "invalid password" in text or "without any password" in text:
        return ConfigurationError(message, hint=_SETTINGS["WRONGPASS"])
    return SourceUnavailable(message, hint=_PASSING.get(kind, ""))


@contextmanager
def translated(place: str, doing: str) -> Iterator[None]:
    """Translate errors of the network and of the protocol.

    Raises:
        SourceUnavailable: Naming the server and what was being done.
    """
    try:
        yield
    except OSError as exc:
        said = "it took too long to answer" if isinstance(exc, TimeoutError) else (exc.strerror or str(exc))
        raise SourceUnavailable(f"{place}: {doing}: {said}", hint="Is the server up, and is `url` right?") from exc
    except hiredis.ProtocolError as exc:
        raise SourceUnavailable(f"{place}: {doing}: it does not speak the Redis protocol ({exc})") from exc


class Connection:
    """A connection that is used by one thread at a time.

    Args:
        sock: Connected; with TLS, after the handshake. Its timeout is how long one answer may take.
        place: How errors call the server; without secrets.
    """

    def __init__(self, sock: socket.socket, place: str) -> None:
        self._socket, self.place = sock, place
        self._reader = hiredis.Reader()
        self.database: int | None = 0
        self.received_bytes = 0
        """How much was received since the connection was opened."""

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def patient(self) -> None:
        """Wait for answers without limit from now on."""
        self._socket.settimeout(None)

    def call(self, *words: Word, doing: str = "") -> Reply:
        """Send one command and return its answer.

        Raises:
            ConfigurationError: The user may not do this, or the password is wrong.
            SourceUnavailable: The server refused it for another reason, or went away.
        """
        return self.checked(self.ask(packed(*words), 1), doing or str(words[0]))[0]

    def checked(self, replies: list[Reply], doing: str) -> list[Reply]:
        """Raise the first error among answers, or return them."""
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise failure(reply, self.place, doing)
        return replies

    def ask(self, commands: bytes, count: int) -> list[Reply]:
        """Send `count` packed commands at once and return their answers, errors among them."""
        with translated(self.place, "asking"):
            self._socket.sendall(commands)
            return self._replies(count)

    def transaction(self, commands: Sequence[bytes]) -> list[Reply] | None:
        """Let the server do packed commands without anything in between; None where a watched key changed.

        Errors of single commands are among the answers.

        Raises:
            ConfigurationError: The user may not do this.
            SourceUnavailable: The server refused the whole, or went away.
        """
        self.begin(commands)
        return self.end(len(commands))

    def begin(self, commands: Sequence[bytes]) -> None:
        """Send a transaction whose answers `end` will take; nothing else may be asked meanwhile."""
        self.send(b"".join((_MULTI, *commands, _EXEC)))

    def end(self, count: int) -> list[Reply] | None:
        """Take the answers of a transaction of so many commands; see `transaction`."""
        with translated(self.place, "asking"):
            expected = _OK + _QUEUED * count
            if not self._skip(expected):
                self.checked(self._replies(count + 2), "reading in a transaction")
                raise SourceUnavailable(f"{self.place}: it answered a transaction in an unknown way")
            done = self._replies(1)[0]
        if isinstance(done, hiredis.ReplyError):
            raise failure(done, self.place, "reading in a transaction")
        return done if isinstance(done, list) else None

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        with translated(self.place, "sending"):
            self._socket.sendall(data)

    def receive(self) -> bytes:
        """Receive raw bytes.

        Raises:
            SourceUnavailable: The server closed the connection, or is silent for too long.
        """
        with translated(self.place, "receiving"):
            return self._received()

    def _skip(self, expected: bytes) -> bool:
        """Pass over answers that are known beforehand; parsing them would take longer than all the others."""
        data = b""
        while len(data) < len(expected) and expected.startswith(data):
            data += self._received()
        as_expected = data.startswith(expected)
        self._reader.feed(data[len(expected) :] if as_expected else data)
        return as_expected

    def _replies(self, count: int) -> list[Reply]:
        replies: list[Reply] = []
        gets, receive, feed = self._reader.gets, self._received, self._reader.feed
        while len(replies) < count:
            reply = gets()
            if reply is False:
                feed(receive())
            else:
                replies.append(reply)
        return replies

    def _received(self) -> bytes:
        data = self._socket.recv(_CHUNK_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self.received_bytes += len(data)
        return data


def unpacked(value: bytes) -> list[bytes]:
    """Read what `packed` wrote.

    Raises:
        ValueError: It is something else.
    """
    reader = hiredis.Reader()
    reader.feed(value)
    try:
        items = reader.gets()
    except hiredis.ProtocolError as exc:
        raise ValueError(str(exc)) from exc
    if not isinstance(items, list) or reader.has_data() or not all(isinstance(item, bytes) for item in items):
        raise ValueError("not a list of byte strings")
    return items


def texts(items: Iterable[Reply]) -> list[str]:
    """Read answers that are text for certain."""
    return [item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else str(item) for item in items]
