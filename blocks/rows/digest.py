"""Keyed 64-bit digests of rows, computed column by column.

The digest shows whether the row of one key changed, so only two digests of the same key are ever compared. A universal
hash under a secret key is the right tool: MULTILINEAR of Lemire and Kaser, "Strongly universal string hashing is
fast" (The Computer Journal 57/11, 2014), in two independent lanes. Two different rows agree in both lanes with a
probability of at most 2^-64 over the choice of the key.

A value becomes 32-bit words; word 0 is its type:

    1                            NULL
    2, value                     boolean
    3, low, high                 integer
    4, low, high                 float (the bits, so -0.0 is not 0.0)
    5/6/7, low, high             timestamp, date, time
    8, scale, 8 words            decimal, unscaled 256-bit value, least significant word first
    9, length, words             text up to 512 bytes, little-endian words, the last one padded with zeros
    10, length, 4 words          longer text: the first 16 bytes of SHA-256(digest key, value)
    11, 12                       binary, likewise; 13, 14: text that is not UTF-8, likewise

A variant column takes the words of each value's own type. Word i of column c is multiplied with two 64-bit keys,
numbers 2i and 2i+1 of the little-endian stream SHAKE-256(digest key, c in UTF-8). The products of all words of all
columns are summed modulo 2^64 in each lane; the digest is the upper half of the first sum, then the upper half of
the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import UnsupportedState
from blocks.rows.keys import variant_kinds
from blocks.rows.variant import is_variant

SHORT_BYTES = 512
"""Longer values enter by their SHA-256."""

_WORDS = 2 + SHORT_BYTES // 4
_BLOCK_ROWS = 1 << 16
_SAMPLE, _REPEATED = 256, 4
"""Values looked at, and how often each comes in them on average where a column is taken for one that repeats itself."""
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""By the number of bytes that are left of a value: those bits of a word that belong to it."""
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

Words = npt.NDArray[np.uint64]


class RowDigest:
    """Digests rows under one secret key.

    Args:
        key: 32 secret bytes.
        bits: 64, or 32 for digests of which only the upper half counts; the lower half is 0.
    """

    def __init__(self, key: bytes, bits: int = 64) -> None:
        self._key, self._lanes = key, bits // 32

    def __call__(self, rows: pa.Table) -> pa.UInt64Array:
        """Digest canonical rows: one unsigned 64-bit number per row, over all columns by name."""
        lanes = np.zeros((self._lanes, rows.num_rows), np.uint64)
        for field in rows.schema:
            keys = self._stream(field.name)
            start = 0
            for chunk in rows.column(field.name).chunks:
                # blocks keep the intermediate vectors in the processor's cache
                for offset in range(0, len(chunk), _BLOCK_ROWS):
                    piece = chunk.slice(offset, _BLOCK_ROWS)
                    self._add(lanes[:, start : start + len(piece)], piece, field, keys)
                    start += len(piece)
        upper = (lanes[0] >> _32) << _32
        return pa.array(upper | lanes[1] >> _32 if self._lanes > 1 else upper)

    def _stream(self, column: str) -> Words:
        raw = hashlib.shake_256(self._key + column.encode()).digest(16 * _WORDS)
        return np.frombuffer(raw, "<u8").reshape(_WORDS, 2).T[: self._lanes].astype(np.uint64)

    def _add(self, lanes: Words, column: pa.Array, field: pa.Field, keys: Words) -> None:
        if is_variant(field):
            self._add_variant(lanes, column, keys)
            return
        if pa.types.is_null(column.type) or column.null_count == len(column):
            lanes += keys[:, :1]
            return
        present = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
        if present is not None and (pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)):
            # leaving the NULLs out would copy the values, which may be large
            sums = np.zeros((len(keys), len(column)), np.uint64)
            self._add_present(sums, column, keys)
            lanes += np.where(present, sums, keys[:, :1])
            return
        values = column if present is None else column.drop_null()
        sums = np.zeros((len(keys), len(values)), np.uint64)
        self._add_present(sums, values, keys)
        if present is None:
            lanes += sums
        else:
            lanes[:, present] += sums
            lanes[:, ~present] += keys[:, :1]

    def _add_variant(self, lanes: Words, column: pa.Array, keys: Words) -> None:
        nulls = column.is_null().to_numpy(zero_copy_only=False)
        lanes[:, nulls] += keys[:, :1]
        for tag, (mask, values) in variant_kinds(column):
            sums = np.zeros((len(keys), len(values)), np.uint64)
            if tag == b"x":
                self._add_varlen(sums, values, keys, 13)
            else:
                self._add_present(sums, values, keys)
            lanes[:, mask.to_numpy(zero_copy_only=False)] += sums

    def _add_present(self, sums: Words, values: pa.Array, keys: Words) -> None:
        kind = values.type
        if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
            self._add_varlen(sums, values, keys, 9 if pa.types.is_large_string(kind) else 11)
        elif pa.types.is_decimal(kind):
            wide = values.cast(pa.decimal256(76, kind.scale))
            raw = np.frombuffer(wide.buffers()[1], np.uint32)[wide.offset * 8 : (wide.offset + len(wide)) * 8]
            _mul(sums, keys, 0, np.uint64(8))
            _mul(sums, keys, 1, np.uint64(kind.scale % 2**32))
            for n, word in enumerate(raw.reshape(-1, 8).T):
                _mul(sums, keys, 2 + n, word.astype(np.uint64))
        else:
            number, bits = _bits(values)
            _mul(sums, keys, 0, np.uint64(number))
            _mul(sums, keys, 1, bits & _LOW)
            if number != 2:
                _mul(sums, keys, 2, bits >> _32)

    def _add_varlen(self, sums: Words, values: pa.Array, keys: Words, number: int) -> None:
        if len(values) <= _SAMPLE or len(values.slice(0, _SAMPLE).unique()) > _SAMPLE // _REPEATED:
            self._add_each(sums, values, keys, number)
            return
        # a status, a symbol, a padded text: each value is digested once
        coded = values.dictionary_encode(null_encoding="encode")
        each = np.zeros((len(keys), len(coded.dictionary)), np.uint64)
        self._add_each(each, coded.dictionary, keys, number)
        sums += np.take(each, coded.indices.to_numpy(), axis=1)

    def _add_each(self, sums: Words, values: pa.Array, keys: Words, number: int) -> None:
        offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
        lengths = np.diff(offsets).astype(np.uint64)
        if values.null_count:  # what lies under a NULL is not its value
            lengths[values.is_null().to_numpy(zero_copy_only=False)] = 0
        long = lengths > SHORT_BYTES
        _mul(sums, keys, 0, np.where(long, np.uint64(number + 1), np.uint64(number)))
        _mul(sums, keys, 1, lengths & _LOW)
        data = values.buffers()[2]
        if data is None:
            return
        if long.any():
            view = memoryview(data)
            for row in np.flatnonzero(long):
                digest = hashlib.sha256(self._key)
                digest.update(view[offsets[row] : offsets[row + 1]])
                for n, word in enumerate(np.frombuffer(digest.digest()[:16], "<u4")):
                    sums[:, row] += keys[:, 2 + n] * np.uint64(word)
        short = np.flatnonzero(~long & (lengths > 0))
        _add_words(sums, keys, data, offsets[:-1][short], lengths[short], short)


