"""Reading keys of any type, many at a time.

The value of a key and its expiry are read in one transaction, so that they are of the same moment. A key that is gone
is no record; one whose type changed in between is read again. Containers larger than one answer are read in pieces
while the server watches the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress, cycle
from typing import TypeVar, cast

import hiredis
import pyarrow as pa

from blocks.errors import SourceChanged
from blocks.sources.redis.fields import Named, read_fields
from blocks.sources.redis.rows import ELEMENTS, MODULE, WIDE_ELEMENTS, Content, RowBuilder, byte_strings
from blocks.sources.redis.streams import read_stream
from blocks.sources.redis.wire import Connection, Reply, failure, packed

_ATTEMPTS = 5
_PIECE = 10_000
_SMALL, _LARGE = 32, 1024
_WANTED_BYTES = 512 * 1024
_GUESSES = 10_000
_GONE, _FOREVER = -2, -1

_COUNT = b"$%d\r\n%d\r\n" % (len(str(WIDE_ELEMENTS + 1)), WIDE_ELEMENTS + 1)
_LAST = b"$%d\r\n%d\r\n" % (len(str(WIDE_ELEMENTS)), WIDE_ELEMENTS)
_EXPIRY = b"*2\r\n$11\r\nPEXPIRETIME\r\n$%d\r\n%b\r\n"

# written out because packing word by word takes most of the time of a read;
# up to one element more than a narrow container has, so that a larger one shows
_READS = {
    "hash": b"*5\r\n$5\r\nHSCAN\r\n$%d\r\n%b\r\n$1\r\n0\r\n$5\r\nCOUNT\r\n" + _COUNT,
    "set": b"*5\r\n$5\r\nSSCAN\r\n$%d\r\n%b\r\n$1\r\n0\r\n$5\r\nCOUNT\r\n" + _COUNT,
    "list": b"*4\r\n$6\r\nLRANGE\r\n$%d\r\n%b\r\n$1\r\n0\r\n" + _LAST,
    "zset": b"*5\r\n$6\r\nZRANGE\r\n$%d\r\n%b\r\n$1\r\n0\r\n" + _LAST + b"$10\r\nWITHSCORES\r\n",
    "stream": b"*6\r\n$5\r\nXINFO\r\n$6\r\nSTREAM\r\n$%d\r\n%b\r\n$4\r\nFULL\r\n$5\r\nCOUNT\r\n$1\r\n0\r\n",
    "string": b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n",
}
_DUMP = b"*2\r\n$4\r\nDUMP\r\n$%d\r\n%b\r\n"
_TYPE = b"*2\r\n$4\r\nTYPE\r\n$%d\r\n%b\r\n"

T = TypeVar("T")


class Guesses:
    """Types that keys have had, by what their names begin with: asking for the type of each takes long.

    A wrong guess costs one more question. May be used from several threads.
    """

    def __init__(self) -> None:
        self._types: dict[bytes, str] = {}

    def of(self, key: bytes) -> str | None:
        """Guess the type of a key; None where it may be a string or anything else."""
        return self._types.get(key.partition(b":")[0])

    def learn(self, key: bytes, kind: str) -> None:
        """Remember the type of a key."""
        if kind in ELEMENTS and len(self._types) < _GUESSES:
            self._types[key.partition(b":")[0]] = kind


class KeyReader:
    """Reads keys into rows. Two connections are asked in turn, so that the server works while answers are read.

    Args:
        connections: Two, on which the database is selected.
        field_expiry: Whether fields of hashes may expire.
        put_off_ms: By how much expiries were put off when this place was restored for a verification.
        guesses: What is known of the types of keys.
    """

    def __init__(
        self,
        connections: tuple[Connection, Connection],
        field_expiry: bool = False,
        put_off_ms: int = 0,
        guesses: Guesses | None = None,
    ) -> None:
        self._connections, self._field_expiry, self._put_off = connections, field_expiry, put_off_ms
        self._connection = connections[0]
        self._guesses = guesses or Guesses()
        self._rows = RowBuilder()
        self._size = _SMALL
        self._named: list[Named] = []
        self.dumped: dict[str, int] = {}
        """How many keys of each type of a module were kept as DUMP gives them."""

    def read(self, keys: pa.LargeBinaryArray) -> pa.Table:
        """Return the rows of those keys that are there."""
        others: list[bytes] = []
        guessed: list[tuple[bytes, str]] = []
        for batch, replies in self._ahead(self._strings(keys, guessed)):
            others += self._take_strings(batch, replies)
        others += self._read_typed(guessed)
        self._read_others(others)
        self._add_hashes()
        return self._rows.table()

    def _strings(
        self, keys: pa.LargeBinaryArray, guessed: list[tuple[bytes, str]]
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yield keys that may be strings, with the commands that read them; put the others aside."""
        start, guess = 0, self._guesses.of
        while start < len(keys):
            batch = byte_strings(keys.slice(start, self._size))
            start += len(batch)
            types = [guess(key) for key in batch]
            guessed += [(key, kind) for key, kind in zip(batch, types, strict=True) if kind]
            batch = [key for key, kind in zip(batch, types, strict=True) if not kind]
            if batch:
                # the expiries first: a key that goes while they are asked for has no value then
                yield batch, [*[_EXPIRY % (len(key), key) for key in batch], packed("MGET", *batch)]

    def _ahead(self, batches: Iterator[tuple[T, list[bytes]]]) -> Iterator[tuple[T, list[Reply]]]:
        """Send each batch of commands in a transaction before the answers of the one before it are handed on."""
        waiting: tuple[T, Connection, int] | None = None
        for (what, commands), connection in zip(batches, cycle(self._connections), strict=False):
            connection.begin(commands)
            if waiting is not None:
                yield self._ended(*waiting)
            waiting = what, connection, len(commands)
        if waiting is not None:
            yield self._ended(*waiting)

    def _ended(self, what: T, connection: Connection, count: int) -> tuple[T, list[Reply]]:
        before = connection.received_bytes
        replies = connection.end(count)
        assert replies is not None  # nothing is watched
        received = connection.received_bytes - before
        # as many at a time as give answers of a reasonable size
        self._size = max(1, min(_LARGE, self._size * 2 if received < _WANTED_BYTES else self._size // 2))
        self._connection = connection
        return what, replies

    def _take_strings(self, keys: list[bytes], replies: list[Reply]) -> list[bytes]:
        """Take those that are strings, and return the others that are there."""
        values = cast("list[bytes | None]", replies.pop())
        expiries = cast("list[int]", replies)
        if None not in values:
            self._rows.strings(keys, cast("list[bytes]", values), self._absolute(expiries))
            return []
        found = [value is not None for value in values]
        texts, there = list(compress(keys, found)), cast("list[bytes]", list(compress(values, found)))
        self._rows.strings(texts, there, self._absolute(list(compress(expiries, found))))
        return [k for k, v, at in zip(keys, values, expiries, strict=True) if v is None and at != _GONE]

    def _absolute(self, expiries: Sequence[int]) -> list[int | None]:
        return [None if at < 0 else at - self._put_off for at in expiries]

    def _read_others(self, keys: list[bytes]) -> None:
        for _ in range(_ATTEMPTS):
            again: list[bytes] = []
            for start in range(0, len(keys), _LARGE):
                again += self._read_typed(self._typed(keys[start : start + _LARGE]))
            if not again:
                return
            keys = again
        raise SourceChanged(f"{self._connection.place}: {len(keys)} keys kept changing their type, one is {keys[0]!r}")

    def _typed(self, keys: list[bytes]) -> list[tuple[bytes, str]]:
        types = self._connection.ask(b"".join([_TYPE % (len(key), key) for key in keys]), len(keys))
        self._connection.checked(types, "TYPE")
        named = [(k, cast("bytes", t).decode("utf-8", "replace")) for k, t in zip(keys, types, strict=True)]
        for key, kind in named:
            self._guesses.learn(key, kind)
        return [(key, kind) for key, kind in named if kind != "none"]

    def _read_typed(self, keys: list[tuple[bytes, str]]) -> list[bytes]:
        """Read keys under the types they are thought to have; return those that have another one."""
        again: list[bytes] = []
        wide: list[tuple[bytes, str]] = []
        self._size = min(self._size, _SMALL)
        for some, replies in self._ahead(self._reads(keys)):
            for (key, kind), at, reply in zip(some, replies[::2], replies[1::2], strict=True):
                if at == _GONE:
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    again.append(self._changed(key, reply))
                elif _incomplete(kind, reply):
                    wide.append((key, kind))
                elif not self._take(key, kind, cast("int", at), reply):
                    again.append(key)
        return again + [key for key, kind in wide if not self._read_wide(key, kind)]

    def _reads(self, keys: list[tuple[bytes, str]]) -> Iterator[tuple[list[tuple[bytes, str]], list[bytes]]]:
        start = 0
        while start < len(keys):
            some = keys[start : start + max(1, self._size // 2)]
            start += len(some)
            commands: list[bytes] = []
            for key, kind in some:
                commands += (_EXPIRY % (len(key), key), _READS.get(kind, _DUMP) % (len(key), key))
            yield some, commands

    def _changed(self, key: bytes, error: hiredis.ReplyError) -> bytes:
        if not str(error).startswith(("WRONGTYPE", "ERR no such key")):
            raise failure(error, self._connection.place, f"reading key {key!r}")
        return key

    def _take(self, key: bytes, kind: str, at: int, reply: Reply) -> bool:
        expires = None if at == _FOREVER else at - self._put_off
        if kind in ELEMENTS:
            return self._take_elements(key, kind, expires, cast("list[bytes]", _items(kind, reply)))
        if reply is None:  # it went by itself a moment after its expiry was asked for
            return False
        if kind == "string":
            self._rows.add(key, Content(kind, expires, value=cast("bytes", reply)))
        elif kind == "stream":
            head, entries = read_stream(reply)
            self._rows.add(key, Content(kind, expires, entries, head))
        else:
            self.dumped[kind] = self.dumped.get(kind, 0) + 1
            self._rows.add(key, Content(MODULE + kind, expires, value=cast("bytes", reply)))
        return True

    def _take_elements(self, key: bytes, kind: str, expires: int | None, items: list[bytes]) -> bool:
        if not items:
            return False
        if kind == "hash" and self._field_expiry:
            self._named.append((key, items[::2]))
        else:
            self._add(key, kind, expires, items, {})
        return True

    def _add(self, key: bytes, kind: str, expires: int | None, items: list[bytes], fields_ms: dict[bytes, int]) -> None:
        few = len(items) <= (2 * WIDE_ELEMENTS if kind in ("hash", "zset") else WIDE_ELEMENTS)
        if few and not fields_ms and self._rows.narrow(key, kind, items, expires):
            return
        self._rows.add(key, Content(kind, expires, ELEMENTS[kind](items), fields_ms=fields_ms or None))

    def _add_hashes(self) -> None:
        """Read the hashes whose fields may expire, now that the names of those are known."""
        for found in read_fields(self._connection, self._named, _pieces):
            fields_ms = {name: at - self._put_off for name, at in found.expiries.items()}
            expires = None if found.at == _FOREVER else found.at - self._put_off
            self._add(found.key, "hash", expires, found.items, fields_ms)

    def _read_wide(self, key: bytes, kind: str) -> bool:
        """Read a large container in pieces; if it changes all the time, in one answer that keeps the server busy."""
        connection = self._connection
        for _ in range(2):
            connection.call("WATCH", key)
            at = cast("int", connection.call("PEXPIRETIME", key))
            items = _pieces(connection, key, kind)
            if connection.transaction([packed("PING")]) is not None:
                return items is not None and at != _GONE and self._took(key, kind, at, items)
        whole = {"hash": ("HGETALL", key), "set": ("SMEMBERS", key)}.get(kind)
        words = whole or (("LRANGE" if kind == "list" else "ZRANGE"), key, 0, -1)
        command = packed(*words, "WITHSCORES") if kind == "zset" else packed(*words)
        replies = connection.transaction([_EXPIRY % (len(key), key), command]) or []
        if isinstance(replies[1], hiredis.ReplyError) or replies[0] == _GONE:
            return False
        return self._took(key, kind, cast("int", replies[0]), cast("list[bytes]", replies[1]))

    def _took(self, key: bytes, kind: str, at: int, items: list[bytes]) -> bool:
        return self._take_elements(key, kind, None if at == _FOREVER else at - self._put_off, items)


def _items(kind: str, reply: Reply) -> Reply:
    return cast("list[Reply]", reply)[1] if kind in ("hash", "set") else reply


def _incomplete(kind: str, reply: Reply) -> bool:
    if kind in ("hash", "set"):
        return cast("list[Reply]", reply)[0] != b"0"
    limit = {"list": WIDE_ELEMENTS, "zset": 2 * WIDE_ELEMENTS}.get(kind)
    return limit is not None and len(cast("list[Reply]", reply)) > limit


def _pieces(connection: Connection, key: bytes, kind: str) -> list[bytes] | None:
    """Read a container piece by piece; None where it has another type by now."""
    items: list[bytes] = []
    cursor: bytes | int = 0
    while True:
        if kind in ("hash", "set"):
            command = packed("HSCAN" if kind == "hash" else "SSCAN", key, cursor, "COUNT", _PIECE)
        elif kind == "list":
            command = packed("LRANGE", key, cursor, cast("int", cursor) + _PIECE - 1)
        else:
            command = packed("ZRANGE", key, cursor, cast("int", cursor) + _PIECE - 1, "WITHSCORES")
        reply = connection.ask(command, 1)[0]
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("WRONGTYPE"):
                return None
            raise failure(reply, connection.place, f"reading key {key!r}")
        if kind in ("hash", "set"):
            cursor, more = cast("tuple[bytes, list[bytes]]", reply)
            items += more
            if cursor == b"0":
                return items
            continue
        more = cast("list[bytes]", reply)
        items += more
        if len(more) < _PIECE * (2 if kind == "zset" else 1):
            return items
        cursor = cast("int", cursor) + _PIECE
