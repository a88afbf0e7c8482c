"""Digests are what the module's docstring says, whichever way they are computed."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.rows.digest import SHORT_BYTES, RowDigest

KEY = bytes(range(32))
LONG = st.sampled_from([SHORT_BYTES - 5, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, 700]).map(lambda n: b"z" * n)


def words_of(value: bytes | str | None) -> list[int]:
    """Write a value as the docstring says."""
    if value is None:
        return [1]
    number, raw = (9, value.encode()) if isinstance(value, str) else (11, value)
    if len(raw) > SHORT_BYTES:
        return [number + 1, len(raw), *struct.unpack("<4I", hashlib.sha256(KEY + raw).digest()[:16])]
    padded = raw + bytes(-len(raw) % 4)
    return [number, len(raw), *struct.unpack(f"<{len(padded) // 4}I", padded)]


def plain_digest(row: dict[str, bytes | str | None]) -> int:
    """Digest one row, word by word."""
    lanes = [0, 0]
    for name, value in row.items():
        stream = hashlib.shake_256(KEY + name.encode()).digest(16 * (2 + SHORT_BYTES // 4))
        keys = struct.unpack(f"<{len(stream) // 8}Q", stream)
        for n, word in enumerate(words_of(value)):
            for lane in (0, 1):
                lanes[lane] = (lanes[lane] + word * keys[2 * n + lane]) % 2**64
    return (lanes[0] >> 32) << 32 | lanes[1] >> 32


def check(columns: dict[str, pa.Array]) -> None:
    rows = pa.table(columns)
    assert RowDigest(KEY)(rows).to_pylist() == [plain_digest(row) for row in rows.to_pylist()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.binary(max_size=40), LONG), max_size=30),
    st.integers(0, 5),
)
def test_values_of_any_length_are_digested_word_by_word(values: list[bytes | None], offset: int) -> None:
    column = pa.array(values, pa.large_binary()).slice(offset)
    check({"b": column, "t": pa.array([v and v.hex() for v in column.to_pylist()], pa.large_string())})


@pytest.mark.parametrize("length", [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 84, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1])
def test_values_of_one_length_are_digested_the_same_way(length: int) -> None:
    rng = np.random.default_rng(length)
    check({"b": pa.array([rng.bytes(length) for _ in range(300)], pa.large_binary())})


@pytest.mark.parametrize("values", [["open", "closed", ""], ["open", None, "x" * 600], [" " * 84]])
def test_a_column_that_repeats_itself_is_digested_the_same_way(values: list[str | None]) -> None:
    check({"t": pa.array(values * (600 // len(values)), pa.large_string())})


def test_a_column_that_stops_repeating_itself_is_digested_the_same_way() -> None:
    check({"t": pa.array(["same"] * 300 + [f"other {n}" for n in range(300)], pa.large_string())})