def _add_words(
    sums: Words,
    keys: Words,
    data: pa.Buffer,
    starts: npt.NDArray[np.int64],
    lengths: Words,
    rows: npt.NDArray[np.int64],
) -> None:
    """Add the words of short values: one pass per eight bytes of length over the rows that reach that far."""
    if not len(rows) or not (longest := int(lengths.max())):
        return
    low, high = int(starts.min()), int((starts + lengths.astype(np.int64)).max())
    # eight spare bytes let the last value be read in whole words
    raw = np.frombuffer(data, np.uint8)[low : high + 8]
    if len(raw) < high - low + 8:
        raw = np.append(raw[: high - low], np.zeros(8, np.uint8))
    words = np.ndarray((high - low + 1,), "<u8", raw.data, strides=(1,))
    if len(rows) == sums.shape[1] and high - low == longest * len(rows):
        _add_equally_long(sums, keys, words, longest)
    else:
        _add_scattered(sums, keys, words, starts - low, lengths.astype(np.int64), rows)


def _add_equally_long(sums: Words, keys: Words, words: Words, length: int) -> None:
    """Add the words of values of one length, which stand at equal distances: nothing has to be looked up."""
    for done in range(0, length, 8):
        word = words[done::length][: sums.shape[1]].astype(np.uint64)
        word &= _MASKS[min(length - done, 8)]
        for lane, more in enumerate(_pair(word, keys, 2 + done // 4)):
            sums[lane] += more


def _add_scattered(
    sums: Words,
    keys: Words,
    words: Words,
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> None:
    """Add the words of values of any lengths, longest first: then those that reach a word are always the first few."""
    order = np.argsort((SHORT_BYTES - lengths).astype(np.int16), kind="stable")
    starts, lengths = starts[order], lengths[order]
    # how many values have more than so many bytes
    longer = np.cumsum(np.bincount(lengths, minlength=SHORT_BYTES + 9)[::-1])[::-1]
    found = np.zeros((len(keys), len(rows)), np.uint64)
    for done in range(0, int(lengths[0]), 8):
        reach, whole = longer[done + 1], longer[done + 8]
        word = words[starts[:reach] + done]
        word[whole:] &= _MASKS[lengths[whole:reach] - done]
        for lane, more in enumerate(_pair(word, keys, 2 + done // 4)):
            found[lane, :reach] += more
    sums[:, rows[order]] += found


def _pair(word: Words, keys: Words, n: int) -> Iterator[Words]:
    """Yield for each lane what words n and n + 1 add: the halves of eight bytes."""
    lower, upper = word & _LOW, word >> _32
    for lane in range(len(keys)):
        more = lower * keys[lane, n]
        # the last word of a longest value is the last there is a key for
        if n + 1 < _WORDS:
            more += upper * keys[lane, n + 1]
        yield more


def _mul(sums: Words, keys: Words, n: int, word: Words | np.uint64) -> None:
    with np.errstate(over="ignore"):
        for lane in range(len(keys)):
            sums[lane] += word * keys[lane, n]


def _bits(values: pa.Array) -> tuple[int, Words]:
    kind = values.type
    if pa.types.is_boolean(kind):
        return 2, values.cast(pa.uint64()).to_numpy(zero_copy_only=False)
    if pa.types.is_int64(kind):
        return 3, values.to_numpy().view(np.uint64)
    if pa.types.is_float64(kind):
        return 4, values.to_numpy().view(np.uint64)
    if pa.types.is_timestamp(kind):
        return 5, values.view(pa.int64()).to_numpy().view(np.uint64)
    if pa.types.is_date32(kind):
        return 6, values.view(pa.int32()).cast(pa.int64()).to_numpy().view(np.uint64)
    if pa.types.is_time64(kind):
        return 7, values.view(pa.int64()).to_numpy().view(np.uint64)
    raise UnsupportedState(f"rows of type {kind} have no canonical form")
