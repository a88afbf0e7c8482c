"""Columns of mixed types keep each value and its type."""

from __future__ import annotations

import math
import struct

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.rows.variant import decode_variant, encode_variant, is_variant, to_variant, variant_field, variant_text
from tests.strategies import scalars


@given(st.lists(scalars, max_size=20))
def test_decode_undoes_encode_to_the_type(values: list[object]) -> None:
    again = decode_variant(encode_variant(values))
    assert [type(value) for value in again] == [type(value) for value in values]
    assert repr(again) == repr(values)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        (0, b"i" + bytes(8)),
        (-1, b"i" + b"\xff" * 8),
        (2**63 - 1, b"i\x7f" + b"\xff" * 7),
        (-(2**63), b"i\x80" + bytes(7)),
        (1.0, b"f\x3f\xf0" + bytes(6)),
        (-0.0, b"f\x80" + bytes(7)),
        (math.inf, b"f\x7f\xf0" + bytes(6)),
        ("", b"t"),
        ("é", b"t\xc3\xa9"),
        (bytearray(b"\xff"), b"x\xff"),
        (b"", b"b"),
        (b"t", b"bt"),
    ],
)
def test_the_bytes_are_those_of_the_format(value: object, stored: bytes | None) -> None:
    assert encode_variant([value]).to_pylist() == [stored]


def test_nan_and_zeros_keep_their_bits() -> None:
    values = decode_variant(encode_variant([math.nan, -0.0, 0.0]))
    assert math.isnan(values[0])
    assert [math.copysign(1, value) for value in values[1:]] == [-1, 1]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_that_does_not_fit_is_an_error_and_never_a_float(value: int) -> None:
    with pytest.raises(struct.error):
        encode_variant([value])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, -5]),
        pa.array([1.5, None, math.inf]),
        pa.array(["a", None, ""], pa.large_string()),
        pa.array([b"a", None, b""], pa.large_binary()),
        pa.nulls(3),
    ],
)
def test_a_plain_column_becomes_one_of_the_same_values(column: pa.Array) -> None:
    for form in (column, pa.chunked_array([column.slice(0, 1), column.slice(1)])):
        assert decode_variant(to_variant(form)) == column.to_pylist()


def test_only_the_field_tells_that_a_column_is_mixed() -> None:
    assert is_variant(variant_field("a"))
    assert variant_field("a").type == pa.large_binary()
    assert not is_variant(pa.field("a", pa.large_binary()))
    assert not is_variant(pa.field("a", pa.large_binary(), metadata={b"lastgood": b"other"}))


def test_the_text_is_what_a_person_would_type() -> None:
    column = encode_variant([1, -2.5, "é", b"\xff", bytearray(b"\xfe"), None])
    assert variant_text(column).to_pylist() == [b"1", b"-2.5", "é".encode(), b"\xff", b"\xfe", None]
