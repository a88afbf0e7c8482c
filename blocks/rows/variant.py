"""A column that holds values of several types, as SQLite allows: binary values with a tag in front.

    i + 8 bytes big-endian two's complement     integer
    f + 8 bytes big-endian IEEE 754             float
    t + UTF-8                                   text
    x + bytes                                   text that is not UTF-8
    b + bytes                                   blob

NULL stays NULL. The column's Arrow field carries the metadata `lastgood: variant`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pyarrow as pa

METADATA = {b"lastgood": b"variant"}

_INT = struct.Struct(">cq")
_FLOAT = struct.Struct(">cd")

Scalar = int | float | str | bytes | bytearray | None
"""What a variant holds; a bytearray stands for text that is not UTF-8."""


def variant_field(name: str) -> pa.Field:
    """Make the Arrow field of a variant column."""
    return pa.field(name, pa.large_binary(), metadata=METADATA)


def is_variant(field: pa.Field) -> bool:
    """Return whether an Arrow field is that of a variant column.

    Args:
        field: A field of a canonical schema.
    """
    return bool(field.metadata) and field.metadata.get(b"lastgood") == b"variant"


def _encode(value: Scalar) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return b"t" + value.encode()
    if isinstance(value, bytearray):
        return b"x" + bytes(value)
    if isinstance(value, bytes):
        return b"b" + value
    if isinstance(value, float):
        return _FLOAT.pack(b"f", value)
    return _INT.pack(b"i", value)


def _decode(value: bytes | None) -> Scalar:
    if value is None:
        return None
    tag, rest = value[:1], value[1:]
    if tag == b"i":
        return int(_INT.unpack(value)[1])
    if tag == b"f":
        return float(_FLOAT.unpack(value)[1])
    if tag == b"t":
        return rest.decode()
    return bytearray(rest) if tag == b"x" else rest


def encode_variant(values: Iterable[Scalar]) -> pa.LargeBinaryArray:
    """Encode Python values of mixed types; row by row, because only odd columns come here."""
    return pa.array([_encode(value) for value in values], pa.large_binary())


def decode_variant(column: pa.Array | pa.ChunkedArray) -> list[Scalar]:
    """Decode a variant column to Python values.

    Args:
        column: A column of the variant type: binary values with a tag in front.
    """
    return [_decode(value) for value in column.to_pylist()]


def to_variant(column: pa.Array | pa.ChunkedArray) -> pa.LargeBinaryArray:
    """Turn a plain column (integers, floats, text, binary, boolean, null) into a variant one.

    Args:
        column: A column of int64, double, text, binary, bool or null type.
    """
    return encode_variant(column.to_pylist())


def variant_text(column: pa.Array | pa.ChunkedArray) -> pa.LargeBinaryArray:
    """Render a variant column as a person would type its values, as bytes.

    Args:
        column: A column of the variant type: binary values with a tag in front.
    """

    def text(value: Scalar) -> bytes | None:
        if isinstance(value, bytes | bytearray) or value is None:
            return None if value is None else bytes(value)
        return str(value).encode()

    return pa.array([text(value) for value in decode_variant(column)], pa.large_binary())
