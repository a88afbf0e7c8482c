"""What is known against a backup that is about to be restored: what verifications said, and what is suspicious."""

from __future__ import annotations

import logging

from blocks.errors import LastgoodError
from blocks.plan.suspicion import is_unsettled
from blocks.records import BackupMetadata
from blocks.repository.block import Repository
from flows.pipeline.doubts import settled

logger = logging.getLogger(__name__)


def known_against(repository: Repository, backup: BackupMetadata, *, said: bool) -> list[str]:
    """Say what is known against a backup, an axis a sentence; it can be restored all the same.

    Args:
        repository: The unlocked repository.
        backup: The backup.
        said: Whether these sentences are read before anything is written. Else they are logged as well, now.
    """
    try:
        verdict = repository.verdict(backup)
    except LastgoodError as exc:  # what is stored of the backup itself may be there all the same
        return [f"what is known of {backup.backup_id} could not be read: {exc.message}"]
    against = verdict.sentences()
    if is_unsettled(backup, settled(repository, backup.plan, [backup])):
        against += [f"it is suspicious: {sentence}" for sentence in backup.suspicions]
    if verdict.doubt is not None:
        against.append(f"not all that is known of it can be read: {verdict.doubt}")
    sentences = [f"{backup.backup_id}: {sentence}" for sentence in against]
    if not said:
        for sentence in sentences:
            logger.warning("%s", sentence)
    return sentences
