"""Decompressing LZF, many strings at once, by rewriting what they are made of as one text of Snappy.

Both formats are literals and copies of what came before, and literals are even of the same size: LZF writes their
length, less one, in one byte, and Snappy four times that. So only where these are has to be found out here; the
copying is done in C. What is checked here is that no string copies from the one before it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from blocks.sources.redis.grouping import Bytes, Ints, Mask, before, cut, offsets, slices, texts_between, within
from blocks.sources.redis.rdb.layout import PADDING, damaged
from blocks.sources.redis.rdb.walk import walked

_LITERALS = 0x20
"""What begins with less is a literal."""
_LONG = 0xE0
"""What begins with this or more is a copy with its length in a byte of its own."""
_MOST_COPIED = 64
"""What one copy of Snappy copies at most."""
# how far it is to what follows, by the first byte
_AHEAD = np.array([n + 2 if n < _LITERALS else 3 if n >= _LONG else 2 for n in range(256)], np.int64)


def decompressed(data: Bytes, begins: Ints, sizes: Ints, texts: Ints) -> pa.LargeBinaryArray:
    """Decompress strings that follow each other.

    Args:
        data: Where they are.
        begins: Where each begins.
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
    first = data[places].astype(np.int64)
    literal = first < _LITERALS
    long = first >= _LONG
    lengths = np.where(literal, first + 1, np.where(long, data[places + 1].astype(np.int64) + 9, (first >> 5) + 2))
    written = np.append(before(lengths), lengths.sum())
    bounds = written[np.append(before(counts), len(places))]
    if (np.diff(bounds) != texts).any():
        raise damaged("a compressed string has another length than was said")
    if not bounds[-1]:
        return texts_between(bounds, pa.py_buffer(b""))
    copies = np.flatnonzero(~literal)
    at = places[copies]
    distances = ((first[copies] & 0x1F) << 8 | data[at + 1 + long[copies]]) + 1
    if (distances > written[copies] - np.repeat(bounds[:-1], counts)[copies]).any():
        raise damaged("a compressed string refers to what was before it")
    body = _snappy(data, places, first, literal, lengths, distances)
    whole = pa.decompress(_varint(int(bounds[-1])) + body, int(bounds[-1]), codec="snappy")
    return texts_between(bounds, whole)


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


def _ahead(data: Bytes, at: Ints) -> Ints:
    ahead: Ints = _AHEAD[data[at]]
    return ahead


def _one_ahead(data: Bytes, at: int) -> int:
    return int(_AHEAD[data[at]])


def _snappy(data: Bytes, places: Ints, first: Ints, literal: Mask, lengths: Ints, distances: Ints) -> bytes:
    """Write literals and copies as Snappy does, in their order; changes the data."""
    copied = lengths[~literal]
    repeats = -(-copied // _MOST_COPIED)
    some = np.full(int(repeats.sum()), _MOST_COPIED, np.int64)
    some[np.cumsum(repeats) - 1] = copied - (repeats - 1) * _MOST_COPIED
    far = np.repeat(distances, repeats)
    copies = np.stack([(some - 1) << 2 | 2, far & 0xFF, far >> 8], axis=1).astype(np.uint8)
    data[places[literal]] = first[literal] << 2
    literals = cut(pa.py_buffer(data), places[literal], places[literal] + 1 + lengths[literal])
    pieces = pa.concat_arrays([literals, texts_between(np.arange(0, copies.size + 1, 3), pa.py_buffer(copies))])
    parts = np.ones(len(places), np.int64)
    parts[~literal] = repeats
    chosen = np.empty(int(parts.sum()), np.int64)
    begins = before(parts)
    chosen[begins[literal]] = np.arange(0, 2 * int(literal.sum()), 2)
    chosen[within(begins[~literal], repeats)] = len(literals) + np.arange(len(some))
    taken = pieces.take(pa.array(chosen))
    return bytes(taken.buffers()[2])


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
