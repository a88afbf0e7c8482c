"""Stage 5: seal in authenticated chunks, and open again."""

from __future__ import annotations

from blocks.crypto.stream import ObjectKind, seal
from flows.pipeline.attempt import BackupPart
from flows.pipeline.chain import RestorePart
from flows.pipeline.messages import AnyPiece, CompressedParts, FoundRows, Opened, SealedParts
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task
from flows.pipeline.run_log import tally
from flows.pipeline.small_parts import SharedParts


@task(task_run_name="encrypt {part}", tags=["stage"], **PURE)
def encrypt(part: BackupPart | SharedParts, packed: OneShot[CompressedParts | None]) -> OneShot[SealedParts | None]:
    """Seal the data under the backup's key and the index under the catalogue's; each is opened again and compared."""
    what, attempt = packed.take(), part.attempt
    if what is None:
        return OneShot(None)
    if not what.members:
        return OneShot(SealedParts((0, b""), (0, b""), []))
    data, index = attempt.packs.new_number(), attempt.packs.new_number()
    catalogue_key = attempt.context.repository.keys.catalogue_key
    sealed = SealedParts(
        (data, seal(what.data, attempt.data_key, attempt.object_context(ObjectKind.SEGMENT, data))),
        (index, seal(what.index, catalogue_key, attempt.object_context(ObjectKind.INDEX, index))),
        what.members,
    )
    tally(parts=len(what.members), size_bytes=len(sealed.data[1]) + len(sealed.index[1]))
    return OneShot(sealed)


@task(task_run_name="decrypt {part}", tags=["stage"], **PURE)
def decrypt(part: RestorePart, pieces: OneShot[list[AnyPiece]]) -> OneShot[list[Opened | FoundRows]]:
    """Open the sealed blobs of one part's chain."""
    opened = [piece.open() for piece in pieces.take()]
    tally(blobs=len(opened), size_bytes=sum(one.size_bytes for one in opened if isinstance(one, Opened)))
    return OneShot(opened)
