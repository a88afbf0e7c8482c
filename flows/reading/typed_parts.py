"""Restored rows of one part as a typed Parquet file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.plan.quality.column_types import FREE_DECIMAL, decimal_type, key_text, quoted, text
from blocks.rows.variant import decode_variant, is_variant

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 5
"""Keys that are kept of rows with a fault of one kind."""
MIXED = pa.struct(
    [("int", pa.int64()), ("float", pa.float64()), ("text", pa.large_string()), ("bytes", pa.large_binary())]
)
"""How values of several types in one column are kept: one field of each row is filled. `bytes` are text that is not
UTF-8, too."""


@dataclass
class TypedPart:
    """A part in its file.

    Attributes:
        number: Its place among the others.
        path: The file.
        rows: How many there are.
        types: SQL types of its columns, by what SQL calls them; without those that hold NULL alone.
        counts: How many values each column has of each kind (`int`, `float`, `text`, `bytes`, or `typed`).
        wrong: How many values of a column could not be converted.
        nans: How many values of a column were no number.
        keys: By column, keys of some rows whose values could not be converted.
    """

    number: int
    path: Path
    rows: int
    types: dict[str, str] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    nans: dict[str, int] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class PartShape:
    """How rows of a collection become typed ones.

    Attributes:
        names: What SQL calls each column.
        targets: SQL types that text becomes, by column.
        texts: Binary columns that are text for people (keys of Redis, paths).
        key: Columns that identify a row.
    """

    names: Mapping[str, str]
    targets: Mapping[str, str] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    key: tuple[str, ...] = ()


def write_part(
    cursor: duckdb.DuckDBPyConnection, rows: pa.Table, shape: PartShape, number: int, path: Path
) -> TypedPart:
    """Write rows to a Parquet file whose columns have types that can be compared.

    Args:
        cursor: A cursor of the connection; nobody else uses it meanwhile.
        rows: Restored rows; the columns that `shape.names` knows are kept.
        shape: Says how.
        number: The place of the part among the others.
        path: The file to be.
    """
    names = [name for name in rows.column_names if name in shape.names]
    rows = _readable(rows.select(names), shape).rename_columns([shape.names[name] for name in names])
    part = TypedPart(number, path, rows.num_rows)
    cursor.register("part", rows)
    try:
        expressions = {
            name: _expression(cursor, column, shape.targets.get(name))
            for name, column in zip(names, rows.schema, strict=True)
            if rows.column(column.name).null_count < rows.num_rows
        }
        if expressions:
            selected = ", ".join(f"{sql} AS {quoted(shape.names[name])}" for name, sql in expressions.items())
            cursor.execute(f"COPY (SELECT {selected} FROM part) TO {text(str(path))} (FORMAT parquet, COMPRESSION lz4)")
            _account(cursor, rows, shape, expressions, part)
    finally:
        cursor.unregister("part")
    return part


def _readable(rows: pa.Table, shape: PartShape) -> pa.Table:
    """Give columns that DuckDB does not know, or people could not compare, another form."""
    for place, column in enumerate(rows.schema):
        values = rows.column(place)
        if is_variant(column):
            values = _mixed(values)
        elif column.name in shape.texts and pa.types.is_large_binary(column.type):
            values = text_of(values)
        elif pa.types.is_decimal256(column.type):
            values = values.cast(pa.large_string())
        elif pa.types.is_time(column.type):
            values = pc.cast(values, pa.large_string())
        else:
            continue
        rows = rows.set_column(place, column.name, values)
    return rows


def text_of(values: pa.ChunkedArray) -> pa.ChunkedArray:
    r"""Return bytes as text, where they are UTF-8; bytes that are none are written as `\xff`.

    Args:
        values: A column of type large_binary.
    """
    try:
        return values.cast(pa.large_string())
    except pa.ArrowInvalid:
        decoded = [None if each is None else each.decode(errors="backslashreplace") for each in values.to_pylist()]
        return pa.chunked_array([pa.array(decoded, pa.large_string())])


def _mixed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    fields: dict[str, list[object]] = {name: [] for name in ("int", "float", "text", "bytes")}
    kinds = {int: "int", float: "float", str: "text", bytes: "bytes", bytearray: "bytes"}
    for value in decode_variant(values):
        for name in fields:
            fields[name].append(None)
        if value is not None:
            fields[kinds[type(value)]][-1] = bytes(value) if isinstance(value, bytearray) else value
    arrays = [pa.array(fields[field.name], field.type) for field in MIXED]
    return pa.chunked_array([pa.StructArray.from_arrays(arrays, fields=list(MIXED))])


def _expression(cursor: duckdb.DuckDBPyConnection, column: pa.Field, target: str | None) -> str:
    name = quoted(column.name)
    if pa.types.is_floating(column.type):
        return f"CASE WHEN isnan({name}) THEN NULL ELSE {name} END"
    textual = pa.types.is_large_string(column.type) or pa.types.is_decimal256(column.type)
    if target is None and pa.types.is_decimal256(column.type):
        target = FREE_DECIMAL
    return converted(cursor, "part", name, target) if target and textual else name


def converted(cursor: duckdb.DuckDBPyConnection, table: str, name: str, target: str) -> str:
    """Return the expression that makes a text column one of another type, and NULL of what is not of it.

    Args:
        cursor: Reads the column where its digits are not known.
        table: The table that it is in, quoted.
        name: Its name, quoted.
        target: The SQL type.
    """
    if target == FREE_DECIMAL:
        parts = f"regexp_extract({name}, '^[+-]?([0-9]*)[.]?([0-9]*)(?:[eE]([+-]?[0-9]+))?$', ['w', 'f', 'e'])"
        found = cursor.execute(
            "SELECT max(length(p.w) + greatest(e, 0)), max(greatest(length(p.f) - e, 0)) FROM (SELECT p, "
            "CASE WHEN p.e = '' THEN 0 ELSE coalesce(TRY_CAST(p.e AS INTEGER), 9999) END AS e "
            f"FROM (SELECT {parts} AS p FROM {table})) WHERE p.w <> '' OR p.f <> ''"
        ).fetchone()
        digits, scale = found or (0, 0)
        target = decimal_type(digits or 1, scale or 0)
    if target == "DOUBLE":
        return f"CASE WHEN isnan(TRY_CAST({name} AS DOUBLE)) THEN NULL ELSE TRY_CAST({name} AS DOUBLE) END"
    cast = f"TRY_CAST({name} AS {target})"
    if target == "BIGINT":  # a cast would round
        return f"CASE WHEN regexp_full_match({name}, '\\s*[+-]?[0-9]+([.]0*)?\\s*') THEN {cast} END"
    if target == "DATE":  # a cast would drop the time of day
        return f"CASE WHEN TRY_CAST({name} AS TIMESTAMP) <> CAST({cast} AS TIMESTAMP) THEN NULL ELSE {cast} END"
    return cast


def _account(
    cursor: duckdb.DuckDBPyConnection, rows: pa.Table, shape: PartShape, expressions: Mapping[str, str], part: TypedPart
) -> None:
    """Note the types that came to be, and how many values got lost on the way."""
    described = cursor.execute(f"DESCRIBE SELECT * FROM read_parquet({text(str(part.path))})").fetchall()
    part.types = {str(row[0]): str(row[1]) for row in described}
    nulls = _nulls(part.path)
    for name, expression in expressions.items():
        sql_name = shape.names[name]
        values = rows.column(sql_name)
        if values.type == MIXED:
            whole = values.combine_chunks()
            part.counts[name] = {f.name: len(whole) - whole.field(n).null_count for n, f in enumerate(MIXED)}
            continue
        kind = _kind(values.type) if expression == quoted(sql_name) or pa.types.is_floating(values.type) else "typed"
        part.counts[name] = {kind: len(values) - values.null_count}
        lost = nulls[sql_name] - values.null_count
        if lost and pa.types.is_floating(values.type):
            part.nans[name] = lost
        elif lost:
            part.wrong[name] = lost
            if shape.key:
                key = key_text(tuple(shape.names[column] for column in shape.key))
                lost_there = f"{quoted(sql_name)} IS NOT NULL AND ({expression}) IS NULL"
                found = cursor.execute(f"SELECT {key} FROM part WHERE {lost_there} LIMIT {EXAMPLES}").fetchall()
                part.keys[name] = tuple(str(row[0]) for row in found)


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_integer(kind):
        return "int"
    if types.is_floating(kind):
        return "float"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    return "bytes" if types.is_binary(kind) or types.is_large_binary(kind) else "typed"


def _nulls(path: Path) -> dict[str, int]:
    """Count the NULLs of each column from the file's own statistics."""
    metadata = pq.read_metadata(path)
    counts: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            if column.statistics is not None and column.statistics.has_null_count:
                name = column.path_in_schema
                counts[name] = counts.get(name, 0) + column.statistics.null_count
    return counts
