"""Stage 5: seal in authenticated chunks, and open again."""

from __future__ import annotations

import pyarrow as pa

from blocks.crypto.stream import ObjectKind, seal
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import CompressedPart, Piece, SealedPart
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task


@task(task_run_name="encrypt {part}", tags=["stage"], **PURE)
def encrypt(part: BackupPart, packed: OneShot[CompressedPart | None]) -> OneShot[SealedPart | None]:
    """Seal the data under the backup's key and the index under the catalogue's; each is opened again and compared."""
    what = packed.take()
    if what is None:
        return OneShot(None)
    data = seal(what.data, part.attempt.data_key, part.object_context(ObjectKind.SEGMENT))
    catalogue_key = part.attempt.context.repository.keys.catalogue_key
    index = seal(what.index, catalogue_key, part.object_context(ObjectKind.INDEX))
    return OneShot(
        SealedPart(
            data=data,
            index=index,
            upserts=what.upserts,
            tombstones=what.tombstones,
            count=what.count,
            size_bytes=what.size_bytes,
            size_compressed=what.size_compressed,
        )
    )


@task(task_run_name="decrypt {part}", tags=["stage"], **PURE)
def decrypt(part: RestorePart, pieces: OneShot[list[Piece]]) -> OneShot[list[pa.Buffer]]:
    """Open the sealed objects of one part's chain."""
    return OneShot([piece.open() for piece in pieces.take()])
