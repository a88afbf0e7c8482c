"""Large values of an RDB, read while they arrive: strings into the bytes they stay in, containers piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from struct import error as too_short
from typing import Protocol

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.layout import COMPRESSED, PADDING, TYPES, Kind, damaged
from blocks.sources.redis.rdb.lzf import decompressed_long
from blocks.sources.redis.rdb.records import records_at
from blocks.sources.redis.rdb.skip import past_attributes, past_string, read_length
from blocks.sources.redis.rdb.strings import pieces_of, strings_at, texts_of
from blocks.sources.redis.rdb.tables import TableReader
from blocks.sources.redis.read.grouping import Ints
from blocks.sources.redis.rows import ELEMENTS, Content, Expiry, RowBuilder
from blocks.sources.redis.wide import WideKey, long_string

_SCORE_BYTES = 8
_KINDS = frozenset({Kind.STRING, Kind.HASH, Kind.SET, Kind.ZSET, Kind.LIST})
_MOST_HEADER_BYTES = 64


class Source(Protocol):
    """Where the bytes come from."""

    data: bytes
    """What is here of them."""
    at: int
    """Where in it the next thing begins."""

    def more(self) -> bool:
        """Take more bytes; False where these are the last."""
        ...

    def exactly(self, size: int) -> bytes:
        """Take so many bytes, those that are here among them, copying no more than once."""
        ...


@dataclass(frozen=True)
class Large:
    """A record whose value is not here as a whole.

    Attributes:
        key: The key.
        kind: How its value is written.
        expires_ms: When it goes by itself.
        begin: Where the value begins.
    """

    key: bytes
    kind: Kind
    expires_ms: Expiry
    begin: int


def large_at(data: bytes, at: int) -> Large | None:
    """Look at a record that ends beyond the data; None where its value is none that can be read while it arrives."""
    try:
        begin = past_attributes(data, at)
        value = past_string(data, begin + 1)
        if data[begin] not in _KINDS or value + _MOST_HEADER_BYTES > len(data):
            return None
    except (IndexError, too_short):
        return None
    head = np.frombuffer(data[at:value] + PADDING, np.uint8)
    records = records_at(head, np.zeros(1, np.int64))
    [key] = texts_of(head, records.keys).to_pylist()
    return Large(key, Kind(data[begin]), records.expiry(0), value)


def read_large(source: Source, large: Large, *, wanted: bool) -> pa.Table | None:
    """Read a value; `source` is behind it then.

    Args:
        source: Where the value is, beginning at `large.begin`.
        large: What is known of the record.
        wanted: Whether it is to be kept; else it is passed over, piece by piece.

    Raises:
        SourceUnavailable: It is damaged, or ends too early.
    """
    source.at = large.begin
    if large.kind == Kind.STRING:
        value = _string(source)
        return long_string(large.key, "string", value, large.expires_ms) if wanted else None
    kind = TYPES[large.kind]
    found = WideKey(kind)
    for data, places in _pieces(source, large.kind):
        if wanted:
            found.add_columns(*_TAKE[large.kind](data, places))
    if not wanted:
        return None
    found.settle()
    if len(found) != found.taken:
        raise damaged(f"an element is there twice in a {kind}")
    return _rows(large, kind, found) if len(found) else None


def _rows(large: Large, kind: str, found: WideKey) -> pa.Table:
    if not found.is_narrow:
        return found.rows(large.key, large.expires_ms)
    # few elements, which are long
    rows, items = RowBuilder(), found.items()
    if not rows.narrow(large.key, kind, items, large.expires_ms):
        rows.add(large.key, Content(kind, large.expires_ms, ELEMENTS[kind](items)))
    return rows.table()


def _string(source: Source) -> bytes:
    first = source.data[source.at]
    if first == COMPRESSED:
        size, at = read_length(source.data, source.at + 1)
        text_bytes, source.at = read_length(source.data, at)
        return decompressed_long(source.exactly(size), text_bytes)
    size, source.at = read_length(source.data, source.at)
    return source.exactly(size)


Columns = tuple[pa.LargeBinaryArray, pa.LargeBinaryArray | None]


def _pieces(source: Source, kind: Kind) -> Iterator[tuple[bytes, Ints]]:
    """Yield the bytes of elements, or of nodes of several, as many as are here, and where each begins."""
    left, source.at = read_length(source.data, source.at)
    ahead, more = _AHEAD[kind], True
    while left:
        places, end = _whole(source.data, source.at, left, ahead)
        if places:
            yield source.data[source.at : end], np.array(places, np.int64) - source.at
            left -= len(places)
            source.at = end
        if left:
            if not more:
                raise damaged("it ends in the middle")
            more = source.more()


def _whole(data: bytes, at: int, most: int, ahead: Callable[[bytes, int], int]) -> tuple[list[int], int]:
    """Find the elements that are here as a whole; returns where each begins, and where the last ends."""
    places: list[int] = []
    append, size = places.append, len(data)
    try:
        while len(places) < most:
            end = ahead(data, at)
            if end > size:
                break
            append(at)
            at = end
    except (IndexError, too_short):
        pass
    return places, at


def _past_pair(data: bytes, at: int) -> int:
    length = data[at]
    at = at + 1 + length if length < 64 else past_string(data, at)
    length = data[at]
    return at + 1 + length if length < 64 else past_string(data, at)


def _past_scored(data: bytes, at: int) -> int:
    return past_string(data, at) + _SCORE_BYTES


def _past_node(data: bytes, at: int) -> int:
    return past_string(data, at + 1)


def _pairs(data: bytes, places: Ints) -> Columns:
    array = np.frombuffer(data + PADDING, np.uint8)
    names = strings_at(array, places)
    both = np.stack([places, names.ends], axis=1).ravel()
    pieces, chosen = pieces_of(array, strings_at(array, both))
    return pieces.take(pa.array(chosen[::2])), pieces.take(pa.array(chosen[1::2]))


def _members(data: bytes, places: Ints) -> Columns:
    array = np.frombuffer(data + PADDING, np.uint8)
    pieces, chosen = pieces_of(array, strings_at(array, places))
    return pieces.take(pa.array(chosen)), None


def _scored(data: bytes, places: Ints) -> Columns:
    items = TableReader(data, np.frombuffer(data + PADDING, np.uint8)).scored_at(places)
    return items.pieces.take(pa.array(items.chosen[::2])), items.pieces.take(pa.array(items.chosen[1::2]))


def _nodes(data: bytes, places: Ints) -> Columns:
    items = TableReader(data, np.frombuffer(data + PADDING, np.uint8)).nodes_at(places)
    return items.pieces.take(pa.array(items.chosen)), None


_AHEAD: dict[Kind, Callable[[bytes, int], int]] = {
    Kind.HASH: _past_pair,
    Kind.SET: past_string,
    Kind.ZSET: _past_scored,
    Kind.LIST: _past_node,
}
"""How to pass over an element, or a node of several."""

_TAKE: dict[Kind, Callable[[bytes, Ints], Columns]] = {
    Kind.HASH: _pairs,
    Kind.SET: _members,
    Kind.ZSET: _scored,
    Kind.LIST: _nodes,
}
"""How to take them."""


class Filled:
    """Bytes of a known size that are put together from pieces, and copied once.

    Args:
        size: How many they are.
    """

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0
        # a BytesIO hands out its buffer as bytes without a copy
        self._holder = BytesIO(bytes(size))

    @property
    def left(self) -> int:
        """How many bytes are missing."""
        return self._size - self._at

    def add(self, piece: bytes | memoryview) -> None:
        """Take the next bytes, no more than are missing."""
        with self._holder.getbuffer() as room:
            room[self._at : self._at + len(piece)] = piece
        self._at += len(piece)

    def value(self) -> bytes:
        """Return all of them."""
        return self._holder.getvalue()
