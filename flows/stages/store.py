"""Stage 6: put sealed objects into the repository, durably, and fetch them."""

from __future__ import annotations

from blocks.records import Segment
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import Piece, SealedPart, Stored
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import RETRIED, task


@task(task_run_name="store {part}", tags=["stage"], **RETRIED)
def store(part: BackupPart, sealed: OneShot[SealedPart | None]) -> Stored:
    """Store one part's data and index; storing the same part again, after a failure, is harmless."""
    what = sealed.peek()
    if what is None:
        return Stored(None, part.base_rows)
    number = part.attempt.segment_number(part)
    data = part.attempt.put(f"{number:05d}.seg", what.data)
    index = part.attempt.put(f"{number:05d}.idx", what.index)
    sealed.empty()
    return Stored(
        Segment(
            number=number,
            data=data,
            index=index,
            upserts=what.upserts,
            tombstones=what.tombstones,
            size_bytes=what.size_bytes,
            size_compressed=what.size_compressed,
        ),
        what.count,
    )


@task(task_run_name="fetch {part}", tags=["stage"], **RETRIED)
def fetch(part: RestorePart) -> OneShot[list[Piece]]:
    """Fetch the sealed data of one part's chain, oldest first; sizes and checksums are compared."""
    return OneShot(part.chain.pieces(part))
