"""Types of Parquet hold every value exactly, or the column is text, or a struct."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from blocks.rows.variant import encode_variant, variant_field
from flows.reading.typed import MIXED, TypedColumns

Texts = list[str | None]
PRECISE = "1" * 20 + "." + "2" * 19


def texts(*values: str | None) -> pa.Table:
    return pa.table({"c": pa.array(values, pa.large_string())})


def read(declared: str, kind: str, *parts: pa.Table) -> tuple[str, list[Any], int]:
    """Return type and values of a column, and how often types had to be widened after the first part."""
    typed = TypedColumns((("c", declared),), kind)
    widened = [typed.widen(part) for part in parts]
    while any(typed.widen(part) for part in parts):
        pass
    values = [value for part in parts for value in typed.cast(part).column("c").to_pylist()]
    return str(typed.schema.field("c").type), values, sum(widened[1:])


@pytest.mark.parametrize(
    ("declared", "parts", "type_", "values", "widened"),
    [
        (
            "numeric(10,2)",
            [["1.50", None], ["-2.25"]],
            "decimal128(10, 2)",
            [Decimal("1.50"), None, Decimal("-2.25")],
            0,
        ),
        ("numeric(10,2)", [["1.50"], ["NaN"]], "large_string", ["1.50", "NaN"], 1),
        ("numeric(40,10)", [["1.5"]], "decimal128(38, 1)", [Decimal("1.5")], 0),
        ("numeric", [["1.5"], ["100"], ["0.001"]], "decimal128(38, 3)", [Decimal("1.5"), 100, Decimal("0.001")], 1),
        ("numeric", [["1.5"], ["Infinity"]], "large_string", ["1.5", "Infinity"], 1),
        ("numeric", [[PRECISE]], "large_string", [PRECISE], 0),
        ("numeric", [["1" * 30], ["0." + "1" * 20]], "large_string", ["1" * 30, "0." + "1" * 20], 1),
        ("date", [["2026-01-31", None]], "date32[day]", [date(2026, 1, 31), None], 0),
        ("date", [["2026-01-31"], ["infinity"]], "large_string", ["2026-01-31", "infinity"], 1),
        ("date", [["0044-03-15 BC"]], "large_string", ["0044-03-15 BC"], 0),
        (
            "timestamp with time zone",
            [["2026-01-31 09:30:00.123456+00"]],
            "timestamp[us, tz=UTC]",
            [datetime(2026, 1, 31, 9, 30, 0, 123456, tzinfo=UTC)],
            0,
        ),
        (
            "timestamp(3) without time zone",
            [["2026-01-31 09:30:00"]],
            "timestamp[us]",
            [datetime(2026, 1, 31, 9, 30)],
            0,
        ),
        ("timestamp without time zone", [["infinity"], ["2026-01-31 09:30:00"]], "large_string", None, 0),
        ("numeric", [["123456789012345678901234567890.5", "0.12345678901234567890"]], "large_string", None, 0),
        ("uuid", [["8c0f9d8e-0000-4000-8000-000000000001"]], "large_string", None, 0),
        ("numeric", [], "decimal128(38, 0)", [], 0),
        ("bigint", [], "int64", [], 0),
    ],
)
def test_columns_of_postgres(
    declared: str, parts: list[Texts], type_: str, values: list[Any] | None, widened: int
) -> None:
    expected = [value for part in parts for value in part] if values is None else values
    assert read(declared, "postgres", *(texts(*part) for part in parts)) == (type_, expected, widened)


def mixed(*values: Any) -> pa.Table:
    return pa.Table.from_arrays([encode_variant(values)], schema=pa.schema([variant_field("c")]))


@pytest.mark.parametrize(
    ("parts", "type_", "values"),
    [
        ([pa.table({"c": [1]}), pa.table({"c": pa.nulls(1)}), pa.table({"c": [2]})], pa.int64(), [1, None, 2]),
        ([pa.table({"c": pa.nulls(1)}), texts("x")], pa.large_string(), [None, "x"]),
        ([pa.table({"c": [1]}), texts("x")], MIXED, [{"int": 1}, {"text": "x"}]),
        ([pa.table({"c": [1]}), pa.table({"c": [1.5]})], MIXED, [{"int": 1}, {"float": 1.5}]),
        (
            [mixed(1, b"\xff", bytearray(b"\xfe"), None)],
            MIXED,
            [{"int": 1}, {"bytes": b"\xff"}, {"bytes": b"\xfe"}, None],
        ),
        ([mixed(None), pa.table({"c": [1]})], pa.int64(), [None, 1]),
    ],
)
def test_columns_of_sqlite(parts: list[pa.Table], type_: pa.DataType, values: list[Any]) -> None:
    found, read_back, _ = read("", "sqlite", *parts)
    filled = [
        value if not isinstance(value, dict) else {name: one for name, one in value.items() if one is not None}
        for value in read_back
    ]
    assert (found, filled) == (str(type_), values)


def test_columns_that_became_text_are_named() -> None:
    typed = TypedColumns((("c", "numeric"), ("d", "text")), "postgres")
    typed.widen(pa.table({"c": pa.array(["NaN"], pa.large_string()), "d": pa.array(["x"], pa.large_string())}))
    assert typed.as_text == [("c", "numeric")]
