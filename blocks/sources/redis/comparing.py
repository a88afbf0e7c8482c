"""Rows as a proof compares them: what servers write differently in one form, and what none can compare left out."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import one_chunk
from blocks.sources.redis.net.wire import packed, unpacked
from blocks.sources.redis.rdb.vectors import settled
from blocks.sources.redis.read.streams import StreamHead
from blocks.sources.redis.rows import MODULE

_VECTORS = MODULE + "vectorset"
_NEGATIVE, _ZERO = b"-0.0", b"0.0"


def by_meaning(rows: pa.Table) -> pa.Table:
    """Write scores of -0 as 0, and let a group have read no more entries than were added: a server does so on its own.

    Of vector sets, which come back in another order, the content is written: vectors, attributes, links.

    Args:
        rows: Rows with the columns of `SCHEMA` (rows.py).
    """
    if not any(pc.any(pc.equal(rows.column("type"), kind)).as_py() for kind in ("zset", "stream", _VECTORS)):
        return rows
    kinds, values, elements = (one_chunk(rows.column(name)) for name in ("type", "value", "element"))
    wide, held = elements.is_valid(), pc.fill_null(pc.binary_length(values), 0)
    zeros = pc.and_(pc.equal(kinds, "zset"), pc.greater(held, 0))
    zeros = pc.and_(zeros, pc.fill_null(pc.match_substring(values, _NEGATIVE), False))
    heads = pc.and_(pc.and_(pc.equal(kinds, "stream"), pc.invert(wide)), pc.greater(held, 0))
    vectors = pc.and_(pc.equal(kinds, _VECTORS), pc.greater(held, 0))
    changed = pc.or_(pc.or_(zeros, heads), vectors)
    if not pc.any(changed).as_py():
        return rows
    chosen = zip(*(column.filter(changed).to_pylist() for column in (kinds, values, wide)), strict=True)
    written = pa.array([_meant(kind, value, element) for kind, value, element in chosen], values.type)
    number = rows.column_names.index("value")
    return rows.set_column(number, rows.schema.field(number), pc.replace_with_mask(values, changed, written))


def opaque(rows: pa.Table) -> tuple[pa.BooleanArray, pa.Table]:
    """Tell which rows are keys of modules, as DUMP gave them; return all rows, those without their values.

    Args:
        rows: Rows with the columns of `SCHEMA` (rows.py).
    """
    found = one_chunk(pc.fill_null(pc.starts_with(rows.column("type"), MODULE), False))
    if not pc.any(found).as_py():
        return found, rows
    number, values = rows.column_names.index("value"), one_chunk(rows.column("value"))
    without = pc.if_else(found, pa.scalar(b"", values.type), values)
    return found, rows.set_column(number, rows.schema.field(number), without)


def _meant(kind: str, value: bytes, element: bool) -> bytes:
    if kind == _VECTORS:
        found = settled(value)
        return value if found is None else found
    try:
        if kind == "stream":
            return _settled(StreamHead.decode(value)).encode()
        if element:
            return _ZERO if value == _NEGATIVE else value
        items = unpacked(value)
        items[1::2] = [_ZERO if score == _NEGATIVE else score for score in items[1::2]]
        return packed(*items)
    except ValueError:  # what is no such value is compared as it is
        return value


def _settled(head: StreamHead) -> StreamHead:
    added = int(head.entries_added)
    groups = tuple(
        replace(
            group,
            entries_read=head.entries_added
            if group.entries_read and int(group.entries_read) > added
            else group.entries_read,
        )
        for group in head.groups
    )
    return replace(head, groups=groups)
