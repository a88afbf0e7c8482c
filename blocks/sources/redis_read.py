"""Reading keys of any type, many at a time.

The value of a key and its expiry are read in one transaction, so that they are of the same moment. A key that is gone
is no record; one whose type changed in between is read again. Containers larger than one answer are read in pieces
while the server watches the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import cast

import hiredis
import pyarrow as pa

from blocks.errors import SourceChanged
from blocks.sources.redis_rows import ELEMENTS, MODULE, WIDE_ELEMENTS, Content, RowBuilder
from blocks.sources.redis_streams import read_stream
from blocks.sources.redis_wire import Connection, Reply, failure, packed

_ATTEMPTS = 5
_PIECE = 10_000
_SMALL, _LARGE = 32, 1024
_WANTED_BYTES = 512 * 1024
_GONE, _FOREVER = -2, -1

# up to one element more than a narrow container has, so that a larger one shows
_READS: dict[str, Callable[[bytes], bytes]] = {
    "hash": lambda key: packed("HSCAN", key, 0, "COUNT", WIDE_ELEMENTS + 1),
    "set": lambda key: packed("SSCAN", key, 0, "COUNT", WIDE_ELEMENTS + 1),
    "list": lambda key: packed("LRANGE", key, 0, WIDE_ELEMENTS),
    "zset": lambda key: packed("ZRANGE", key, 0, WIDE_ELEMENTS, "WITHSCORES"),
    "stream": lambda key: packed("XINFO", "STREAM", key, "FULL", "COUNT", 0),
    "string": lambda key: packed("GET", key),
}


def expiry_command(key: bytes) -> bytes:
    """Ask for the absolute expiry of a key."""
    return b"*2\r\n$11\r\nPEXPIRETIME\r\n$%d\r\n%b\r\n" % (len(key), key)


def _type_command(key: bytes) -> bytes:
    return b"*2\r\n$4\r\nTYPE\r\n$%d\r\n%b\r\n" % (len(key), key)


class KeyReader:
    """Reads keys over one connection into rows.

    Args:
        connection: On which the database is selected.
        field_expiry: Whether the server lets fields of a hash expire.
        put_off_ms: By how much expiries were put off when this place was restored for a verification.
    """

    def __init__(self, connection: Connection, field_expiry: bool = False, put_off_ms: int = 0) -> None:
        self._connection, self._field_expiry, self._put_off = connection, field_expiry, put_off_ms
        self._rows = RowBuilder()
        self.dumped: dict[str, int] = {}
        """How many keys of each type of a module were kept as DUMP gives them."""

    def read(self, keys: pa.LargeBinaryArray) -> pa.Table:
        """Return the rows of those keys that are there."""
        others: list[bytes] = []
        for batch in self._batches(keys):
            others += self._read_strings(batch)
            if len(others) >= _LARGE:
                self._read_others(others)
                others = []
        self._read_others(others)
        return self._rows.table()

    def _batches(self, keys: pa.LargeBinaryArray) -> Iterator[list[bytes]]:
        """Yield as many keys at a time as give answers of a reasonable size."""
        size, start = _SMALL, 0
        while start < len(keys):
            before = self._connection.received_bytes
            yield keys.slice(start, size).to_pylist()
            start += size
            received = self._connection.received_bytes - before
            size = max(1, min(_LARGE, size * 2 if received < _WANTED_BYTES else size // 2))

    def _read_strings(self, keys: list[bytes]) -> list[bytes]:
        """Read those that are strings, and return the others that are there."""
        # the expiries first: a key that goes while they are asked for has no value then
        replies = self._transaction([*map(expiry_command, keys), packed("MGET", *keys)])
        values = cast("list[bytes | None]", replies.pop())
        expiries = cast("list[int]", replies)
        if None not in values:
            self._rows.strings(keys, cast("list[bytes]", values), self._absolute(expiries))
            return []
        found = [value is not None for value in values]
        texts = list(compress(keys, found))
        self._rows.strings(
            texts, cast("list[bytes]", list(compress(values, found))), self._absolute(list(compress(expiries, found)))
        )
        return [k for k, v, at in zip(keys, values, expiries, strict=True) if v is None and at != _GONE]

    def _absolute(self, expiries: Sequence[int]) -> list[int | None]:
        return [None if at < 0 else at - self._put_off for at in expiries]

    def _read_others(self, keys: list[bytes]) -> None:
        for _ in range(_ATTEMPTS):
            if not keys:
                self._rows.settle()
                return
            types = self._connection.ask(b"".join(map(_type_command, keys)), len(keys))
            self._connection.checked(types, "TYPE")
            named = [(k, cast("bytes", t).decode("utf-8", "replace")) for k, t in zip(keys, types, strict=True)]
            keys = self._read_typed([(key, kind) for key, kind in named if kind != "none"])
        raise SourceChanged(f"{self._connection.place}: {len(keys)} keys kept changing their type, one is {keys[0]!r}")

    def _read_typed(self, keys: list[tuple[bytes, str]]) -> list[bytes]:
        """Read keys whose types were just asked for; return those that have another one by now."""
        again: list[bytes] = []
        wide: list[tuple[bytes, str]] = []
        start, size = 0, _SMALL
        while start < len(keys):
            some = keys[start : start + size]
            before = self._connection.received_bytes
            commands = [command for k, t in some for command in (expiry_command(k), _READS.get(t, _dump_command)(k))]
            replies = self._transaction(commands)
            for (key, kind), at, reply in zip(some, replies[::2], replies[1::2], strict=True):
                if at == _GONE:
                    continue
                if isinstance(reply, hiredis.ReplyError):
                    again.append(self._changed(key, reply))
                elif _incomplete(kind, reply):
                    wide.append((key, kind))
                elif not self._take(key, kind, cast("int", at), reply):
                    again.append(key)
            start += size
            received = self._connection.received_bytes - before
            size = max(1, min(_LARGE // 4, size * 2 if received < _WANTED_BYTES else size // 2))
        return again + [key for key, kind in wide if not self._read_wide(key, kind)]

    def _changed(self, key: bytes, error: hiredis.ReplyError) -> bytes:
        if not str(error).startswith(("WRONGTYPE", "ERR no such key")):
            raise failure(error, self._connection.place, f"reading key {key!r}")
        return key

    def _take(self, key: bytes, kind: str, at: int, reply: Reply) -> bool:
        expires = None if at == _FOREVER else at - self._put_off
        if reply is None:  # it went by itself a moment after its expiry was asked for
            return False
        if kind == "string":
            self._rows.add(key, Content(kind, expires, value=cast("bytes", reply)))
        elif kind == "stream":
            head, entries = read_stream(reply)
            self._rows.add(key, Content(kind, expires, entries, head))
        elif kind in ELEMENTS:
            items = cast("list[bytes]", _items(kind, reply))
            return self._take_elements(key, kind, expires, items)
        else:
            self.dumped[kind] = self.dumped.get(kind, 0) + 1
            self._rows.add(key, Content(MODULE + kind, expires, value=cast("bytes", reply)))
        return True

    def _take_elements(self, key: bytes, kind: str, expires: int | None, items: list[bytes]) -> bool:
        elements = ELEMENTS[kind](items)
        if not elements:
            return False
        fields = None
        if kind == "hash" and self._field_expiry:
            fields = self._fields(key, [field for field, _ in elements])
            if fields is None:
                return False
        self._rows.add(key, Content(kind, expires, elements, fields_ms=fields or None))
        return True

    def _fields(self, key: bytes, names: list[bytes]) -> dict[bytes, int] | None:
        """Return when fields go by themselves; None where one of them is gone already."""
        found: dict[bytes, int] = {}
        for start in range(0, len(names), _PIECE):
            some = names[start : start + _PIECE]
            reply = self._connection.ask(packed("HPEXPIRETIME", key, "FIELDS", len(some), *some), 1)[0]
            if isinstance(reply, hiredis.ReplyError):
                self._changed(key, reply)
            if not isinstance(reply, list) or _GONE in reply:
                return None
            expiries = zip(some, cast("list[int]", reply), strict=True)
            found |= {name: at - self._put_off for name, at in expiries if at != _FOREVER}
        return found

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
        replies = self._transaction([expiry_command(key), command])
        if isinstance(replies[1], hiredis.ReplyError) or replies[0] == _GONE:
            return False
        return self._took(key, kind, cast("int", replies[0]), cast("list[bytes]", replies[1]))

    def _took(self, key: bytes, kind: str, at: int, items: list[bytes]) -> bool:
        return self._take_elements(key, kind, None if at == _FOREVER else at - self._put_off, items)

    def _transaction(self, commands: list[bytes]) -> list[Reply]:
        replies = self._connection.transaction(commands)
        assert replies is not None  # nothing is watched
        return replies


def _dump_command(key: bytes) -> bytes:
    return packed("DUMP", key)


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
