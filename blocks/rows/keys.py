"""Order-preserving binary keys: comparing two `_key`s as bytes compares their key columns in order.

Each key column becomes one component, the components are joined. A component is a tag and a payload:

    05                                      NULL
    08 + 1 byte                             boolean
    10 + 8 bytes                            integer, big-endian, sign bit flipped
    12 + 8 bytes                            float, IEEE 754 big-endian; negative: all bits flipped, else the sign bit
    14/15/16 + 8 bytes                      timestamp (µs), date (days), time (µs), as integers
    18 + scale + 32 bytes                   decimal, unscaled value, big-endian, sign bit flipped
    20 + UTF-8 bytes                        text
    30 + bytes                              binary

Text and binary in any but the last component escape 00 as 00 FF and end with 00 01, so that a shorter value
sorts before a longer one that begins with it. A variant column takes the component of each value's own type.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import UnsupportedState
from blocks.rows.variant import is_variant

NULL = b"\x05"
_END = b"\x00\x01"
_BOOL, _INT, _FLOAT, _DECIMAL, _TEXT, _BINARY = 0x08, 0x10, 0x12, 0x18, 0x20, 0x30
_TIMESTAMP, _DATE, _TIME = 0x14, 0x15, 0x16
_SIGN = np.uint64(1 << 63)
_BATCH_ROWS = 1 << 18

Bytes = npt.NDArray[np.uint8]


def encode_keys(rows: pa.Table, key: Sequence[str]) -> pa.LargeBinaryArray:
    """Encode the key columns of canonical rows; one `_key` per row.

    Raises:
        UnsupportedState: A key column has a type that has no order-preserving encoding.
    """
    # some rows at a time: what is made on the way takes several times the room of the keys
    batches = rows.select(key).to_batches(_BATCH_ROWS)
    if len(batches) < 2:
        return _encoded(batches[0]) if batches else no_keys()
    # and each is put where it belongs at once: pieces that are put together at the end would be there twice
    data, bounds, count, end = np.empty(0, np.uint8), np.zeros(rows.num_rows + 1, np.int64), 0, 0
    for batch in batches:
        made = _encoded(batch)
        ends = np.frombuffer(made.buffers()[1], np.int64)[made.offset : made.offset + len(made) + 1]
        size, many = int(ends[-1] - ends[0]), count + len(made)
        if end + size > len(data):
            # for all rows, if they are like these; what is never written to takes no room
            larger = np.empty((end + size) * rows.num_rows // max(many, 1) * 9 // 8, np.uint8)
            larger[:end] = data[:end]
            data = larger
        data[end : end + size] = _data(made)[ends[0] : ends[-1]]
        bounds[count + 1 : many + 1] = ends[1:] - ends[0] + end
        count, end = many, end + size
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data[:end])]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, buffers)


def _encoded(columns: pa.RecordBatch) -> pa.LargeBinaryArray:
    last = columns.num_columns - 1
    parts = [
        _component(column, field, escaped=n != last)
        for n, (column, field) in enumerate(zip(columns.columns, columns.schema, strict=True))
    ]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))


def no_keys() -> pa.LargeBinaryArray:
    """Return no `_key`s at all."""
    return pa.array([], pa.large_binary())


def encode_parents(parents: pa.Array) -> pa.LargeBinaryArray:
    """Encode values of a first key column (text or binary) as the prefix that all keys below them share.

    Args:
        parents: Values of a first key column: large_string or large_binary, without NULLs.
    """
    column = parents.combine_chunks() if isinstance(parents, pa.ChunkedArray) else parents
    return _component(column, pa.field("parent", column.type), escaped=True)


def under_parents(keys: pa.LargeBinaryArray, parents: pa.Array) -> pa.BooleanArray:
    """Return which keys of two columns have one of `parents` (text or binary) as their first.

    Args:
        keys: `_key`s of two columns; large_binary.
        parents: Values of the first column: large_string or large_binary.
    """
    prefixes = encode_parents(parents)
    # a zero within a value is escaped, so the first end is that of the first column
    heads = pc.add(pc.find_substring(keys, pattern=_END), len(_END)).to_numpy().astype(np.int64)
    tails = pc.binary_length(keys).to_numpy() - heads
    # where the second column is NULL the whole key is known; to look for it is much faster than to cut keys
    alone = (tails == 1) & pc.ends_with(keys, pattern=NULL).to_numpy(zero_copy_only=False)
    found = np.zeros(len(keys), np.bool_)
    if alone.any():
        whole = pc.binary_join_element_wise(prefixes, _scalar(NULL), _scalar(b""))
        found |= pc.is_in(keys, whole).to_numpy(zero_copy_only=False)
    if not alone.all():
        others = pa.array(~alone)
        cut = _heads(keys.filter(others), heads[~alone], tails[~alone])
        found[~alone] = pc.is_in(cut, prefixes).to_numpy(zero_copy_only=False)
    return pa.array(found)


def beneath_folders(keys: pa.LargeBinaryArray, folders: pa.Array) -> pa.BooleanArray:
    """Return which keys of two columns have one of some paths, or one beneath it, as their first.

    Args:
        keys: `_key`s of two columns; large_binary.
        folders: Paths in the first column: large_string or large_binary.
    """
    found = under_parents(keys, folders)
    slash, nothing = pa.scalar("/", folders.type), pa.scalar("", folders.type)
    for prefix in encode_parents(pc.binary_join_element_wise(folders, slash, nothing)).to_pylist():
        found = pc.or_(found, pc.starts_with(keys, pattern=prefix.removesuffix(_END)))
    return found


def _heads(
    keys: pa.LargeBinaryArray, heads: npt.NDArray[np.int64], tails: npt.NDArray[np.int64]
) -> pa.LargeBinaryArray:
    """Cut values in two and return what comes first."""
    if (tails == tails[0]).all():
        return trimmed(keys, tail=int(tails[0]))
    starts = np.frombuffer(keys.buffers()[1], np.int64)[keys.offset : keys.offset + len(keys)]
    shorter = np.concatenate([np.zeros(1, np.int64), np.cumsum(heads)])
    # where each byte of the result comes from: its own place, moved by as much as its value is
    places = np.arange(shorter[-1]) + np.repeat(starts - shorter[:-1], heads)
    buffers = [None, pa.py_buffer(shorter), pa.py_buffer(_data(keys)[places])]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(keys), buffers)


def _scalar(value: bytes) -> pa.LargeBinaryScalar:
    return pa.scalar(value, pa.large_binary())


def _component(column: pa.Array, field: pa.Field, *, escaped: bool) -> pa.LargeBinaryArray:
    kind = column.type
    if is_variant(field):
        return _variant(column, escaped=escaped)
    if pa.types.is_null(kind) or column.null_count == len(column) > 0:
        return pa.repeat(pa.scalar(NULL, pa.large_binary()), len(column))
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        tag = _TEXT if pa.types.is_large_string(kind) else _BINARY
        made = _varlen(column.cast(pa.large_binary()), tag, escaped=escaped)
    else:
        made = _fixed(column, field)
    return pc.if_else(column.is_null(), pa.scalar(NULL, pa.large_binary()), made) if column.null_count else made


def _fixed(column: pa.Array, field: pa.Field) -> pa.LargeBinaryArray:
    kind = column.type
    # the encoding of a NULL's place is overwritten; any value will do
    filled = column.fill_null(column.drop_null()[0]) if column.null_count else column
    if pa.types.is_boolean(kind):
        return _tagged(_BOOL, filled.cast(pa.uint8()).to_numpy(zero_copy_only=False).reshape(-1, 1))
    if pa.types.is_int64(kind):
        return _integers(_INT, filled)
    if pa.types.is_float64(kind):
        bits = filled.to_numpy().view(np.uint64)
        ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
        return _tagged(_FLOAT, _big_endian(ordered))
    for test, tag in ((pa.types.is_timestamp, _TIMESTAMP), (pa.types.is_time64, _TIME)):
        if test(kind):
            return _integers(tag, filled.view(pa.int64()))
    if pa.types.is_date32(kind):
        return _integers(_DATE, filled.view(pa.int32()).cast(pa.int64()))
    if pa.types.is_decimal(kind):
        return _decimals(filled)
    raise UnsupportedState(f"key column {field.name!r} has type {kind}, which has no order-preserving encoding")


def _integers(tag: int, column: pa.Array) -> pa.LargeBinaryArray:
    return _tagged(tag, _big_endian(column.to_numpy().view(np.uint64) ^ _SIGN))


def _big_endian(values: npt.NDArray[np.uint64]) -> Bytes:
    return values.astype(">u8").view(np.uint8).reshape(-1, 8)


def _decimals(column: pa.Array) -> pa.LargeBinaryArray:
    wide = column.cast(pa.decimal256(76, column.type.scale))
    limbs = np.frombuffer(wide.buffers()[1], np.uint64)[wide.offset * 4 : (wide.offset + len(wide)) * 4]
    digits = limbs.reshape(-1, 4)[:, ::-1].copy()
    digits[:, 0] ^= _SIGN
    scale = np.full((len(wide), 1), column.type.scale % 256, np.uint8)
    return _tagged(_DECIMAL, np.hstack([scale, _big_endian(digits.reshape(-1)).reshape(-1, 32)]))


def _tagged(tag: int, payload: Bytes) -> pa.LargeBinaryArray:
    count, width = payload.shape
    out = np.empty((count, width + 1), np.uint8)
    out[:, 0] = tag
    out[:, 1:] = payload
    offsets = np.arange(count + 1, dtype=np.int64) * (width + 1)
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(out)])


def _varlen(column: pa.Array, tag: int, *, escaped: bool) -> pa.LargeBinaryArray:
    end = b""
    if escaped:
        column, end = pc.replace_substring(column, pattern=b"\x00", replacement=b"\x00\xff"), _END
    head, tail = pa.scalar(bytes([tag]), pa.large_binary()), pa.scalar(end, pa.large_binary())
    return pc.binary_join_element_wise(head, column, tail, pa.scalar(b"", pa.large_binary()))


def _variant(column: pa.Array, *, escaped: bool) -> pa.LargeBinaryArray:
    out = pa.nulls(len(column), pa.large_binary())
    for tag, kind in variant_kinds(column):
        mask, values = kind
        made = _component(values, pa.field("key", values.type), escaped=escaped)
        if tag == b"x":
            made = _varlen(values, _TEXT, escaped=escaped)
        out = pc.replace_with_mask(out, mask, made)
    return pc.fill_null(out, pa.scalar(NULL, pa.large_binary()))


def variant_kinds(column: pa.Array) -> list[tuple[bytes, tuple[pa.BooleanArray, pa.Array]]]:
    """Split a variant column by the type of its values: for each tag the rows' mask and the typed values.

    Args:
        column: A column of the variant type: binary values with a tag in front.
    """
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    present = column.drop_null()
    tags, rest = _first_bytes(present), trimmed(present, head=1)
    found = []
    for tag in (b"i", b"f", b"t", b"x", b"b"):
        hit = tags == tag[0]
        if hit.any():
            mask = np.zeros(len(column), np.bool_)
            mask[valid] = hit
            found.append((tag, (pa.array(mask), _typed(tag, rest.filter(pa.array(hit))))))
    return found


def trimmed(column: pa.LargeBinaryArray, head: int = 0, tail: int = 0) -> pa.LargeBinaryArray:
    """Take bytes off both ends of every value; values are not NULL and at least as long as what is taken.

    Written out because Arrow's `binary_slice` miscounts its output and fails on some short values.
    """
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    data = _data(column)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    keep = np.ones(len(data), np.bool_)
    for n in range(head):
        keep[offsets[:-1] + n] = False
    for n in range(tail):
        keep[offsets[1:] - 1 - n] = False
    shorter = offsets - np.arange(len(offsets), dtype=np.int64) * (head + tail)
    buffers = [None, pa.py_buffer(shorter), pa.py_buffer(data[keep])]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(column), buffers)


def _data(column: pa.LargeBinaryArray) -> Bytes:
    buffer = column.buffers()[2]
    return np.frombuffer(buffer, np.uint8) if buffer is not None else np.zeros(0, np.uint8)


def _first_bytes(column: pa.LargeBinaryArray) -> Bytes:
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column)]
    return _data(column)[offsets]


def _typed(tag: bytes, payload: pa.LargeBinaryArray) -> pa.Array:
    if tag == b"t":
        return payload.cast(pa.large_string())
    if tag in (b"x", b"b"):
        return payload
    offsets = np.frombuffer(payload.buffers()[1], np.int64)[payload.offset :]
    raw = _data(payload)[offsets[0] : offsets[0] + 8 * len(payload)]
    values = raw.view(">i8" if tag == b"i" else ">f8")
    return pa.array(values.astype(np.int64 if tag == b"i" else np.float64))
