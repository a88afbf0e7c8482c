"""What has to be stored of a part: its changes against what the base's index holds; only indexes are compared.

The rows that are stored are upserts, without `_key` (it follows from the key columns), and tombstones: `_key`, and
NULL in every other column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import DIGEST, KEY, one_chunk
from blocks.rows.index import PartIndex, positions
from blocks.rows.keys import no_keys
from blocks.rows.overlay import DELETED

_NULLS = 1 << 16
_RUNS = 1 << 10
"""Pieces up to which rows are put together without a copy."""


@dataclass(frozen=True)
class Changes:
    """A part after `diff`: what has to be stored.

    Attributes:
        rows: `_key` (large_binary) and the collection's columns in their canonical types. An upsert has NULL as `_key`,
            as its key columns are there; a tombstone has a `_key`, and NULL in all other columns.
        index: `_key` (large_binary), `_digest` (uint64) and `_deleted` (bool) of the same records, in the same order:
            sorted by `_key`.
        upserts: How many records were inserted or changed.
        tombstones: How many records were deleted.
        count: How many records the part has now.
        elsewhere_bytes: What the values take that the rows only refer to (same.py).
    """

    rows: pa.Table
    index: pa.Table
    upserts: int
    tombstones: int
    count: int
    elsewhere_bytes: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be stored."""
        return not self.upserts and not self.tombstones


def changes_between(base: PartIndex, rows: pa.Table, unchanged: pa.LargeBinaryArray | None = None) -> Changes:
    """Find the upserts and tombstones that lead from a base to now, where the part was read as a whole.

    Args:
        base: Keys and digests of the base.
        rows: Normalised rows: `_key` (large_binary), `_digest` (uint64) and the canonical columns, sorted by `_key`.
        unchanged: Keys of the base which are still there with the same content and are not among `rows`; None for none.
    """
    if not len(base):
        return changes_by_updates(rows, rows.num_rows)
    keys = one_chunk(rows.column(KEY))
    found = positions(keys, base.keys)
    upserts = _others(rows, base.digests.take(found))
    still = np.zeros(len(base), np.bool_)
    still[found.drop_null()] = True
    count = rows.num_rows
    if unchanged is not None:
        still |= pc.is_in(base.keys, unchanged).to_numpy(zero_copy_only=False)
        count += len(unchanged)
    return _changes(upserts, base.keys.filter(pa.array(~still)), count)


def changes_by_delta(base: PartIndex, rows: pa.Table, reread: pa.LargeBinaryArray | None = None) -> Changes:
    """Find the upserts and tombstones that lead from a base to now, where most of the part was not read.

    Args:
        base: Keys and digests of the base. It holds all records of now but those among `rows`.
        rows: Normalised rows: `_key` (large_binary), `_digest` (uint64) and the canonical columns, sorted by `_key`.
        reread: Keys of the base that are gone unless they are among `rows`; None for none.
    """
    if not len(base):
        return changes_by_updates(rows, rows.num_rows)
    gone = no_keys()
    keys = one_chunk(rows.column(KEY))
    held = base.find(keys)
    if reread is not None and len(reread):
        gone = reread.filter(pc.invert(pc.is_in(reread, keys)))
    return _changes(_others(rows, held), gone, len(base) + held.null_count - len(gone))


def changes_by_updates(rows: pa.Table, count: int) -> Changes:
    """Take all rows for changes, without a look at the base.

    Args:
        rows: Normalised rows: `_key` (large_binary), `_digest` (uint64) and the canonical columns, sorted by `_key`.
        count: How many records the part has now.
    """
    return _changes(rows, no_keys(), count)


def _others(rows: pa.Table, held: pa.UInt64Array) -> pa.Table:
    """Return the rows whose digests are not those that the base holds for them, where it holds one at all."""
    same = pc.fill_null(pc.equal(held, one_chunk(rows.column(DIGEST))), False)
    return rows.filter(pc.invert(same)) if same.true_count else rows


def _changes(upserts: pa.Table, gone: pa.LargeBinaryArray, count: int) -> Changes:
    rows, index = _segment_rows(upserts, gone), _index(upserts, gone)
    if len(gone):
        order = pc.sort_indices(index.column(KEY))
        rows, index = _in_order(rows, order), index.take(order)
    return Changes(rows, index, upserts.num_rows, len(gone), count)


def _segment_rows(upserts: pa.Table, gone: pa.LargeBinaryArray) -> pa.Table:
    rows = upserts.drop_columns([DIGEST, KEY]).add_column(0, KEY, _no_texts(upserts.num_rows))
    if not len(gone):
        return rows
    nothing = [gone, *(pa.nulls(len(gone), field.type) for field in list(rows.schema)[1:])]
    return pa.concat_tables([rows, pa.Table.from_arrays(nothing, schema=rows.schema)])


def _in_order(rows: pa.Table, order: pa.UInt64Array) -> pa.Table:
    """Put rows into an order; without a copy where few tombstones come between many rows."""
    places = order.to_numpy().astype(np.int64)
    ends = [*(np.flatnonzero(np.diff(places) != 1) + 1), len(places)]
    if len(ends) > _RUNS:
        return rows.take(order)
    starts = [0, *ends[:-1]]
    return pa.concat_tables(
        [rows.slice(int(places[start]), int(end - start)) for start, end in zip(starts, ends, strict=True)]
    )


def _no_texts(count: int) -> pa.ChunkedArray:
    """Return so many NULLs, whose room does not grow with them."""
    some = pa.nulls(min(count, _NULLS), pa.large_binary())
    pieces = [some.slice(0, count - start) for start in range(0, count, _NULLS)]
    return pa.chunked_array(pieces, pa.large_binary())


def _index(upserts: pa.Table, gone: pa.LargeBinaryArray) -> pa.Table:
    keys, digests = one_chunk(upserts.column(KEY)), one_chunk(upserts.column(DIGEST))
    if len(gone):
        keys = pa.concat_arrays([keys, gone])
        digests = pa.concat_arrays([digests, pa.repeat(pa.scalar(0, pa.uint64()), len(gone))])
    deleted = pa.concat_arrays([pa.repeat(pa.scalar(False), upserts.num_rows), pa.repeat(pa.scalar(True), len(gone))])
    return pa.table({KEY: keys, DIGEST: digests, DELETED: deleted})
