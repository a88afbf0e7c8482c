"""What is stored of parts, packed: of one by itself, of whatever size it is, or of several small ones together."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa

from blocks.errors import ConfigurationError, TemporaryFolderUnusable
from blocks.host.leftovers import kept_temporarily, scratch_folder
from blocks.rows.canonical import KEY, one_chunk
from blocks.rows.changes import Changes
from blocks.rows.key_range import key_range
from blocks.rows.parquet import Grouping, index_to_parquet, write_parquet
from blocks.rows.shared import join_indexes, join_rows
from flows.pipeline.attempt import BackupPart
from flows.pipeline.messages import CompressedParts, StoredPart
from flows.pipeline.run_log import tally
from flows.pipeline.small_parts import SharedParts, size

_LARGE_BYTES = 256 * 1024 * 1024
"""Only a row that is very large, or very many rows of one key, make a part so large."""


def packed_alone(part: BackupPart, held: list[Changes]) -> CompressedParts:
    """Pack one part as two Parquet files: its rows, and its index.

    Args:
        part: The part.
        held: Its changes alone; the list is emptied, so that they are let go of as soon as they are packed.
    """
    changes = held.pop()
    stored = _stored(part, changes)
    groups = Grouping.of(changes.rows, one_chunk(changes.index.column(KEY)))
    # the index first: it is the smaller one, and is let go of before the rows are packed
    index, rows = index_to_parquet(changes.index), [changes.rows]
    del changes
    data = packed_rows(rows, groups, part.attempt.context.plan.compression.level)
    stored.size_compressed = len(data) + len(index)
    tally(parts=1, size_bytes=len(data) + len(index))
    return CompressedParts(data, index, [stored])


def packed_rows(rows: list[pa.Table], groups: Grouping, level: int) -> pa.Buffer:
    """Pack the one table of a list, which is emptied: the file of a large part waits on disk until the rows are gone.

    Where there is no room for that, it is made in memory as those of other parts are.
    """
    if rows[0].nbytes >= _LARGE_BYTES:
        with suppress(ConfigurationError, TemporaryFolderUnusable), scratch_folder("packed") as folder:
            with kept_temporarily("a large part", folder), pa.OSFile(str(folder / "part"), "wb") as file:
                write_parquet(rows[0], groups, level, file)
            rows.clear()
            return pa.py_buffer((folder / "part").read_bytes())
    sink = pa.BufferOutputStream()
    write_parquet(rows.pop(), groups, level, sink)
    return sink.getvalue()


def packed_together(shared: SharedParts) -> CompressedParts:
    """Pack several small parts as one blob of data and one of indexes."""
    data, rows_at = join_rows([changes.rows for changes in shared.changes])
    index, index_at = join_indexes([changes.index for changes in shared.changes])
    packed, plain = len(data) + len(index), sum(map(size, shared.changes))
    members = []
    for n, (part, changes) in enumerate(zip(shared.parts, shared.changes, strict=True)):
        stored = _stored(part, changes)
        stored.rows_at, stored.index_at = rows_at[n], index_at[n]
        stored.size_compressed = packed * size(changes) // max(plain, 1)
        members.append(stored)
    tally(parts=len(members), size_bytes=packed)
    return CompressedParts(data, index, members)


def _stored(part: BackupPart, changes: Changes) -> StoredPart:
    keys = one_chunk(changes.index.column(KEY))
    digest = part.attempt.context.filter_digest if part.attempt.filters else None
    range_ = key_range(changes.rows, keys, part.spec.key, digest)
    part.attempt.filter_bytes += len(range_.filter or "")
    return StoredPart(part, changes, range_)
