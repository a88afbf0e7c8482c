"""Accepting what is suspicious about backups: a person says that it is right, and retention holds nothing for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan
from blocks.plan.suspicion import is_unsettled
from blocks.records import Acceptance, BackupMetadata, Expiry
from flows.pipeline.doubts import settled


def accept_suspicions(plan: BackupPlan, wanted: Sequence[str] = ()) -> list[BackupMetadata]:
    """Put on record that suspicious backups are right.

    Args:
        plan: The plan, read and resolved.
        wanted: Which backups, as people name them; all that are suspicious and not accepted where there is none.

    Returns:
        The backups that were accepted now, in the order of their commits; those that were before are left out.

    Raises:
        BackupNotFound: There is no such backup.
        ConfigurationError: Nothing is suspicious about one of those that are named.
        RepositoryLocked: Another run holds the plan.
        RepositoryUnavailable: The storage failed, or may not be written.
    """
    repository = plan.repository.unlock(plan.encryption)
    with repository.lease(plan.name, "accept"):
        backups = repository.survey(plan.name).backups
        named = {_suspicious(repository.find(plan.name, one)).backup_id for one in wanted}
        known = settled(repository, plan.name, backups)
        found = [one for one in backups if is_unsettled(one, known) and (not named or one.backup_id in named)]
        if found:
            said = Acceptance(sequence=backups[-1].sequence, suspicions=tuple(one.backup_id for one in found))
            head = repository.link_of(backups[-1])
            now = datetime.now(UTC)
            record = Expiry(plan=plan.name, expired_at=now, removed=(), reasons={}, head=head, accepted=said)
            repository.record_expiry(record)
    return found


def _suspicious(backup: BackupMetadata) -> BackupMetadata:
    if not backup.suspicions:
        raise ConfigurationError(
            f"nothing is suspicious about {backup.backup_id}", hint=f"`lastgood status {backup.plan}` names what is."
        )
    return backup
