"""Reading a large container piece by piece, each of which becomes columns before the next one is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import hiredis

from blocks.sources.redis.net.wire import Connection, Word, failure, packed
from blocks.sources.redis.rows import Expiry
from blocks.sources.redis.wide import WideKey

_FIRST, _MOST = 1_000, 10_000
"""How many elements are asked for at once: at first, and at most where they are small."""
_WANTED_BYTES = 1024 * 1024
_GONE, _FOREVER = -2, -1


class _Differs(Exception):
    """The key has another type by now."""


def read_pieces(
    connection: Connection, key: bytes, kind: str, put_off_ms: int = 0, *, expiring: bool = False
) -> WideKey | None:
    """Read a container; None where it has another type by now.

    Args:
        connection: On which the server watches the key, as otherwise the pieces may be of different moments.
        key: The key.
        kind: Its type: `hash`, `list`, `set` or `zset`.
        put_off_ms: By how much expiries were put off in this place.
        expiring: Whether to ask for the expiries of fields. One that goes by itself meanwhile is left out.
    """
    found = WideKey(kind)
    try:
        for items in _Pieces(connection, key, kind):
            if not expiring:
                found.add(items)
            elif items:
                found.add(*_with_expiries(connection, key, items, put_off_ms))
    except _Differs:
        return None
    return found


class _Pieces:
    """The items of a container, as many at a time as make answers of a reasonable size."""

    def __init__(self, connection: Connection, key: bytes, kind: str) -> None:
        self._connection, self._key, self._kind = connection, key, kind
        self._count = _FIRST

    def __iter__(self) -> Iterator[list[bytes]]:
        return self._scanned() if self._kind in ("hash", "set") else self._ranged()

    def _scanned(self) -> Iterator[list[bytes]]:
        verb, cursor = "HSCAN" if self._kind == "hash" else "SSCAN", b"0"
        while True:
            reply = self._asked(verb, self._key, cursor, "COUNT", self._count)
            cursor, items = cast("tuple[bytes, list[bytes]]", reply)
            yield items
            if cursor == b"0":
                return

    def _ranged(self) -> Iterator[list[bytes]]:
        verb = ("LRANGE",) if self._kind == "list" else ("ZRANGE",)
        scores = () if self._kind == "list" else ("WITHSCORES",)
        start = 0
        while True:
            count = self._count
            items = cast("list[bytes]", self._asked(*verb, self._key, start, start + count - 1, *scores))
            yield items
            if len(items) < count * (1 + len(scores)):
                return
            start += count

    def _asked(self, *words: Word) -> object:
        before = self._connection.received_bytes
        reply = asked(self._connection, self._key, *words)
        small = self._connection.received_bytes - before < _WANTED_BYTES
        self._count = max(1, min(_MOST, self._count * 2 if small else self._count // 2))
        return reply


def asked(connection: Connection, key: bytes, *words: Word) -> object:
    """Ask something of a key.

    Raises:
        _Differs: It has another type by now.
        SourceUnavailable: The server refused, or went away.
    """
    reply = connection.ask(packed(*words), 1)[0]
    if isinstance(reply, hiredis.ReplyError):
        if str(reply).startswith("WRONGTYPE"):
            raise _Differs
        raise failure(reply, connection.place, f"reading key {key!r}")
    return reply


def _with_expiries(
    connection: Connection, key: bytes, items: Sequence[bytes], put_off_ms: int
) -> tuple[list[bytes], list[Expiry]]:
    """Ask for the expiries of some fields; return those that are there still, with their values, and these."""
    names = items[::2]
    times = asked(connection, key, "HPEXPIRETIME", key, "FIELDS", len(names), *names)
    if not isinstance(times, list):  # the key is gone
        return [], []
    there = [n for n, at in enumerate(times) if at != _GONE]
    flat = [word for n in there for word in items[2 * n : 2 * n + 2]]
    return flat, [None if times[n] == _FOREVER else cast("int", times[n]) - put_off_ms for n in there]
