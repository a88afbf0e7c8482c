"""Stage 4: Arrow to Parquet with zstd, and back; small parts wait for others, and are packed with them."""

from __future__ import annotations

import pyarrow as pa

from blocks.rows.canonical import KEY
from blocks.rows.changes import Changes
from blocks.rows.key_range import key_range
from blocks.rows.parquet import index_to_parquet, rows_to_parquet
from blocks.rows.shared import join_indexes, join_rows
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import CompressedParts, Opened, StoredPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task
from flows.pipeline.small_parts import SMALL_BYTES, SharedParts, size


@task(task_run_name="compress {part}", tags=["stage"], **PURE)
def compress(part: BackupPart, changes: OneShot[Changes | None]) -> OneShot[CompressedParts | None]:
    """Pack the changes of one part: the rows, and the index of keys and digests.

    A small part waits for others. It gives on no part, or all that wait, where it makes them enough.
    """
    what = changes.take()
    if what is None:
        return OneShot(None)
    if size(what) <= SMALL_BYTES:
        shared = part.attempt.small.add(part, what)
        return OneShot(_together(shared) if shared else CompressedParts(b"", b"", []))
    keys = what.index.column(KEY).combine_chunks()
    data = rows_to_parquet(what.rows, keys, part.attempt.context.plan.compression.level)
    index = index_to_parquet(what.index)
    return OneShot(CompressedParts(data, index, [_stored(part, what, len(data) + len(index))]))


@task(task_run_name="compress {shared}", tags=["stage"], **PURE)
def compress_together(shared: SharedParts) -> OneShot[CompressedParts | None]:
    """Pack the small parts that are left at the end."""
    return OneShot(_together(shared))


@task(task_run_name="decompress {part}", tags=["stage"], **PURE)
def decompress(part: RestorePart, packed: OneShot[list[Opened]]) -> OneShot[list[pa.Table]]:
    """Unpack the rows of a chain's segments, oldest first."""
    opened = packed.take()
    tables = [one.rows() for one in opened]
    if part.chain.proving:
        part.check_lookups(opened, tables)
    return OneShot(tables)


def _together(shared: SharedParts) -> CompressedParts:
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
