"""Strings of an RDB, many at once: where they stand, and their texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.layout import INT_BYTES, LZF, WORD_32, WORD_64, damaged
from blocks.sources.redis.rdb.lzf import decompressed
from blocks.sources.redis.read.grouping import Bytes, Ints, Mask, cut, slices

_INT_SIZES = np.array([*INT_BYTES, *[0] * 61], np.int64)


@dataclass(frozen=True)
class Strings:
    """Where strings stand.

    Attributes:
        starts: Where each begins, with what is said of it.
        begins: Where the bytes of each begin, as they are kept.
        sizes: How many these are.
        texts: How long each text is; of an integer it is not known, and at most 11.
        integers: Which are integers in so many bytes.
        compressed: Which are compressed.
    """

    starts: Ints
    begins: Ints
    sizes: Ints
    texts: Ints
    integers: Mask
    compressed: Mask

    @property
    def ends(self) -> Ints:
        """Where the next thing begins."""
        return self.begins + self.sizes

    def some(self, chosen: Mask | Ints) -> Strings:
        """Return some of them, by where they are or by a mask."""
        return Strings(
            self.starts[chosen],
            self.begins[chosen],
            self.sizes[chosen],
            self.texts[chosen],
            self.integers[chosen],
            self.compressed[chosen],
        )


def strings_at(data: Bytes, at: Ints) -> Strings:
    """Find strings by where they begin, all of which lie inside the data."""
    first = data[at].astype(np.int64)
    begins, sizes = at + 1, first & 0x3F
    texts, integers, compressed = sizes, np.zeros(len(at), np.bool_), np.zeros(len(at), np.bool_)
    long = np.flatnonzero(first >= 0x40)
    if len(long):
        plain = long[first[long] < 0xC0]
        sizes[plain], begins[plain] = lengths_at(data, at[plain])
        special = long[first[long] >= 0xC0]
        form = first[special] & 0x3F
        integers[special], compressed[special] = form < LZF, form == LZF
        sizes[special] = _INT_SIZES[form]
        packed = special[form == LZF]
        sizes[packed], after = lengths_at(data, at[packed] + 1)
        texts = sizes.copy()
        texts[integers] = 11
        texts[packed], begins[packed] = lengths_at(data, after)
    return Strings(at, begins, sizes, texts, integers, compressed)


def lengths_at(data: Bytes, at: Ints) -> tuple[Ints, Ints]:
    """Read numbers; returns them, and the positions after."""
    first = data[at].astype(np.int64)
    values, after = first & 0x3F, at + 1
    two = np.flatnonzero((first >= 0x40) & (first < 0x80))
    if len(two):
        values[two] = values[two] << 8 | data[at[two] + 1]
        after[two] += 1
    for form, size in ((WORD_32, 4), (WORD_64, 8)):
        chosen = np.flatnonzero(first == form)
        if len(chosen):
            words = np.ndarray((len(data) - size + 1,), f">u{size}", data.data, 0, (1,))
            values[chosen] = words[at[chosen] + 1].astype(np.int64)
            after[chosen] += size
    if (values < 0).any():
        raise damaged("a length of over 2^63")
    return values, after


def texts_of(data: Bytes, strings: Strings) -> pa.LargeBinaryArray:
    """Return the texts of strings that follow each other."""
    if not (strings.integers.any() or strings.compressed.any()):
        return slices(pa.py_buffer(data), strings.begins, strings.ends)
    pieces, chosen = pieces_of(data, strings)
    return pieces.take(pa.array(chosen))


def pieces_of(data: Bytes, strings: Strings) -> tuple[pa.LargeBinaryArray, Ints]:
    """Return an array in which the texts of strings that follow each other are, and where each is."""
    pieces = cut(pa.py_buffer(data), strings.begins, strings.ends)
    chosen = np.arange(0, 2 * len(strings.begins), 2)
    if not (strings.integers.any() or strings.compressed.any()):
        return pieces, chosen
    integers = int_texts(signed_at(data, strings.begins[strings.integers], strings.sizes[strings.integers]))
    unpacked = unpacked_texts(data, strings.some(strings.compressed))
    chosen[strings.integers] = len(pieces) + np.arange(len(integers))
    chosen[strings.compressed] = len(pieces) + len(integers) + np.arange(len(unpacked))
    return pa.concat_arrays([pieces, integers, unpacked]), chosen


def unpacked_texts(data: Bytes, strings: Strings) -> pa.LargeBinaryArray:
    """Return the texts of strings that are all compressed."""
    return decompressed(data, strings.begins, strings.sizes, strings.texts)


def signed_at(data: Bytes, at: Ints, sizes: Ints) -> Ints:
    """Read signed integers of one to eight bytes, the lowest byte first; PADDING follows the data."""
    words = np.ndarray((len(data) - 7,), "<i8", data.data, 0, (1,))
    unused = 64 - 8 * sizes
    values: Ints = words[at] << unused >> unused
    return values


def int_texts(values: Ints) -> pa.LargeBinaryArray:
    """Write integers as text."""
    return pa.array(values).cast(pa.large_string()).cast(pa.large_binary())
