"""Values of rows as JSON and CSV, exactly and without what those have no form for.

| type | JSON | CSV |
|---|---|---|
| integers, booleans, text | as they are | as they are |
| floats | numbers; "NaN", "Infinity", "-Infinity" | likewise |
| decimals, dates, times | text | text |
| bytes | base64 | base64 |
| column of mixed types (SQLite) | as above, but bytes `{"base64": ...}`, infinities `{"float": ...}`, \
text that is no UTF-8 `{"text_base64": ...}` | as above |
| NULL | null | nothing, where an empty text is `""` |
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from blocks.rows.variant import Scalar, decode_variant, is_variant

BATCH_ROWS = 10_000
"""Rows that are Python objects at once."""
BATCH_BYTES = 8 * 1024 * 1024
"""Arrow bytes of them."""


def json_rows(table: pa.Table, embedded: frozenset[str] = frozenset()) -> Iterator[dict[str, JsonValue]]:
    """Yield rows as objects for JSON, by the names of the columns.

    Args:
        table: Rows of canonical types.
        embedded: Columns whose text is JSON, and becomes part of what is around it.
    """
    for batch in batches(table):
        columns = [
            _parsed(column) if field.name in embedded else json_values(column, field)
            for field, column in zip(batch.schema, batch.columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            yield dict(zip(batch.column_names, values, strict=True))


def csv_lines(table: pa.Table) -> Iterator[str]:
    """Yield rows as lines of CSV (RFC 4180), each with its end; an empty text is quoted, NULL is nothing.

    Args:
        table: Rows of canonical types.
    """
    return map(csv_line, csv_texts(table))


def csv_texts(table: pa.Table) -> Iterator[tuple[str | None, ...]]:
    """Yield rows as texts; None is NULL.

    Args:
        table: Rows of canonical types.
    """
    for batch in batches(table):
        columns = [_csv_values(column, field) for field, column in zip(batch.schema, batch.columns, strict=True)]
        yield from zip(*columns, strict=True)


def csv_line(values: Iterable[str | None]) -> str:
    """Write one line of CSV; None is nothing."""
    return ",".join("" if value is None else _quoted(value) for value in values) + "\r\n"


def batches(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a table in pieces that may become Python objects."""
    if not table.num_rows:
        return
    step = min(BATCH_ROWS, max(BATCH_BYTES * table.num_rows // max(table.nbytes, 1), 1))
    for start in range(0, table.num_rows, step):
        yield table.slice(start, step)


def json_values(column: pa.ChunkedArray, field: pa.Field) -> list[JsonValue]:
    """Return the values of a column for JSON.

    Args:
        column: Of a canonical type.
        field: Its field, which says whether its types are mixed.
    """
    types = pa.types
    if is_variant(field):
        return [_mixed(value) for value in decode_variant(column)]
    if types.is_floating(column.type) or types.is_integer(column.type) or _is_binary(column.type):
        return [_plain(value) for value in column.to_pylist()]
    if types.is_boolean(column.type) or types.is_null(column.type) or _is_text(column.type):
        plain: list[JsonValue] = column.to_pylist()
        return plain
    if types.is_decimal(column.type) and column.type.scale == 0:  # sums, in queries
        return [None if value is None else int(value) for value in column.to_pylist()]
    if types.is_nested(column.type) or types.is_interval(column.type):
        return [_plain(value) for value in column.to_pylist()]
    texts: list[JsonValue] = _texts(column).to_pylist()
    return texts


def float_text(value: float) -> str:
    """Write a float that is no finite number, as PostgreSQL, DuckDB and Python read it."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def base64(value: bytes | bytearray) -> str:
    """Write bytes in base64."""
    return b64encode(value).decode("ascii")


def _plain(value: object) -> JsonValue:
    """Write a value as Arrow gives it to Python, with all that it holds."""
    match value:
        case float() if not math.isfinite(value):
            return float_text(value)
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray():
            return base64(value)
        case dict():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return str(value)


def _mixed(value: Scalar) -> JsonValue:
    if isinstance(value, bytearray):
        return {"text_base64": base64(value)}
    if isinstance(value, bytes):
        return {"base64": base64(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": float_text(value)}
    return value


def _csv_values(column: pa.ChunkedArray, field: pa.Field) -> list[str | None]:
    if _is_text(column.type):
        texts: list[str | None] = column.to_pylist()
        return texts
    values = decode_variant(column) if is_variant(field) else json_values(column, field)
    return [_csv_text(value) for value in values]


def _csv_text(value: object) -> str | None:
    if type(value) is int:  # most values are
        return str(value)
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case bytes() | bytearray():
            return base64(value)
        case float():
            return repr(value) if math.isfinite(value) else float_text(value)
    return json.dumps(value, ensure_ascii=False)


def _quoted(text: str) -> str:
    if text and not any(mark in text for mark in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write decimals, dates and times as text; those with a zone in UTC."""
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:  # zones have several names for it
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    texts = column.cast(pa.large_string())
    if pa.types.is_timestamp(column.type):
        return pc.replace_substring(texts, " ", "T", max_replacements=1)
    return texts


def _parsed(column: pa.ChunkedArray) -> list[JsonValue]:
    return [None if value is None else json.loads(value) for value in column.to_pylist()]


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
