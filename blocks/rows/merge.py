"""Laying the segments of a part's chain over each other: the part as it was.

The rows of a segment are its upserts, without `_key` (it follows from the key columns), and its tombstones: `_key`, and
NULL in every other column.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected
from blocks.rows.canonical import KEY, escape, is_sorted, one_chunk, unify
from blocks.rows.keys import encode_keys
from blocks.rows.overlay import DELETED, laid_over, latest


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
        return laid_over(bottom, latest(upper)).drop_columns([DELETED])
    found = latest([bottom, *upper])
    return found.filter(pc.invert(found.column(DELETED))).drop_columns([DELETED])


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
