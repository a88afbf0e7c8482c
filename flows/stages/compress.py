"""Stage 4: Arrow to Parquet with zstd, and back."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa

from blocks.errors import ConfigurationError, TemporaryFolderUnusable
from blocks.host.leftovers import kept_temporarily, scratch_folder
from blocks.rows.changes import Changes
from blocks.rows.parquet import from_parquet, index_to_parquet, rows_to_parquet, write_parquet
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import CompressedPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task

_LARGE_BYTES = 256 * 1024 * 1024
"""Only a row that is very large, or very many rows of one key, make a part so large."""


@task(task_run_name="compress {part}", tags=["stage"], **PURE)
def compress(part: BackupPart, changes: OneShot[Changes | None]) -> OneShot[CompressedPart | None]:
    """Pack the changes of one part as two Parquet files: the rows, and the index of keys and digests."""
    what = changes.take()
    if what is None:
        return OneShot(None)
    # the index first: it is the smaller one, and is let go of before the rows are packed
    index, size_bytes = index_to_parquet(what.index), what.rows.nbytes
    upserts, tombstones, count, rows = what.upserts, what.tombstones, what.count, [what.rows]
    del what
    data = _packed(rows, part.attempt.context.plan.compression.level)
    return OneShot(CompressedPart(data, index, upserts, tombstones, count, size_bytes))


def _packed(rows: list[pa.Table], level: int) -> pa.Buffer:
    """Pack the one table of a list, which is emptied: the file of a large part waits on disk until the rows are gone.

    Where there is no room for that, it is made in memory as those of other parts are.
    """
    if rows[0].nbytes >= _LARGE_BYTES:
        with suppress(ConfigurationError, TemporaryFolderUnusable), scratch_folder("packed") as folder:
            with kept_temporarily("a large part", folder), pa.OSFile(str(folder / "part"), "wb") as file:
                write_parquet(rows[0], level, file)
            rows.clear()
            return pa.py_buffer((folder / "part").read_bytes())
    return rows_to_parquet(rows.pop(), level)


@task(task_run_name="decompress {part}", tags=["stage"], **PURE)
def decompress(part: RestorePart, packed: OneShot[list[pa.Buffer]]) -> OneShot[list[pa.Table]]:
    """Unpack a chain's Parquet files, oldest first."""
    return OneShot([from_parquet(data, f"data of {part}") for data in packed.take()])
