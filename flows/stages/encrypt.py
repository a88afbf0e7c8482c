"""Stage 5: seal in authenticated chunks, and open again."""

from __future__ import annotations

import pyarrow as pa

from blocks.sealing import ObjectKind, seal, unseal
from flows.box import Box
from flows.engine import INSIDE, task
from flows.parcel import Packed, PartJob, Piece, RestorePart, Sealed


@task(task_run_name="encrypt {part}", tags=["stage"], **INSIDE)
def encrypt(part: PartJob, packed: Box[Packed | None]) -> Box[Sealed | None]:
    """Seal the data under the backup's key and the index under the catalogue's; each is opened again and compared."""
    what = packed.take()
    if what is None:
        return Box(None)
    job = part.job
    data = seal(what.data, job.data_key, job.context(part, ObjectKind.SEGMENT))
    index = seal(what.index, job.index_key, job.context(part, ObjectKind.INDEX))
    return Box(Sealed(data, index, what.upserts, what.tombstones, what.size_bytes, what.size_compressed))


@task(task_run_name="decrypt {part}", tags=["stage"], **INSIDE)
def decrypt(part: RestorePart, pieces: Box[list[Piece]]) -> Box[list[pa.Buffer]]:
    """Open the sealed objects of one part's chain."""
    return Box([open_piece(piece) for piece in pieces.take()])


def open_piece(piece: Piece) -> pa.Buffer:
    """Open one sealed object.

    Raises:
        CorruptionDetected: It is not what was sealed for this place.
    """
    return pa.py_buffer(unseal(piece.sealed, piece.key, piece.context))
