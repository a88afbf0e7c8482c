"""What is stored of parts, packed: of one by itself, or of several small ones together."""

from __future__ import annotations

from blocks.rows.canonical import KEY
from blocks.rows.changes import Changes
from blocks.rows.key_range import key_range
from blocks.rows.parquet import index_to_parquet, rows_to_parquet
from blocks.rows.shared import join_indexes, join_rows
from flows.pipeline.attempt import BackupPart
from flows.pipeline.messages import CompressedParts, StoredPart
from flows.pipeline.small_parts import SharedParts, size


def packed_alone(part: BackupPart, changes: Changes) -> CompressedParts:
    """Pack one part as two Parquet files: its rows, and its index."""
    keys = changes.index.column(KEY).combine_chunks()
    data = rows_to_parquet(changes.rows, keys, part.attempt.context.plan.compression.level)
    index = index_to_parquet(changes.index)
    return CompressedParts(data, index, [_stored(part, changes, len(data) + len(index))])


def packed_together(shared: SharedParts) -> CompressedParts:
    """Pack several small parts as one blob of data and one of indexes."""
    data, rows_at = join_rows([changes.rows for changes in shared.changes])
    index, index_at = join_indexes([changes.index for changes in shared.changes])
    packed, plain = len(data) + len(index), sum(map(size, shared.changes))
    return CompressedParts(
        data,
        index,
        [
            _stored(part, changes, packed * size(changes) // max(plain, 1), places)
            for part, changes, places in zip(
                shared.parts, shared.changes, zip(rows_at, index_at, strict=True), strict=True
            )
        ],
    )


def _stored(
    part: BackupPart,
    changes: Changes,
    size_compressed: int,
    places: tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> StoredPart:
    keys = changes.index.column(KEY).combine_chunks()
    digest = part.attempt.context.filter_digest if part.attempt.filters else None
    return StoredPart(part, changes, key_range(changes.rows, keys, part.spec.key, digest), size_compressed, places)
