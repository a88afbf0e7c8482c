"""Stage 4: Arrow to Parquet with zstd, and back; small parts wait for others, and are packed with them."""

from __future__ import annotations

import pyarrow as pa

from blocks.rows.changes import Changes
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import CompressedParts, FoundRows, Opened
from flows.pipeline.one_shot import OneShot
from flows.pipeline.packing import packed_alone, packed_together
from flows.pipeline.prefect_compat import PURE, task
from flows.pipeline.run_log import tally
from flows.pipeline.small_parts import SMALL_BYTES, SharedParts, size


@task(task_run_name="compress {part}", tags=["stage"], **PURE)
def compress(part: BackupPart | SharedParts, changes: OneShot[Changes | None]) -> OneShot[CompressedParts | None]:
    """Pack the changes of one part: the rows, and the index of keys and digests.

    A small part waits for others. It gives on no part, or all that wait, where it makes them enough; those that are
    left at the end come as one, with their changes.
    """
    if isinstance(part, SharedParts):
        return OneShot(packed_together(part))
    what = changes.take()
    if what is None:
        return OneShot(None)
    if size(what) <= SMALL_BYTES:
        shared = part.attempt.small.add(part, what)
        return OneShot(packed_together(shared) if shared else CompressedParts(b"", b"", []))
    held = [what]
    del what  # so that its rows are let go of while they are packed
    return OneShot(packed_alone(part, held))


@task(task_run_name="decompress {part}", tags=["stage"], **PURE)
def decompress(part: RestorePart, packed: OneShot[list[Opened | FoundRows]]) -> OneShot[list[pa.Table]]:
    """Unpack the rows of a chain's segments, oldest first."""
    opened = packed.take()
    tables = part.tables(opened)
    tally(rows=sum(table.num_rows for table in tables), size_bytes=sum(table.nbytes for table in tables))
    if part.chain.proving:
        part.check_lookups([one for one in opened if isinstance(one, Opened)], tables)
    return OneShot(tables)
