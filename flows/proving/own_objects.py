"""A proof of what one backup stored itself: its own objects, and nothing of those below it.

Each row that the backup stored is compared with its entry in the index that was stored with it. Where that holds of
every backup of a chain, what the chain's data merge to is what its indexes merge to, so that the rows of the backup are
proved without the data below being read once more for each backup that depends on them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, UnsupportedState
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.block import Repository
from blocks.rows.canonical import KEY, one_chunk
from blocks.rows.index import PartIndex
from blocks.rows.merge import with_keys
from blocks.rows.normalize import from_normal
from blocks.rows.overlay import DELETED
from blocks.verification import Axis, AxisResult, CheckOutcome, Depth, Verification
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.chain_segments import StoredSegment
from flows.pipeline.executor import BoundedWindow, open_executor
from flows.pipeline.one_shot import OneShot
from flows.pipeline.prefect_compat import PURE, task
from flows.pipeline.progress import Progress
from flows.pipeline.tool_versions import tool_versions
from flows.proving.proof import compare
from flows.stages.compress import decompress
from flows.stages.encrypt import decrypt
from flows.stages.record import find
from flows.stages.store import fetch


class OwnPart(RestorePart):
    """One part of a backup that passes the restore stages with the segment alone that the backup stored of it."""

    def stored(self) -> Sequence[StoredSegment]:
        """Return the segment that the backup on top stored."""
        return [stored for stored in super().stored() if stored[0] is self.chain.target]


def own_parts(chain: Chain) -> Iterator[OwnPart]:
    """Yield the parts of which the backup on top of a chain stored something."""
    for collection in chain.target.collections:
        for part in collection.parts:
            if part.segment is not None:
                yield OwnPart(chain, collection, part, None)


def prove_own(
    plan: BackupPlan,
    repository: Repository,
    backup: BackupMetadata,
    stands_on: Mapping[str, int],
    run_at: datetime,
    progress: Progress | None = None,
) -> Verification:
    """Prove the rows of a backup that depends on others by its own objects; the result is not recorded yet.

    Args:
        plan: The plan.
        repository: Its repository.
        backup: The backup.
        stands_on: By id the number of the verification by which each backup that it depends on was proved.
        run_at: When the run began that this is part of.
        progress: Told of parts.

    Raises:
        RepositoryUnavailable: The storage failed or refused, which says nothing of the backup.
    """
    started, rows, bad = time.monotonic(), 0, list[str]()
    try:
        with open_executor() as executor:
            found = executor.submit(find, repository, plan.name, backup.backup_id)
            chain: Chain = found.result()
            chain.open_data({})
            chain.proving = True
            window: BoundedWindow[OwnPart] = BoundedWindow(own_parts(chain), progress=progress)
            for part in window:
                pieces = executor.submit(fetch, part, after=[found])
                packed = executor.submit(decrypt, part, pieces)
                changes = executor.submit(decompress, part, packed)
                window.follow(part, pieces, packed, changes, executor.submit(prove_segment, part, changes))
            rows = sum(outcome.result() for outcome in window.last)
    except (CorruptionDetected, UnsupportedState) as exc:
        bad.append(exc.message)
    results = {axis.value: AxisResult(outcome=CheckOutcome.UNTRIED) for axis in Axis}
    outcome = CheckOutcome.BAD if bad else CheckOutcome.GOOD
    results[Axis.BYTES.value] = AxisResult(outcome=outcome, depth=Depth.ROWS.value, findings=tuple(bad))
    return Verification(
        plan=plan.name,
        backup_id=backup.backup_id,
        manifest_sha256=repository.link(backup).manifest_sha256,
        verified_at=datetime.now(UTC),
        deep=False,
        status=BackupStatus.CORRUPTED if bad else BackupStatus.VERIFIED,
        rows=rows,
        expectations=0,
        seconds=round(time.monotonic() - started, 3),
        findings=tuple(bad),
        results=results,
        stands_on=dict(stands_on),
        run_at=run_at,
        tool_versions=tool_versions(),
    )


@task(task_run_name="prove {part}", tags=["stage"], **PURE)
def prove_segment(part: OwnPart, tables: OneShot[list[pa.Table]]) -> int:
    """Compare the rows and deletions of one segment with its index; return how many there are."""
    (table,) = tables.take()
    ((backup, collection, segment),) = part.stored()
    what = f"{part} of {backup.backup_id}"
    index = part.chain.segment_index(backup, collection, part.part.number, segment)
    stored = with_keys(part.filled(table), part.spec.key)
    deleted = stored.column(DELETED)
    if deleted.combine_chunks().true_count != segment.tombstones:
        raise CorruptionDetected(f"{what}: it has not as many deletions as its manifest says")
    gone = one_chunk(stored.filter(deleted).column(KEY))
    if not gone.sort().equals(one_chunk(index.filter(index.column(DELETED)).column(KEY)).sort()):
        raise CorruptionDetected(f"{what}: its deletions are not those of its index")
    _check_count(part, what)
    living = pc.invert(deleted)
    expected = PartIndex([index.filter(pc.invert(index.column(DELETED)))])
    rows = from_normal(stored.filter(living).drop_columns([DELETED]))
    compare(what, expected, rows, part.spec.key, part.chain.index_digest)
    return len(index)


def _check_count(part: OwnPart, what: str) -> None:
    """Check that the number of rows which the manifest has can come of that of the base and of what was stored."""
    segment, base = part.part.segment, part.chain.backups[-2] if len(part.chain.backups) > 1 else None
    if segment is None or base is None:
        return
    collection = next(c for c in base.collections if c.name == part.collection.name)
    before = next(one.rows for one in collection.parts if one.number == part.part.number)
    if not before - segment.tombstones <= part.part.rows <= before + segment.upserts:
        raise CorruptionDetected(
            f"{what}: its manifest has {part.part.rows} rows, which do not come of {before} in {base.backup_id}"
        )
