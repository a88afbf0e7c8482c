"""Stage 6: put sealed blobs into the repository, durably, and fetch them."""

from __future__ import annotations

import pyarrow as pa

from blocks.records import Blob, Segment
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import Piece, SealedParts, SharedPiece, Stored, StoredPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import RETRIED, task
from flows.pipeline.small_parts import SharedParts


@task(task_run_name="store {part}", tags=["stage"], **RETRIED)
def store(part: BackupPart | SharedParts, sealed: OneShot[SealedParts | None]) -> list[tuple[BackupPart, Stored]]:
    """Store data and index of one part, or of several small ones; doing it again, after a failure, is harmless."""
    what, packs = sealed.peek(), part.attempt.packs
    if what is None:
        return [(one, Stored(None, one.base_rows)) for one in ([part] if isinstance(part, BackupPart) else part.parts)]
    if not what.members:
        return []
    data, index = packs.add(*what.data), packs.add(*what.index)
    sealed.empty()
    return [(member.part, Stored(_segment(data, index, member), member.count)) for member in what.members]


@task(task_run_name="fetch {part}", tags=["stage"], **RETRIED)
def fetch(part: RestorePart) -> OneShot[list[Piece | SharedPiece]]:
    """Fetch the sealed data of one part's chain, oldest first; sizes and checksums are compared."""
    return OneShot(part.pieces())


@task(task_run_name="look up {part}", tags=["stage"], **RETRIED)
def look_up(part: RestorePart) -> OneShot[pa.Table]:
    """Read the rows of keys that are written out, and only little around them, in place of all stages of a part."""
    return OneShot(part.look_up())


def _segment(data: Blob, index: Blob, member: StoredPart) -> Segment:
    return Segment(
        data=data.model_copy(update={"shared": member.rows_at}),
        index=index.model_copy(update={"shared": member.index_at}),
        keys=member.keys,
        upserts=member.upserts,
        tombstones=member.tombstones,
        size_bytes=member.size_bytes,
        size_compressed=member.size_compressed,
    )
