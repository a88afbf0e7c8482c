"""Decompressing LZF, many strings at once, by rewriting what they are made of as one text of Snappy.

Both formats are literals and copies of what came before, and literals are even of the same size: LZF writes their
length, less one, in one byte, and Snappy four times that. So only where these are has to be found out here; the
copying is done in C. What is checked here is that no string copies from the one before it.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.layout import PADDING, damaged
from blocks.sources.redis.rdb.walk import walked
from blocks.sources.redis.read.grouping import Bytes, Ints, cut, offsets, slices, texts_between

_LITERALS = 0x20
"""What begins with less is a literal."""
_LONG = 0xE0
"""What begins with this or more is a copy with its length in a byte of its own."""
_MOST_COPIED = 64
"""What one copy of Snappy copies at most."""
_COPY_BYTES = 3
_WINDOW_BYTES = 1 << 13
_PIECE_BYTES = 1 << 20
# how many bytes each writes, but for long copies, of which that is only a part
_LENGTHS = np.array([n + 1 if n < _LITERALS else 9 if n >= _LONG else (n >> 5) + 2 for n in range(256)], np.int64)
# how far it is to what follows, by the first byte
_AHEAD = np.array([n + 2 if n < _LITERALS else 3 if n >= _LONG else 2 for n in range(256)], np.int64)


def decompressed(data: Bytes, begins: Ints, sizes: Ints, texts: Ints) -> pa.LargeBinaryArray:
    """Decompress strings that follow each other.

    Args:
        data: The bytes that hold them.
        begins: Offset in the data where each begins, in bytes.
        sizes: How many bytes each is.
        texts: How many each is decompressed.

    Raises:
        SourceUnavailable: One is damaged.
    """
    if not len(begins):
        return pa.array([], pa.large_binary())
    # nothing but them, so that no more has to be copied than is changed
    own = slices(pa.py_buffer(data), begins, begins + sizes)
    data, bounds = np.frombuffer(bytearray(own.buffers()[2]) + PADDING, np.uint8), offsets(own)
    places, counts = walked(data, bounds[:-1], bounds[1:], _ahead, _one_ahead)
    first, second = data[places], data[places + 1]
    lengths = _LENGTHS[first]
    long = np.flatnonzero(first >= _LONG)
    lengths[long] += second[long]
    written = np.append(0, np.cumsum(lengths))
    ends = written[np.append(0, np.cumsum(counts))]
    if (np.diff(ends) != texts).any():
        raise damaged("a compressed string has another length than was said")
    if not ends[-1]:
        return texts_between(ends, pa.py_buffer(b""))
    second[long] = data[places[long] + 2]
    copies = np.flatnonzero(first >= _LITERALS)
    distances = (first[copies] & np.uint8(0x1F)).astype(np.int64) << 8 | second[copies]
    if (distances >= written[copies] - np.repeat(ends[:-1], counts)[copies]).any():
        raise damaged("a compressed string refers to what was before it")
    body = _snappy(data, places, copies, lengths, distances + 1)
    whole = pa.decompress(_varint(int(ends[-1])) + body, int(ends[-1]), codec="snappy")
    return texts_between(ends, whole)


def decompressed_one(packed: bytes, text_bytes: int) -> bytes:
    """Decompress one string, which is faster than to do so with many where it is short.

    Args:
        packed: What it is.
        text_bytes: How many bytes it has decompressed.

    Raises:
        SourceUnavailable: It is damaged.
    """
    made, at = bytearray(), 0
    while at < len(packed) and len(made) <= text_bytes:
        first = packed[at]
        if first < _LITERALS:
            made += packed[at + 1 : at + first + 2]
            at += first + 2
            continue
        tail = packed[at + 1 : at + 3]
        long = first >= _LONG
        if len(tail) < 1 + long:
            break
        length, distance = (tail[0] + 9 if long else (first >> 5) + 2), ((first & 0x1F) << 8 | tail[long]) + 1
        if distance > len(made):
            raise damaged("a compressed string refers to what was before it")
        copied = bytes(made[-distance:][:length])
        made += copied if len(copied) == length else (copied * (length // distance + 1))[:length]
        at += 3 if long else 2
    if at != len(packed) or len(made) != text_bytes:
        raise damaged("a compressed string has another length than was said")
    return bytes(made)


def decompressed_long(packed: bytes, text_bytes: int) -> bytes:
    """Decompress one long string piece by piece, so that it takes little more room than its own.

    Args:
        packed: What it is.
        text_bytes: How many bytes it has decompressed.

    Raises:
        SourceUnavailable: It is damaged.
    """
    holder, at, written = BytesIO(bytes(text_bytes)), 0, 0
    while at < len(packed):
        end, size = _tokens(packed, at, min(len(packed), at + _PIECE_BYTES))
        with holder.getbuffer() as room:
            # copies go back no farther than this, which therefore stands before each piece, as literals
            window = bytes(room[max(0, written - _WINDOW_BYTES) : written])
            piece = _literals(window) + packed[at:end]
            bounds = np.zeros(1, np.int64), np.array([len(piece)]), np.array([len(window) + size])
            if written + size > text_bytes:
                raise damaged("a compressed string has another length than was said")
            text = decompressed(np.frombuffer(piece, np.uint8), *bounds).buffers()[2]
            room[written : written + size] = memoryview(text).cast("B")[len(window) :]
        at, written = end, written + size
    if written != text_bytes:
        raise damaged("a compressed string has another length than was said")
    return holder.getvalue()


def _tokens(packed: bytes, at: int, upto: int) -> tuple[int, int]:
    """Pass over literals and copies up to a position; returns where the next begins, and how much they write."""
    size = 0
    try:
        while at < upto:
            first = packed[at]
            size += first + 1 if first < _LITERALS else 9 + packed[at + 1] if first >= _LONG else (first >> 5) + 2
            at += first + 2 if first < _LITERALS else 3 if first >= _LONG else 2
    except IndexError as exc:
        raise damaged("a compressed string ends too early") from exc
    return at, size


def _literals(text: bytes) -> bytes:
    pieces = (text[start : start + _LITERALS] for start in range(0, len(text), _LITERALS))
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


def _ahead(data: Bytes, at: Ints) -> Ints:
    ahead: Ints = _AHEAD[data[at]]
    return ahead


def _one_ahead(data: Bytes, at: int) -> int:
    return int(_AHEAD[data[at]])


def _snappy(data: Bytes, places: Ints, copies: Ints, lengths: Ints, distances: Ints) -> bytes:
    """Write literals and copies as Snappy does, in their order; changes the data.

    Args:
        data: The bytes that hold them.
        places: Where each is.
        copies: Which of them are copies.
        lengths: How many bytes each writes.
        distances: From how far back each copy copies.
    """
    literal = np.ones(len(places), np.bool_)
    literal[copies] = False
    literals = np.flatnonzero(literal)
    at = places[literals]
    data[at] <<= 2
    pieces = cut(pa.py_buffer(data), at, at + 1 + lengths[literals])
    copied = lengths[copies]
    chosen = np.empty(len(places), np.int64)
    chosen[literals] = np.arange(0, 2 * len(literals), 2)
    chosen[copies] = len(pieces) + np.arange(len(copies))
    if len(copied) and copied.max() > _MOST_COPIED:
        # such a copy is several of Snappy
        repeats = -(-copied // _MOST_COPIED)
        parts = np.ones(len(places), np.int64)
        parts[copies] = repeats
        numbers = len(pieces) + np.arange(int(repeats.sum()))
        chosen = np.repeat(chosen, parts)
        chosen[np.repeat(~literal, parts)] = numbers
        some = np.full(len(numbers), _MOST_COPIED, np.int64)
        some[np.cumsum(repeats) - 1] = copied - (repeats - 1) * _MOST_COPIED
        copied, distances = some, np.repeat(distances, repeats)
    written = np.empty((len(copied), _COPY_BYTES), np.uint8)
    written[:, 0], written[:, 1], written[:, 2] = (copied - 1) << 2 | 2, distances & 0xFF, distances >> 8
    bounds = np.arange(0, written.size + 1, _COPY_BYTES)
    pieces = pa.concat_arrays([pieces, texts_between(bounds, pa.py_buffer(written))])
    return bytes(pieces.take(pa.array(chosen)).buffers()[2])


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
