"""A rehearsal of a backup: what would be made, on which base, and how much of each collection, without storing any.

The state is read, and compared with the base, as a backup does both; what would be stored is counted before it is
compressed. No lease is taken, no hook runs, and nothing is written.
"""

from __future__ import annotations

from functools import partial

from pydantic import BaseModel

from blocks.errors import BaseUnusable
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from flows.pipeline.attempt import BackupPart, Rehearsal
from flows.pipeline.executor import retried
from flows.pipeline.open_backup import open_rehearsal
from flows.pipeline.progress import Progress
from flows.proving.suite_warnings import warn_of_suites
from flows.restoring.places import settle_places
from flows.stages.collect import collect
from flows.stages.diff import diff
from flows.stages.normalize import normalize


class CollectionCount(BaseModel):
    """What a backup would store of one collection.

    Attributes:
        collection: Full name.
        parts: Parts that it is read in.
        rows: Records that it holds now.
        upserts: Those that would be stored, since they are new or changed.
        tombstones: Records that are gone since the base.
        size_bytes: What would be stored takes as Arrow data, before compression.
    """

    collection: str
    parts: int = 0
    rows: int = 0
    upserts: int = 0
    tombstones: int = 0
    size_bytes: int = 0


class RehearsalResult(BaseModel):
    """What a backup would be.

    Attributes:
        backup_type: What would be made.
        requested_type: What was asked for.
        promoted_because: Why it would be a full one instead; None where it would not.
        base: Id of the backup that it would depend on; None where it would stand alone.
        collections: What would be stored.
        warnings: What it would not cover, each a sentence, with the source.
    """

    plan: str
    backup_type: BackupType
    requested_type: BackupType
    promoted_because: str | None
    base: str | None
    collections: list[CollectionCount]
    warnings: list[str]


def rehearse(plan: BackupPlan, kind: BackupType, progress: Progress | None = None) -> RehearsalResult:
    """Count what a backup would read and store."""
    plan = settle_places(plan)
    warn_of_suites(plan)
    with open_rehearsal(plan, kind) as attempt:
        try:
            counts = _count(attempt, progress)
        except BaseUnusable as error:
            attempt = Rehearsal(attempt.context, None, error.message)
            counts = _count(attempt, progress)
        return RehearsalResult(
            plan=plan.name,
            backup_type=attempt.backup_type,
            requested_type=kind,
            promoted_because=attempt.promoted_because,
            base=attempt.base.target.backup_id if attempt.base else None,
            collections=counts,
            warnings=[f"{name}: {one}" for name in plan.sources for one in attempt.context.notes.warnings(name)],
        )


def _count(attempt: Rehearsal, progress: Progress | None) -> list[CollectionCount]:
    counts = {one.name: CollectionCount(collection=one.name) for one in attempt.collections}
    for part in attempt.parts():
        if progress is not None:
            progress.entered(str(part))
        _add(counts[part.collection_name], part)
        if progress is not None:
            progress.left(str(part))
    return list(counts.values())


def _add(count: CollectionCount, part: BackupPart) -> None:
    reading = retried(partial(collect.fn, part))
    changes = diff.fn(part, normalize.fn(part, reading)).take()
    count.parts += 1
    if changes is None:
        count.rows += part.base_rows
        return
    count.rows += changes.count
    count.upserts += changes.upserts
    count.tombstones += changes.tombstones
    count.size_bytes += changes.rows.nbytes + changes.elsewhere_bytes
