"""Values that are read one by one: wide containers, hashes with fields that expire, streams."""

from __future__ import annotations

from collections.abc import Iterable

from blocks.sources.redis.rdb.cursor import Cursor
from blocks.sources.redis.rdb.layout import Kind, damaged
from blocks.sources.redis.rdb.streams import read_stream
from blocks.sources.redis.rows import ELEMENTS, Content, Expiry, RowBuilder, width_of

Words = list[bytes]
Fields = dict[bytes, int]


class ObjectReader:
    """Reads values one by one into rows.

    Args:
        rows: Takes them.
        moment_ms: What expired before is left out, in milliseconds since 1970.
    """

    def __init__(self, rows: RowBuilder, moment_ms: int) -> None:
        self._rows, self._moment = rows, moment_ms

    def read(self, key: bytes, kind: Kind, expires_ms: Expiry, cursor: Cursor) -> None:
        """Read a stream, or a hash table with fields that expire, at the cursor.

        Raises:
            SourceUnavailable: It is damaged.
        """
        if kind in (Kind.STREAM_2, Kind.STREAM_3):
            head, entries = read_stream(cursor, times=1 if kind == Kind.STREAM_2 else 2)
            self._rows.add(key, Content("stream", expires_ms, entries, head))
            return
        self._add_timed(key, expires_ms, _timed_fields(cursor))

    def add_timed(self, key: bytes, expires_ms: Expiry, entries: Words) -> None:
        """Add a hash by its fields, their values, and when they expire."""
        self._add_timed(key, expires_ms, _timed_entries(entries))

    def add(self, key: bytes, kind: str, expires_ms: Expiry, items: Words, fields_ms: Fields) -> None:
        """Add a container by its items; one that is empty is none to a server."""
        if not items:
            return
        width = width_of(kind)
        if kind != "list" and len(items) % width:
            raise damaged(f"half of an element is missing in a {kind}")
        if not fields_ms and self._rows.narrow(key, kind, items, expires_ms):
            return
        elements = ELEMENTS[kind](items)
        if len(elements) * width != len(items):
            raise damaged(f"an element is there twice in a {kind}")
        self._rows.add(key, Content(kind, expires_ms, elements, fields_ms=fields_ms or None))

    def _add_timed(self, key: bytes, expires_ms: Expiry, fields: Iterable[tuple[bytes, bytes, int]]) -> None:
        there = [(name, value, at) for name, value, at in fields if not at or at >= self._moment]
        items = [word for name, value, _ in there for word in (name, value)]
        self.add(key, "hash", expires_ms, items, {name: at for name, _, at in there if at})


def _timed_fields(cursor: Cursor) -> list[tuple[bytes, bytes, int]]:
    """Read fields of a hash table, each with the time by which it expires after the first of all, plus one."""
    first = cursor.time_ms()
    found = []
    for _ in range(cursor.length()):
        after = cursor.length()
        found.append((cursor.string(), cursor.string(), after and first + after - 1))
    return found


def _timed_entries(entries: Words) -> list[tuple[bytes, bytes, int]]:
    try:
        times = [int(at) for at in entries[2::3]]
        return list(zip(entries[::3], entries[1::3], times, strict=True))
    except ValueError as exc:
        raise damaged("a field does not say when it expires") from exc
