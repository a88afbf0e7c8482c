"""Rows of a part as commands are made of them: sorted by key, each head before its elements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import one_chunk
from blocks.rows.variant import decode_variant, is_variant
from blocks.sources.redis.read.grouping import Mask
from blocks.sources.redis.rows import SCHEMA

BATCH_ROWS = 16_384
_COMPARED_ROWS = 1 << 16

Row = tuple[bytes, bytes | None, str, bytes | None, int | None]
"""Key, element, type, value, expiry."""


def plain(rows: pa.Table) -> pa.Table:
    """Return all columns in their own types, also where a merge of several backups gave them others."""
    return pa.Table.from_arrays([_plain_column(rows, field) for field in SCHEMA], schema=SCHEMA)


def are_strings(table: pa.Table) -> pa.ChunkedArray:
    """Return which rows are strings as they should be."""
    found = pc.and_(pc.equal(table.column("type"), "string"), table.column("value").is_valid())
    return pc.fill_null(pc.and_(found, table.column("element").is_null()), False)


def in_order(table: pa.Table) -> pa.Table:
    """Sort rows by key, each head before its elements; rows that are so already are not copied."""
    if _is_in_order(table):
        return table
    ranked = table.append_column("inner", table.column("element").is_valid())
    order = pc.sort_indices(ranked, sort_keys=[(name, "ascending") for name in ("key", "inner", "element")])
    return table.take(order)


def spans(table: pa.Table, most: int) -> Iterator[tuple[pa.Table, bool]]:
    """Cut rows that are in order where a key has more than so many.

    Returns:
        The rows of such a key alone, or of others together, and which of both they are.
    """
    heads = np.flatnonzero(_inner(table) == False)  # noqa: E712  a mask
    bounds = np.append(heads, table.num_rows)
    large = np.flatnonzero(np.diff(bounds) > most)
    last = 0
    for first, end in zip(bounds[large].tolist(), bounds[large + 1].tolist(), strict=True):
        if first > last:
            yield table.slice(last, first - last), False
        yield table.slice(first, end - first), True
        last = end
    if last < table.num_rows:
        yield table.slice(last), False


def rows_of(table: pa.Table, left_out: pa.ChunkedArray | None = None) -> Iterator[Row]:
    """Yield rows.

    Args:
        table: Rows of SCHEMA.
        left_out: Which of them are not.
    """
    start = 0
    for batch in table.to_batches(BATCH_ROWS):
        some = batch
        if left_out is not None:
            some = batch.filter(pc.invert(one_chunk(left_out.slice(start, len(batch)))))
        start += len(batch)
        yield from zip(*map(_values, some.columns), strict=True)


def pairs(elements: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    """Yield the elements of a key, each with its value."""
    for batch in elements.select(["element", "value"]).to_batches(BATCH_ROWS):
        yield from zip(*map(_values, batch.columns), strict=True)


def _inner(table: pa.Table) -> Mask:
    found: Mask = table.column("element").is_valid().to_numpy()
    return found


def _is_in_order(table: pa.Table) -> bool:
    last: tuple[bytes, bytes | None] | None = None
    for batch in table.select(["key", "element"]).to_batches(_COMPARED_ROWS):
        keys, elements = batch.columns
        if not len(keys):
            continue
        first = keys[0].as_py(), elements[0].as_py()
        if last is not None and not (
            last[0] < first[0] or (last[0] == first[0] and first[1] is not None and (last[1] or b"") < first[1])
        ):
            return False
        before, after = slice(None, -1), slice(1, None)
        inner = elements[after].is_valid()
        rising = pc.or_(elements[before].is_null(), pc.less(elements[before], elements[after]).fill_null(True))
        same = pc.and_(pc.equal(keys[before], keys[after]), pc.and_(inner, rising))
        if not pc.all(pc.or_(pc.less(keys[before], keys[after]), same), min_count=0).as_py():
            return False
        last = keys[-1].as_py(), elements[-1].as_py()
    return True


def _values(column: pa.Array) -> list[object]:
    """Turn a column into a list, faster than Arrow's own way where that matters."""
    if column.null_count == len(column):
        return [None] * len(column)
    if pa.types.is_integer(column.type):
        return cast("list[object]", column.to_pylist())
    return cast("list[object]", column.to_numpy(zero_copy_only=False).tolist())


def _plain_column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    column = rows.column(field.name)
    if is_variant(rows.schema.field(field.name)):
        return pa.chunked_array([pa.array(decode_variant(column), field.type)])
    return column.cast(field.type)
