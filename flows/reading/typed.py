"""Columns with the types that their source declared, for Parquet: numbers and times where a source hands out text.

A type is only taken where it holds every value exactly. A column with one that it does not hold (NaN or more digits in
a `numeric`, a `date` that is infinite or before the year 1) is text as a whole, as the source wrote it; one with values
of several types, as SQLite allows, is a struct of which one field of each row is filled (`MIXED`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from blocks.plan.quality.column_types import DIGITS, FREE_DECIMAL, postgres_type, sqlite_type
from blocks.rows.variant import Scalar, decode_variant, is_variant
from flows.reading.readable import Columns

MIXED = pa.struct(
    [("int", pa.int64()), ("float", pa.float64()), ("text", pa.large_string()), ("bytes", pa.large_binary())]
)
"""Values of several types; text that is not UTF-8 is among the bytes."""

TEXT = pa.large_string()
_SCALED = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_ZONED = pa.timestamp("us", "UTC")
_TYPES = {"DATE": pa.date32(), "TIMESTAMP": pa.timestamp("us"), "TIMESTAMPTZ": _ZONED, "BIGINT": pa.int64()}
_NATIVE = {
    "smallint": pa.int64(), "integer": pa.int64(), "bigint": pa.int64(), "real": pa.float64(),
    "double precision": pa.float64(), "boolean": pa.bool_(), "bytea": pa.large_binary(),
}  # fmt: skip
_FREE: Literal["free"] = "free"


class TypedColumns:
    """The types of a collection's columns, as wide as the rows that were seen need them.

    Args:
        columns: Name and declared type of each column.
        kind: The type of the source.
    """

    def __init__(self, columns: Columns, kind: str) -> None:
        self._declared = dict(columns)
        self._targets = {name: _target(declared, kind) for name, declared in columns}
        self._empty = {name: _of_nothing(declared, kind) for name, declared in columns}
        self._types: dict[str, pa.DataType] = {}

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows seen so far; a column that held nothing yet has its declared type."""
        return pa.schema([(name, self._types.get(name, self._empty[name])) for name in self._declared])

    @property
    def as_text(self) -> list[tuple[str, str]]:
        """Names and declared types of the columns whose type does not hold their values: they are text."""
        return [
            (name, self._declared[name])
            for name, target in self._targets.items()
            if target is not None and self._types.get(name) == TEXT
        ]

    def widen(self, rows: pa.Table) -> bool:
        """Take types that hold some rows, too.

        Args:
            rows: Rows of the collection, of canonical types.

        Returns:
            Whether any type is another one now than the schema had.
        """
        before = self.schema
        for field in rows.schema:
            column = rows.column(field.name)
            if column.null_count < len(column):
                known = self._types.get(field.name)
                self._types[field.name] = self._wider(known, field, column)
        return not self.schema.equals(before)

    def cast(self, rows: pa.Table) -> pa.Table:
        """Return rows with the types of the schema, which has to hold them.

        Args:
            rows: Rows that `widen` saw.
        """
        columns = []
        for target in self.schema:
            field, column = rows.schema.field(target.name), rows.column(target.name)
            columns.append(_mixed(column, field) if target.type == MIXED else _plain(column, field).cast(target.type))
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _wider(self, known: pa.DataType | None, field: pa.Field, column: pa.ChunkedArray) -> pa.DataType:
        if known == MIXED or is_variant(field):
            return MIXED
        target = self._targets[field.name]
        if column.type != TEXT or target is None:
            return column.type if known in (None, column.type) else MIXED
        if known == TEXT:
            return TEXT
        wanted = _decimal(column, known) if target == _FREE else target
        return wanted if wanted is not None and _holds(wanted, column) else TEXT


def _target(declared: str, kind: str) -> pa.DataType | Literal["free"] | None:
    """Return what text may become: a type, a decimal with as many places as the values have, or nothing else."""
    found = postgres_type(declared) if kind == "postgres" else None
    if found == FREE_DECIMAL:
        return _FREE
    if found is not None and (scaled := _SCALED.fullmatch(found)):
        return pa.decimal128(int(scaled[1]), int(scaled[2]))
    return _TYPES.get(found or "")


def _of_nothing(declared: str, kind: str) -> pa.DataType:
    """Return the type of a column in which nothing is."""
    target = _target(declared, kind)
    if target is not None:
        return pa.decimal128(DIGITS, 0) if target == _FREE else target
    if kind == "sqlite" and sqlite_type(declared) == "number":
        return pa.int64() if "INT" in declared.upper() else pa.float64()
    if kind in ("files", "redis"):
        named = {"integer": pa.int64(), "binary": pa.large_binary(), "timestamp with time zone": _ZONED}
        return named.get(declared, TEXT)
    return _NATIVE.get(declared, TEXT) if kind == "postgres" else TEXT


def _decimal(column: pa.ChunkedArray, known: pa.DataType | None) -> pa.DataType | None:
    """Return the decimal that has the places of all values; None where they are too many."""
    points = pc.find_substring(column, ".")
    places = pc.if_else(pc.less(points, 0), 0, pc.subtract(pc.subtract(pc.binary_length(column), 1), points))
    most = max(pc.max(places).as_py() or 0, known.scale if known is not None else 0)
    return pa.decimal128(DIGITS, most) if most <= DIGITS else None


def _holds(kind: pa.DataType, column: pa.ChunkedArray) -> bool:
    # Arrow does not notice when a number with its places is larger than 128 bits
    if pa.types.is_decimal(kind) and _whole_digits(column) > kind.precision - kind.scale:
        return False
    try:
        column.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _whole_digits(column: pa.ChunkedArray) -> int:
    """Return how many digits before the point numbers have at most; of what is no number, how long it is."""
    points, lengths = pc.find_substring(column, "."), pc.binary_length(column)
    whole = pc.if_else(pc.less(points, 0), lengths, points)
    signs = pc.starts_with(column, pattern="-").cast(pa.int64())
    return int(pc.max(pc.subtract(whole.cast(pa.int64()), signs)).as_py() or 0)


def _plain(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Return a column that is of one type whatever its field says: a variant that holds NULL alone."""
    return pa.chunked_array([pa.nulls(len(column))]) if is_variant(field) else column


def _mixed(column: pa.ChunkedArray, field: pa.Field) -> pa.Array:
    values: list[Scalar] = decode_variant(column) if is_variant(field) else column.to_pylist()
    filled: Mapping[type, str] = {int: "int", float: "float", str: "text", bytes: "bytes", bytearray: "bytes"}
    rows = [
        None if value is None else {filled[type(value)]: bytes(value) if isinstance(value, bytearray) else value}
        for value in values
    ]
    return pa.array(rows, MIXED)
