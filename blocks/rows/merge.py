"""Laying the segments of a part's chain over each other: the part as it was.

The rows of a segment are its upserts, without `_key` (it follows from the key columns), and its tombstones: `_key`, and
NULL in every other column.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import KEY, escape, first_not_below, is_sorted, newest, one_chunk, unify
from blocks.rows.index import DELETED
from blocks.rows.keys import encode_keys

_BLOCK_ROWS = 1 << 16


def as_it_was(tables: list[pa.Table], key: tuple[str, ...]) -> pa.Table:
    """Merge segments as `merged` does; where there is nothing to merge, rows come without their `_key`s.

    Args:
        tables: Segments, oldest first, each with `_key` (large_binary; set for tombstones only) and the canonical
            columns.
        key: Names of the key columns.

    Raises:
        CorruptionDetected: A segment lacks the columns of its key.
    """
    if len(tables) == 1:
        _check(tables[0], [escape(name) for name in key])
        if tables[0].column(KEY).null_count == tables[0].num_rows:
            return tables[0].drop_columns([KEY])
    return merged(tables, key)


def merged(tables: list[pa.Table], key: tuple[str, ...]) -> pa.Table:
    """Merge segments, oldest first, into rows with `_key`, without tombstones, sorted by key.

    A part that never had a row has no segment, and merges into a table without columns.

    Args:
        tables: Segments, oldest first, each with `_key` (large_binary; set for tombstones only) and the canonical
            columns.
        key: Names of the key columns.

    Raises:
        CorruptionDetected: A segment lacks the columns of its key.
    """
    if not tables:
        return pa.table({})
    keyed = [_with_keys(table, key) for table in tables]
    if len(keyed) == 1 and not pc.any(keyed[0].column(DELETED)).as_py():
        return keyed[0].drop_columns([DELETED])
    bottom, *upper = unify(keyed)
    if not pc.any(bottom.column(DELETED)).as_py() and is_sorted(one_chunk(bottom.column(KEY))):
        return _laid_over(bottom, _latest(upper)).drop_columns([DELETED])
    latest = _latest([bottom, *upper])
    return latest.filter(pc.invert(latest.column(DELETED))).drop_columns([DELETED])


def _latest(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the newest row of each key, tombstones among them, sorted by key."""
    whole = pa.concat_tables(tables[::-1]).combine_chunks()
    latest = whole.take(pa.array(newest(one_chunk(whole.column(KEY)))))
    return latest.take(pc.sort_indices(one_chunk(latest.column(KEY))))


def _laid_over(bottom: pa.Table, over: pa.Table) -> pa.Table:
    """Lay rows over others, both sorted by key; only pieces in which something changed are copied."""
    keys, pieces, last = one_chunk(over.column(KEY)), list[pa.Table](), 0
    for start in range(0, max(bottom.num_rows, 1), _BLOCK_ROWS):
        block = bottom.slice(start, _BLOCK_ROWS)
        following = bottom.slice(start + _BLOCK_ROWS, 1).column(KEY)
        end = first_not_below(keys, following[0].as_py(), last) if len(following) else over.num_rows
        if end > last:
            some, last = over.slice(last, end - last), end
            stays = block.filter(pc.invert(pc.is_in(block.column(KEY), some.column(KEY).combine_chunks())))
            block = pa.concat_tables([stays, some.filter(pc.invert(some.column(DELETED)))]).combine_chunks()
            block = block.take(pc.sort_indices(one_chunk(block.column(KEY))))
        pieces.append(block)
    return pa.concat_tables(pieces)


def _with_keys(table: pa.Table, key: tuple[str, ...]) -> pa.Table:
    columns = [escape(name) for name in key]
    _check(table, columns)
    stored = table.column(KEY)
    rows = table.drop_columns([KEY])
    deleted = one_chunk(stored.is_valid())
    keys = encode_keys(rows, columns)
    if deleted.true_count:
        keys = pc.coalesce(one_chunk(stored), keys)
    return rows.add_column(0, DELETED, deleted).add_column(0, KEY, keys)


def _check(table: pa.Table, columns: list[str]) -> None:
    lacking = [name for name in (KEY, *columns) if name not in table.column_names]
    if lacking or table.schema.field(KEY).type != pa.large_binary():
        raise CorruptionDetected(
            f"a segment has no column {lacking[0] if lacking else KEY} of the right type",
            hint="It was not made by lastgood. Do not trust this backup.",
        )
