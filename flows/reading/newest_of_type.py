"""The newest backup of one type, for `restore latest --type`."""

from __future__ import annotations

from datetime import datetime

from blocks.errors import BackupNotFound
from blocks.host.local_time import local_time
from blocks.plan.plan import BackupPlan
from blocks.records import BackupStatus, BackupType


def newest_of_type(plan: BackupPlan, kind: BackupType, *, verified: bool = False, at: datetime | None = None) -> str:
    """Return the id of the newest backup of a type that is not known to be corrupted.

    Args:
        plan: The plan, read and resolved.
        kind: The type that was made, whatever was asked for.
        verified: Only one that was really restored by a verification, and found good in all that was looked at.
        at: Only one that restores this aware time or an earlier one; a time in whole seconds is all of that second.

    Raises:
        BackupNotFound: There is none.
        CorruptionDetected: A manifest does not open.
    """
    repository = plan.repository.unlock(plan.encryption)
    until = at.replace(microsecond=999_999) if at is not None and not at.microsecond else at
    backups = [
        made
        for made in repository.backups(plan.name)
        if made.backup_type is kind and (until is None or made.timestamp <= until)
    ]
    known = repository.verdicts(plan.name, backups)
    for made in reversed(backups):
        verdict = known[made.backup_id]
        if verdict.restored or (not verified and verdict.status is not BackupStatus.CORRUPTED):
            return made.backup_id
    wanted = "was restored and found good" if verified else "is not known to be corrupted"
    of_then = f" as of {local_time(at)}" if at is not None else ""
    raise BackupNotFound(
        f"plan {plan.name} has no {kind.value} backup{of_then} that {wanted}",
        hint=f"`lastgood list {plan.name}` shows what there is.",
    )
