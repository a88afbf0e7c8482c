"""Laying rows, or the entries of indexes, over those of an older backup; both have `_key` and `_deleted`."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import KEY, first_not_below, newest, one_chunk

DELETED = "_deleted"
_BLOCK_ROWS = 1 << 16


def latest(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the newest row of each key, tombstones among them, sorted by key."""
    whole = pa.concat_tables(tables[::-1]).combine_chunks()
    found = whole.take(pa.array(newest(one_chunk(whole.column(KEY)))))
    return found.take(pc.sort_indices(one_chunk(found.column(KEY))))


def laid_over(bottom: pa.Table, over: pa.Table) -> pa.Table:
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
