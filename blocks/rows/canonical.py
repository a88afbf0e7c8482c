"""Canonical rows: the one form in which state is compared, stored and restored.

Canonical types are boolean, int64, float64, large_string, large_binary, timestamp[us] (with UTC, or none), date32,
time64[us], decimal128 and decimal256, null, and variant (blocks/rows/variant.py). A user's column whose name begins
with an underscore gets one more, so that `_key` and `_digest` are never anybody's column.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import UnsupportedState
from blocks.rows.variant import is_variant, to_variant, variant_field

KEY = "_key"
DIGEST = "_digest"


def to_canonical(rows: pa.Table) -> pa.Table:
    """Cast rows to canonical types and names, losing nothing.

    Args:
        rows: One column per field of the source, of any Arrow type that has a canonical one.

    Raises:
        UnsupportedState: A value has no exact canonical form; the column is named.
    """
    columns, fields = [], []
    for field in rows.schema:
        kind = _canonical_type(field.type)
        try:
            column = rows.column(field.name).cast(kind) if field.type != kind else rows.column(field.name)
        except pa.ArrowInvalid as exc:
            raise UnsupportedState(
                f"column {field.name!r} of type {field.type} has a value that {kind} cannot keep exactly: {exc}"
            ) from exc
        columns.append(column)
        fields.append(
            pa.field(escape(field.name), kind, metadata=variant_field("").metadata if is_variant(field) else None)
        )
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def from_canonical(rows: pa.Table) -> pa.Table:
    """Undo the renaming of `to_canonical`; types stay canonical.

    Args:
        rows: Canonical columns under their escaped names.
    """
    return rows.rename_columns([unescape(name) for name in rows.column_names])


def escape(name: str) -> str:
    """Make a user's column name safe beside `_key` and `_digest`."""
    return f"_{name}" if name.startswith("_") else name


def unescape(name: str) -> str:
    """Undo `escape`."""
    return name[1:] if name.startswith("_") else name


def _canonical_type(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_integer(kind):
        return pa.int64()
    if types.is_floating(kind):
        return pa.float64()
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.large_string()
    if (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    ):
        return pa.large_binary()
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_date(kind):
        return pa.date32()
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_dictionary(kind):
        return _canonical_type(kind.value_type)
    if types.is_boolean(kind) or types.is_null(kind) or types.is_decimal128(kind) or types.is_decimal256(kind):
        return kind
    raise UnsupportedState(
        f"Arrow type {kind} has no canonical form", hint="Read the column as text or binary instead."
    )


def unify(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Bring tables of one collection to one schema: null gives way to any type, different types become variant.

    A column that a table lacks is NULL there. The order of columns is that of the last table, the newest.

    Args:
        tables: Tables with canonical columns, oldest first; the types of a column may differ.
    """
    names = list(dict.fromkeys(name for table in reversed(tables) for name in table.column_names))
    return [
        table.select([]) if not names else _conform(table, [_common(tables, name) for name in names])
        for table in tables
    ]


def _common(tables: Sequence[pa.Table], name: str) -> pa.Field:
    fields = [table.schema.field(name) for table in tables if name in table.column_names]
    if any(is_variant(field) for field in fields):
        return variant_field(name)
    kinds = {field.type for field in fields if not pa.types.is_null(field.type)}
    if len(kinds) > 1:
        return variant_field(name)
    return pa.field(name, kinds.pop() if kinds else pa.null())


def _conform(table: pa.Table, fields: Sequence[pa.Field]) -> pa.Table:
    columns = []
    for field in fields:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column, own = table.column(field.name), table.schema.field(field.name)
        if is_variant(field) and not is_variant(own):
            column = _promote(field.name, column)
        elif own.type != field.type:
            column = column.cast(field.type)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=pa.schema(list(fields)))


def _promote(name: str, column: pa.ChunkedArray) -> pa.Array:
    if column.type not in (pa.int64(), pa.float64(), pa.large_string(), pa.large_binary(), pa.null()):
        raise UnsupportedState(f"column {name!r} changed its type from {column.type} within a chain")
    return to_variant(column)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, which is a copy only where it is several."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def is_sorted(keys: pa.LargeBinaryArray) -> bool:
    """Whether keys ascend strictly.

    Args:
        keys: `_key`s without NULLs; large_binary.
    """
    return len(keys) < 2 or bool(pc.all(pc.less(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py())


def first_not_below(keys: pa.LargeBinaryArray, key: bytes, low: int = 0) -> int:
    """Return where the first of ascending keys stands that is not less than one, from a place on."""
    high = len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle].as_py() < key:
            low = middle + 1
        else:
            high = middle
    return low


def newest(keys: pa.LargeBinaryArray) -> npt.NDArray[np.int64]:
    """Positions of the first occurrence of each key, in order: of keys listed newest first, the rows that count.

    Args:
        keys: `_key`s without NULLs, newest first; large_binary.
    """
    codes = pc.dictionary_encode(keys).indices.to_numpy()
    # codes are given out in order of appearance, so a new key is where their running maximum grows
    return np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=np.int32(-1)))
