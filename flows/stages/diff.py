"""Stage 3: keep what changed against the base, and lay a chain's changes over its full.

The rows of a segment are its upserts, without `_key` (the key columns tell it), and its tombstones: `_key`, and NULL in
every other column. Going down, only indexes are compared; going up, only rows are read.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.canonical import DIGEST, KEY, escape, newest, unify
from blocks.errors import CorruptionDetected
from blocks.partindex import DELETED, PartIndex, positions
from blocks.rowkeys import encode_keys
from flows.box import Box
from flows.engine import INSIDE, task
from flows.parcel import Changes, Normal, PartJob, RestorePart

_INDEX_ROW_BYTES = 8
"""Least that an index stores of a row: its digest, which does not compress."""


@task(task_run_name="diff {part}", tags=["stage"], **INSIDE)
def diff(part: PartJob, normal: Box[Normal]) -> Box[Changes | None]:
    """Compare one part with the base's index of it; None where nothing changed."""
    now = normal.take()
    if now.whole_part_unchanged:
        part.rows = part.base_rows
        part.drop_base()  # which a source may have prepared
        return Box(None)
    if now.only_replaced and now.rows.nbytes < part.base_rows * _INDEX_ROW_BYTES:
        # to fetch the index would cost more than could be saved by leaving out rows that are as they were
        changes = _changes(now.rows, _no_keys(), part.base_rows)
    else:
        changes = changes_between(part.base(), now.rows, now.unchanged, now.rest_unchanged, now.touched)
    part.rows = changes.count
    part.drop_base()
    return Box(changes if changes.upserts or changes.tombstones else None)


@task(task_run_name="merge {part}", tags=["stage"], **INSIDE)
def merge(part: RestorePart, tables: Box[list[pa.Table]]) -> Box[pa.Table]:
    """Lay the segments of one part's chain, oldest first, over each other: the part as it was."""
    return Box(as_it_was(tables.take(), part.spec.key))


def as_it_was(tables: list[pa.Table], key: tuple[str, ...]) -> pa.Table:
    """Merge segments as `merged` does; where there is nothing to merge, rows come without their `_key`s.

    Raises:
        CorruptionDetected: A segment lacks the columns of its key.
    """
    if len(tables) == 1:
        _check(tables[0], [escape(name) for name in key])
        if tables[0].column(KEY).null_count == tables[0].num_rows:
            return tables[0].drop_columns([KEY])
    return merged(tables, key)


def changes_between(
    base: PartIndex,
    rows: pa.Table,
    unchanged: pa.LargeBinaryArray | None = None,
    rest_unchanged: bool = False,
    touched: pa.LargeBinaryArray | None = None,
) -> Changes:
    """Find the upserts and tombstones that lead from a base to now.

    Args:
        base: Keys and digests of the base.
        rows: Normalised rows of now.
        unchanged: Keys of the base which are still there with the same content and are not among `rows`.
        rest_unchanged: Whether that holds for all keys of the base that are neither among `rows` nor `touched`.
        touched: Keys of the base that are gone unless they are among `rows`.
    """
    gone = _no_keys()
    if not len(base):
        return _changes(rows, gone, rows.num_rows)
    keys = rows.column(KEY).combine_chunks()
    if rest_unchanged:
        held = base.find(keys)
        if touched is not None and len(touched):
            gone = touched.filter(pc.invert(pc.is_in(touched, keys)))
        return _changes(_others(rows, held), gone, len(base) + held.null_count - len(gone))
    found = positions(keys, base.keys)
    upserts = _others(rows, base.digests.take(found))
    still = np.zeros(len(base), np.bool_)
    still[found.drop_null()] = True
    count = rows.num_rows
    if unchanged is not None:
        still |= pc.is_in(base.keys, unchanged).to_numpy(zero_copy_only=False)
        count += len(unchanged)
    return _changes(upserts, base.keys.filter(pa.array(~still)), count)


def _no_keys() -> pa.LargeBinaryArray:
    return pa.array([], pa.large_binary())


def _others(rows: pa.Table, held: pa.UInt64Array) -> pa.Table:
    """Return the rows whose digests are not those that the base holds for them, where it holds one at all."""
    same = pc.fill_null(pc.equal(held, rows.column(DIGEST).combine_chunks()), False)
    return rows.filter(pc.invert(same)) if same.true_count else rows


def _changes(upserts: pa.Table, gone: pa.LargeBinaryArray, count: int) -> Changes:
    return Changes(_segment_rows(upserts, gone), _index(upserts, gone), upserts.num_rows, len(gone), count)


def merged(tables: list[pa.Table], key: tuple[str, ...]) -> pa.Table:
    """Merge segments, oldest first, into rows with `_key`, without tombstones, sorted by key.

    A part that never had a row has no segment, and merges into a table without columns.

    Raises:
        CorruptionDetected: A segment lacks the columns of its key.
    """
    if not tables:
        return pa.table({})
    keyed = [_with_keys(table, key) for table in tables]
    if len(keyed) == 1 and not keyed[0].column(DELETED).combine_chunks().true_count:
        return keyed[0].drop_columns([DELETED])
    whole = pa.concat_tables(unify(keyed)[::-1]).combine_chunks()
    latest = whole.take(pa.array(newest(whole.column(KEY).combine_chunks())))
    alive = latest.filter(pc.invert(latest.column(DELETED))).drop_columns([DELETED])
    return alive.take(pc.sort_indices(alive.column(KEY).combine_chunks()))


def _with_keys(table: pa.Table, key: tuple[str, ...]) -> pa.Table:
    columns = [escape(name) for name in key]
    _check(table, columns)
    stored = table.column(KEY).combine_chunks()
    rows = table.drop_columns([KEY])
    deleted = stored.is_valid()
    keys = encode_keys(rows, columns)
    if deleted.true_count:
        keys = pc.coalesce(stored, keys)
    return rows.add_column(0, DELETED, deleted).add_column(0, KEY, keys)


def _check(table: pa.Table, columns: list[str]) -> None:
    lacking = [name for name in (KEY, *columns) if name not in table.column_names]
    if lacking or table.schema.field(KEY).type != pa.large_binary():
        raise CorruptionDetected(
            f"a segment has no column {lacking[0] if lacking else KEY} of the right type",
            hint="It was not made by lastgood. Do not trust this backup.",
        )


def _segment_rows(upserts: pa.Table, gone: pa.LargeBinaryArray) -> pa.Table:
    rows = upserts.drop_columns([DIGEST, KEY]).add_column(0, KEY, pa.nulls(upserts.num_rows, pa.large_binary()))
    if not len(gone):
        return rows
    nothing = [gone, *(pa.nulls(len(gone), field.type) for field in list(rows.schema)[1:])]
    return pa.concat_tables([rows, pa.Table.from_arrays(nothing, schema=rows.schema)])


def _index(upserts: pa.Table, gone: pa.LargeBinaryArray) -> pa.Table:
    keys, digests = upserts.column(KEY).combine_chunks(), upserts.column(DIGEST).combine_chunks()
    if len(gone):
        keys = pa.concat_arrays([keys, gone])
        digests = pa.concat_arrays([digests, pa.repeat(pa.scalar(0, pa.uint64()), len(gone))])
    deleted = pa.concat_arrays([pa.repeat(pa.scalar(False), upserts.num_rows), pa.repeat(pa.scalar(True), len(gone))])
    index = pa.table({KEY: keys, DIGEST: digests, DELETED: deleted})
    return index.take(pc.sort_indices(keys)) if len(gone) else index
