"""Stage 6: put sealed blobs into the repository, durably, and fetch them."""

from __future__ import annotations

from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import AnyPiece, Piece, SealedParts, Stored
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import RETRIED, task
from flows.pipeline.run_log import tally
from flows.pipeline.small_parts import SharedParts


@task(task_run_name="store {part}", tags=["stage"], **RETRIED)
def store(part: BackupPart | SharedParts, sealed: OneShot[SealedParts | None]) -> list[tuple[BackupPart, Stored]]:
    """Store data and index of one part, or of several small ones; doing it again, after a failure, is harmless."""
    what, packs = sealed.peek(), part.attempt.packs
    if what is None:
        return [(part, Stored(None, part.base_rows))] if isinstance(part, BackupPart) else []
    if not what.members:
        return []
    data, index = packs.add(*what.data), packs.add(*what.index)
    context = part.attempt.context
    context.repository.keep_index(context.plan.name, part.attempt.backup_id, what.index[1])
    tally(parts=len(what.members), size_bytes=len(what.data[1]) + len(what.index[1]))
    sealed.empty()
    return [(member.part, Stored(member.segment(data, index), member.count)) for member in what.members]


@task(task_run_name="fetch {part}", tags=["stage"], **RETRIED)
def fetch(part: RestorePart) -> OneShot[list[AnyPiece]]:
    """Fetch the sealed data of one part's chain, oldest first; sizes and checksums are compared.

    Where keys are written out, only what can hold them is fetched, and comes as rows.
    """
    pieces = part.pieces()
    tally(blobs=len(pieces), size_bytes=sum(len(one.sealed) for one in pieces if isinstance(one, Piece)))
    return OneShot(pieces)
