"""Which keys a segment can hold: so that who looks for one record leaves out the segments that do not have it."""

from __future__ import annotations

import base64
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.records import KeyRange
from blocks.rows.canonical import KEY, escape
from blocks.rows.digest import RowDigest
from blocks.rows.parquet import KEY_BYTES
from blocks.rows.variant import is_variant
from blocks.rows.wanted import WantedKeys

FILTER_BITS = 10
"""Bits of a Bloom filter for each key: with 7 functions it lets 0.8 % of the other keys pass."""
MOST_FILTER_BYTES = 4096
"""Where there are more keys a filter has fewer bits for each, and lets more others pass; at last there is none."""
_FEWEST_BITS = 2
_MOST_FUNCTIONS = 7
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)

KINDS = {
    "i": pa.types.is_int64,
    "f": pa.types.is_float64,
    "t": pa.types.is_large_string,
    "b": pa.types.is_large_binary,
    "n": pa.types.is_null,
}
"""Letters of the types that a key column can have; `o` stands for any other one."""


def key_range(rows: pa.Table, keys: pa.LargeBinaryArray, key: tuple[str, ...], digest: RowDigest | None) -> KeyRange:
    """Describe the keys of a segment.

    Args:
        rows: Its rows: `_key` (large_binary; set for tombstones only) and the canonical columns.
        keys: The `_key` of each, ascending; one at least.
        key: Names of the key columns.
        digest: Computes the hashes of a filter, in 64 bits; None where none is wanted.
    """
    return KeyRange(
        first=_text(keys[0].as_py()[:KEY_BYTES]),
        last=_text(keys[-1].as_py()[:KEY_BYTES]),
        kinds=tuple(_kinds(rows, escape(name)) for name in key),
        filter=None if digest is None else _filter(keys, digest),
    )


def near(range_: KeyRange, wanted: WantedKeys, digest: RowDigest) -> WantedKeys:
    """Return what a segment can hold of the `_key`s that are looked for.

    Raises:
        CorruptionDetected: The range is not one.
    """
    try:
        first, last = (base64.b64decode(text, validate=True) for text in (range_.first, range_.last))
        found = wanted.near(
            lambda low, high: (first <= high[:KEY_BYTES] and low[:KEY_BYTES] <= last) or low.startswith(first)
        )
        if range_.filter is None or not found.keys:
            return found
        keys = sorted(found.keys)
        passing = _passing(_checked_filter(range_.filter), pa.array(keys, pa.large_binary()), digest)
        return found.without(key for key, passes in zip(keys, passing, strict=True) if not passes)
    except ValueError as exc:
        raise CorruptionDetected(
            f"a segment has no range of keys that can be read: {exc}",
            hint="The manifest was not made by lastgood. Do not trust this backup.",
        ) from exc


def check_range(
    range_: KeyRange, keys: pa.LargeBinaryArray, rows: pa.Table, key: tuple[str, ...], digest: RowDigest, what: str
) -> None:
    """Check that a range leaves out none of the keys that a segment has.

    Args:
        range_: What the manifest says.
        keys: The `_key` of each row.
        rows: The segment: `_key` (large_binary; set for tombstones only) and the canonical columns.
        key: Names of the key columns.
        digest: Computes the hashes of a filter, in 64 bits.
        what: Names the segment.

    Raises:
        CorruptionDetected: It does, or is not one.
    """
    if not len(keys):
        return
    right = key_range(rows, keys, key, None)
    kinds = zip(range_.kinds, right.kinds, strict=False)
    wrong = (range_.first, range_.last) != (right.first, right.last) or len(range_.kinds) != len(right.kinds)
    if wrong or any(set(has) - set(says) for says, has in kinds) or not _all_pass(range_, keys, digest):
        raise CorruptionDetected(
            f"{what}: the manifest leaves out keys that it holds",
            hint="Restore an earlier backup.",
        )


def _all_pass(range_: KeyRange, keys: pa.LargeBinaryArray, digest: RowDigest) -> bool:
    if range_.filter is None:
        return True
    try:
        data = _checked_filter(range_.filter)
    except ValueError:
        return False
    return bool(_passing(data, keys, digest).all())


def _kinds(rows: pa.Table, name: str) -> str:
    """Return the letters of the types that a key column has in a segment, in order."""
    column, field = rows.column(name), rows.schema.field(name)
    if is_variant(field):
        letters = {_VARIANT.get(tag, "o") for tag in _first_bytes(column)}
    else:
        letters = {next((letter for letter, fits in KINDS.items() if fits(field.type)), "o")}
    # a tombstone has NULL in all of its columns; its type is that of the row that is gone, which is described below it
    nulls = column.null_count > rows.num_rows - rows.column(KEY).null_count
    return "".join(sorted({*letters, *("n" if nulls else "")}))


_VARIANT = {b"i": "i", b"f": "f", b"t": "t", b"b": "b"}


def _first_bytes(column: pa.ChunkedArray) -> list[bytes]:
    return list(pc.unique(pc.binary_slice(column.drop_null(), 0, 1)).to_pylist())


def _filter(keys: pa.LargeBinaryArray, digest: RowDigest) -> str | None:
    count = len(keys)
    size = min(-(-count * FILTER_BITS // 8), MOST_FILTER_BYTES)
    if size * 8 < count * _FEWEST_BITS:
        return None
    functions = min(max(round(size * 8 / count * math.log(2)), 1), _MOST_FUNCTIONS)
    bits = np.zeros(size * 8, np.bool_)
    for places in _places(_hashes(keys, digest), functions, size * 8):
        bits[places] = True
    return _text(bytes((functions,)) + np.packbits(bits, bitorder="little").tobytes())


def _checked_filter(text: str) -> bytes:
    """Return a filter: the number of its functions in one byte, and its bits.

    Raises:
        ValueError: It is none.
    """
    data = base64.b64decode(text, validate=True)
    if not 2 <= len(data) <= 1 + MOST_FILTER_BYTES or not 1 <= data[0] <= _MOST_FUNCTIONS:
        raise ValueError("its filter is none")
    return data


def _passing(data: bytes, keys: pa.LargeBinaryArray, digest: RowDigest) -> npt.NDArray[np.bool_]:
    """Return which keys a filter lets pass."""
    bits = np.unpackbits(np.frombuffer(data[1:], np.uint8), bitorder="little").astype(np.bool_)
    passing = np.ones(len(keys), np.bool_)
    for places in _places(_hashes(keys, digest), data[0], len(bits)):
        passing &= bits[places]
    return passing


def _hashes(keys: pa.LargeBinaryArray, digest: RowDigest) -> npt.NDArray[np.uint64]:
    return np.asarray(digest(pa.table({KEY: keys})), np.uint64)


def _places(hashes: npt.NDArray[np.uint64], functions: int, bits: int) -> list[npt.NDArray[np.uint64]]:
    """Return the bits of each key, by function: two halves of one hash serve for all of them."""
    upper, lower = hashes >> _32, hashes & _LOW | np.uint64(1)
    return [((upper + np.uint64(n) * lower & _LOW) * np.uint64(bits)) >> _32 for n in range(functions)]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
