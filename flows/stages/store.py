"""Stage 6: put sealed objects into the repository, durably, and fetch them."""

from __future__ import annotations

from blocks.manifest import Segment
from flows.box import Box
from flows.engine import OUTSIDE, task
from flows.parcel import PartJob, Piece, RestorePart, Sealed, Stored


@task(task_run_name="store {part}", tags=["stage"], **OUTSIDE)
def store(part: PartJob, sealed: Box[Sealed | None]) -> Stored:
    """Store one part's data and index; storing the same part again, after a failure, is harmless."""
    what = sealed.peek()
    if what is None:
        return Stored(None, part.rows)
    number = part.job.segment_number(part)
    data = part.job.put(f"{number:05d}.seg", what.data)
    index = part.job.put(f"{number:05d}.idx", what.index)
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
        part.rows,
    )


@task(task_run_name="fetch {part}", tags=["stage"], **OUTSIDE)
def fetch(part: RestorePart) -> Box[list[Piece]]:
    """Fetch the sealed data of one part's chain, oldest first; sizes and checksums are compared."""
    return Box(part.chain.pieces(part))
