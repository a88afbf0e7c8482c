"""Listpacks and intsets, in which servers keep small containers: the items of many, as pieces of one array."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.items import PAD, Items
from blocks.sources.redis.rdb.layout import damaged
from blocks.sources.redis.rdb.strings import int_texts, signed_at
from blocks.sources.redis.rdb.walk import walked
from blocks.sources.redis.read.grouping import Bytes, Ints, before, cut

_HEADER_BYTES = 6
_END = 0xFF
_UNCOUNTED = 0xFFFF
"""Stands for a number of entries of at least so many."""
_INTSET_HEADER_BYTES = 8

_SMALL_INT, _STRING_6, _INT_13, _STRING_12, _STRING_32, _INT_16, _INT_64 = 0, 0x80, 0xC0, 0xE0, 0xF0, 0xF1, 0xF4
_INT_SIZES = (2, 3, 4, 8)
_INVALID = 1 << 40
"""Further than any value is long."""
_TAIL_LIMITS = (128, 16_383, 2_097_151, 268_435_455)
"""What follows an entry for reading backwards is one byte longer from each of these sizes on."""


def _sizes() -> Ints:
    """Return how long an entry is, without what follows it, by its first byte; 0 where that alone does not tell."""
    sizes = np.full(256, _INVALID, np.int64)
    sizes[_SMALL_INT:_STRING_6] = 1
    sizes[_STRING_6:_INT_13] = 1 + np.arange(64)
    sizes[_INT_13:_STRING_12] = 2
    sizes[_STRING_12 : _STRING_32 + 1] = 0
    sizes[_INT_16 : _INT_64 + 1] = [1 + size for size in _INT_SIZES]
    return sizes


_SIZES = _sizes()
_AHEAD = np.where(_SIZES > 0, _SIZES + 1, 0)


def listpack_items(data: Bytes, begins: Ints, ends: Ints) -> Items:
    """Take the entries of listpacks.

    Args:
        data: Where they are, with PADDING after the last.
        begins: Offset in the data where each begins, in bytes.
        ends: Offset in the data where each ends, in bytes.

    Raises:
        SourceUnavailable: One is damaged.
    """
    headers = np.ndarray((len(data) - 7,), "<u8", data.data, 0, (1,))[begins]
    last = ends - 1
    whole = (ends - begins > _HEADER_BYTES) & ((headers & 0xFFFFFFFF).astype(np.int64) == ends - begins)
    if not whole.all() or (data[last] != _END).any():
        raise damaged("a listpack is of another size than was said")
    places, counts = walked(data, begins + _HEADER_BYTES, last, _ahead, _one_ahead)
    said = (headers >> 32 & 0xFFFF).astype(np.int64)
    if ((said != counts) & (said != _UNCOUNTED)).any():
        raise damaged("a listpack has another number of entries than was said")
    return _pieces(data, places, counts)


def intset_items(data: Bytes, begins: Ints, ends: Ints) -> Items:
    """Take the integers of intsets; see `listpack_items`."""
    headers = np.ndarray((len(data) - 7,), "<u8", data.data, 0, (1,))[begins]
    widths, counts = ((headers >> shift & 0xFFFFFFFF).astype(np.int64) for shift in (0, 32))
    if not np.isin(widths, (2, 4, 8)).all() or (ends - begins != _INTSET_HEADER_BYTES + widths * counts).any():
        raise damaged("a set of integers is of another size than was said")
    at = np.repeat(begins + _INTSET_HEADER_BYTES - widths * before(counts), counts)
    sizes = np.repeat(widths, counts)
    at += sizes * np.arange(len(at))
    return Items(pa.concat_arrays([int_texts(signed_at(data, at, sizes)), PAD]), np.arange(len(at)), counts)


def _ahead(data: Bytes, at: Ints) -> Ints:
    first = data[at]
    ahead: Ints = _AHEAD[first]
    if not ahead.all():
        rest = np.flatnonzero(ahead == 0)
        begins, sizes = _long_strings(data, at[rest], first[rest])
        sizes += begins - at[rest]
        ahead[rest] = sizes + 1 + np.searchsorted(_TAIL_LIMITS, sizes, side="right")
    return ahead


def _one_ahead(data: Bytes, at: int) -> int:
    found = int(_AHEAD[data[at]])
    return found or int(_ahead(data, np.array([at]))[0])


def _long_strings(data: Bytes, at: Ints, first: Bytes) -> tuple[Ints, Ints]:
    """Return of strings with lengths of 12 and 32 bits where they begin and their sizes."""
    wide = first == _STRING_32
    words = np.ndarray((len(data) - 3,), "<u4", data.data, 0, (1,))
    short = (first.astype(np.int64) & 0x0F) << 8 | data[at + 1]
    return at + np.where(wide, 5, 2), np.where(wide, words[at + 1], short)


def _pieces(data: Bytes, places: Ints, counts: Ints) -> Items:
    """Make pieces of entries: strings where they stand, and integers as text."""
    first = data[places]
    ints = (first < _STRING_6) | ((first >= _INT_13) & (first < _STRING_12)) | (first > _STRING_32)
    numbers = np.flatnonzero(ints)
    texts = np.flatnonzero(~ints)
    begins, sizes = places[texts] + 1, first[texts].astype(np.int64) & 0x3F
    long = np.flatnonzero(first[texts] >= _STRING_12)
    if len(long):
        begins[long], sizes[long] = _long_strings(data, places[texts[long]], first[texts[long]])
    pieces = cut(pa.py_buffer(data), begins, begins + sizes)
    chosen = np.empty(len(places), np.int64)
    chosen[texts] = np.arange(0, 2 * len(texts), 2)
    if len(numbers):
        chosen[numbers] = len(pieces) + np.arange(len(numbers))
        pieces = pa.concat_arrays([pieces, int_texts(_integers(data, places[numbers], first[numbers])), PAD])
    return Items(pieces, chosen, counts)


def _integers(data: Bytes, at: Ints, first: Bytes) -> Ints:
    sizes = np.where(first >= _INT_16, _SIZES[first] - 1, 1)
    values = np.where(first < _STRING_6, first.astype(np.int64), signed_at(data, at + 1, sizes))
    middle = np.flatnonzero((first >= _INT_13) & (first < _STRING_12))
    # 13 bits of which the highest is the sign
    values[middle] = ((first[middle].astype(np.int64) & 0x1F) << 8 | data[at[middle] + 1]) << 51 >> 51
    return values
