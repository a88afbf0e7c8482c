"""One connection to a Redis server: raw RESP2, packed and parsed in C by hiredis, and its errors in our words."""

from __future__ import annotations

import re
import secrets
import select
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import hiredis
import pyarrow as pa

from blocks.errors import ConfigurationError, LastgoodError, SourceUnavailable
from blocks.sources.redis.net.long_answers import LONG_BYTES, LongAnswer, items_of

Reply = bytes | int | list["Reply"] | hiredis.ReplyError | None
"""What a server answers; an error is a value here, because one failed command of many is often expected."""

Answers = bytes | list[Reply]
"""The answers of a transaction, not parsed yet or parsed."""

Word = bytes | str | int

_CHUNK_BYTES = 256 * 1024
_CURSOR = re.compile(rb"\*2\r\n\$\d+\r\n(\d+)\r\n")
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
        # drawn at random, so that no value looks like it
        token = secrets.token_hex(16)
        self._last, self._ours = packed("PING", token), b"$%d\r\n%b\r\n" % (len(token), token.encode())
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
        return self.replies(count)

    def transaction(self, commands: Sequence[bytes]) -> list[Reply] | None:
        """Let the server do packed commands without anything in between; None where a watched key changed.

        Errors of single commands are among the answers.

        Raises:
            ConfigurationError: The user may not do this.
            SourceUnavailable: The server refused the whole, or went away.
        """
        self.begin(commands)
        return self.end(len(commands))

    def begin(self, commands: Iterable[bytes | pa.Buffer]) -> None:
        """Send a transaction whose answers `end` will take; nothing else may be asked meanwhile.

        One command of our own is its last: where its answer stands, the answers end.
        """
        self.send(b"".join((_MULTI, *commands, self._last, _EXEC)))

    def end(self, count: int) -> list[Reply] | None:
        """Take the answers of a transaction of so many commands; see `transaction`."""
        answers = self.end_raw(count)
        return None if answers is None else self.parsed(answers)

    def end_raw(self, count: int) -> Answers | None:
        """Take the answers of a transaction as they came, for `parsed`; None where a watched key changed.

        They are an array of `count + 1` items, the last of which is ours; or, where they are long, and of a
        connection that puts answers together itself, a list of `count`.
        """
        with translated(self.place, "asking"):
            data = self._after(_OK + _QUEUED * (count + 1))
            if data is None:
                self.checked(self.replies(count + 3), "reading in a transaction")
                raise SourceUnavailable(f"{self.place}: it answered a transaction in an unknown way")
            while b"\n" not in data:
                data += self._received()
            if data.startswith(b"*%d\r\n" % (count + 1)):
                return self._up_to_ours(data)
            self._reader.feed(data)
            done = self.replies(1)[0]
        if isinstance(done, hiredis.ReplyError):
            raise failure(done, self.place, "reading in a transaction")
        if done is not None:
            raise SourceUnavailable(f"{self.place}: it answered a transaction in an unknown way")
        return None

    def parsed(self, answers: Answers) -> list[Reply]:
        """Parse what `end_raw` took; ours is left out."""
        if isinstance(answers, list):
            return answers
        reader = hiredis.Reader()
        with translated(self.place, "reading in a transaction"):
            reader.feed(answers)
            return cast("list[Reply]", reader.gets())[:-1]

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        with translated(self.place, "sending"):
            self._socket.sendall(data)

    def replies(self, count: int) -> list[Reply]:
        """Take the answers to what was sent, errors among them."""
        replies: list[Reply] = []
        gets, receive, feed = self._reader.gets, self._received, self._reader.feed
        with translated(self.place, "asking"):
            while len(replies) < count:
                reply = gets()
                if reply is False:
                    feed(receive())
                else:
                    replies.append(reply)
        return replies

    def cursor(self) -> bytes | None:
        """Wait for the beginning of an answer to SCAN, and tell where it has to go on; None where it ends, or fails."""
        data = b""
        with translated(self.place, "asking"):
            while not (found := _CURSOR.match(data)) and not data.startswith(b"-"):
                data += self._received()
        self._reader.feed(data)
        return found[1] if found and found[1] != b"0" else None

    def receive(self) -> bytes:
        """Receive raw bytes.

        Raises:
            SourceUnavailable: The server closed the connection, or is silent for too long.
        """
        with translated(self.place, "receiving"):
            return self._received()

    def answers_within(self, seconds: float) -> bool:
        """Wait a while for anything to be received; tell whether there is something."""
        with translated(self.place, "waiting"):
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return bool(poll.poll(seconds * 1000))

    def _after(self, expected: bytes) -> bytes | None:
        """Pass over answers that are known beforehand; parsing them would take longer than all the others."""
        data = b""
        while len(data) < len(expected) and expected.startswith(data):
            data += self._received()
        if data.startswith(expected):
            return data[len(expected) :]
        self._reader.feed(data)
        return None

    def _up_to_ours(self, data: bytes) -> Answers:
        pieces, end, size = [data], data[-len(self._ours) :], len(data)
        while end != self._ours:
            if size >= LONG_BYTES:
                answer = LongAnswer(pieces, self._received, self._fill)
                pieces.clear()
                return cast("list[Reply]", items_of(answer.take())[:-1])
            pieces.append(self._received())
            size += len(pieces[-1])
            end = (end + pieces[-1])[-len(self._ours) :]
        return b"".join(pieces)

    def _fill(self, room: memoryview) -> None:
        """Receive as many bytes as there is room for."""
        while len(room):
            size = self._socket.recv_into(room)
            if not size:
                raise ConnectionResetError("the server closed the connection")
            self.received_bytes += size
            room = room[size:]

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
    if not isinstance(items, list) or reader.has_data() or not {*map(type, items)} <= {bytes}:
        raise ValueError("not a list of byte strings")
    return items


def texts(items: Iterable[Reply]) -> list[str]:
    """Read answers that are text for certain."""
    return [item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else str(item) for item in items]
