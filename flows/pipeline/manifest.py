"""The manifest of an attempt whose parts are all stored, and its commit."""

from __future__ import annotations

import logging
import platform
import socket
import time
from collections.abc import Sequence

from blocks.plan.suspicion import judged
from blocks.records import BackupMetadata, Collection, Part, SourceState, StoredObject
from blocks.repository.checksums import checksums_digest
from blocks.sources.view import View
from flows.pipeline.attempt import BackupAttempt
from flows.pipeline.context import BackupContext
from flows.pipeline.messages import SelectedCollection
from flows.pipeline.tool_versions import tool_versions

logger = logging.getLogger(__name__)


def commit_attempt(attempt: BackupAttempt, lost: Sequence[str] = ()) -> BackupMetadata:
    """Let the sources have their last word, then commit the manifest.

    Args:
        attempt: The attempt.
        lost: What is suspicious about collections that are emptied or gone.

    Raises:
        RepositoryLocked: The lease is lost; nothing was committed.
        SourceChanged: Something that spans several parts changed while it was read; nothing was committed.
    """
    context = attempt.context
    context.finish()
    objects = attempt.packs.finish()
    metadata = _judged(context, _manifest(attempt, objects), lost)
    context.repository.commit(metadata, objects, context.held)
    if attempt.backup_type.can_be_base:
        context.release()
    return metadata


def _judged(context: BackupContext, made: BackupMetadata, lost: Sequence[str]) -> BackupMetadata:
    try:
        return judged(made, context.lineage, context.history, lost)
    except Exception as exc:  # whatever it is: nothing that is only compared may stop a backup
        logger.warning("backup %s was not compared with those before: %s", made.backup_id, exc)
        logger.debug("where it failed", exc_info=True)
        return made.model_copy(update={"suspicions": tuple(lost)})


def _manifest(attempt: BackupAttempt, objects: Sequence[StoredObject]) -> BackupMetadata:
    context, base = attempt.context, attempt.base
    repository, plan = context.repository, context.plan
    sequence, previous = repository.next_position(plan.name, repository.stock(plan.name, context.held))
    collections = tuple(_collection(attempt, one) for one in attempt.collections)
    segments = [part.segment for c in collections for part in c.parts if part.segment]
    return BackupMetadata(
        repository_id=repository.repository_id,
        plan=plan.name,
        backup_id=attempt.backup_id,
        backup_type=attempt.backup_type,
        requested_type=context.requested,
        promoted_because=attempt.promoted_because,
        timestamp=max(view.taken_at for view in context.views.values()),
        sequence=sequence,
        fencing_token=context.held.token,
        base=base.target.backup_id if base else None,
        # that they are still there is looked at right before the commit
        chain=tuple(repository.link_of(b) for b in base.backups) if base else (),
        previous=previous,
        sources=tuple(_source_state(attempt, name, view, collections) for name, view in context.views.items()),
        objects=tuple(objects),
        collections=collections,
        total_rows=sum(collection.rows for collection in collections),
        size_bytes=sum(s.size_bytes for s in segments),
        size_compressed=sum(s.size_compressed for s in segments),
        size_stored=sum(o.size_bytes for o in objects),
        checksum=checksums_digest(objects),
        encryption_key_id=repository.keys.key_id,
        encapsulated_key=attempt.encapsulated_key,
        storage_tiers=("primary",),
        retention_days=plan.retention_days(attempt.backup_type),
        source_system=f"{socket.gethostname()} ({platform.system()} {platform.machine()})",
        backup_duration_seconds=round(time.monotonic() - context.started, 3),
        whole=context.whole,
        tags=context.tags,
        clock_doubt=context.clock_doubt,
        tool_versions=tool_versions(),
    )


def _collection(attempt: BackupAttempt, taken: SelectedCollection) -> Collection:
    results = [(part, attempt.result(part)) for part in attempt.parts_of(taken)]
    return Collection(
        number=taken.number,
        name=taken.name,
        key=taken.spec.key,
        label=taken.spec.label,
        columns=taken.spec.columns,
        tracking=taken.spec.tracking,
        definition=taken.spec.definition,
        selected_keys=taken.selection.keys,
        parts=tuple(
            Part(number=part.number, bounds=part.bounds, rows=stored.rows, segment=stored.segment)
            for part, stored in results
        ),
    )


def _source_state(attempt: BackupAttempt, name: str, view: View, collections: Sequence[Collection]) -> SourceState:
    return SourceState(
        name=name,
        type=attempt.context.plan.sources[name].type,
        system=view.system,
        taken_at=view.taken_at,
        token=attempt.tokens[name],
        definition=view.definition,
        rows=sum(collection.rows for collection in collections if collection.source == name),
        warnings=attempt.context.notes.warnings(name),
        identity={**attempt.context.identities[name]},
    )
