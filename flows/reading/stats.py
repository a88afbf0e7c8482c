"""What a plan's backups amount to: how many, how large, how old, how well proved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import fmean

from pydantic import JsonValue

from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus, BackupType
from flows.reading.recovery import recovery_of


def backup_stats(plan: BackupPlan) -> dict[str, JsonValue]:
    """Return numbers of a plan's backups; sizes in bytes, times as ISO 8601 in UTC, null where there is none.

    Args:
        plan: The plan, read and resolved.
    """
    repository = plan.repository.unlock(plan.encryption)
    survey = repository.survey(plan.name, shown=True)
    backups = survey.backups
    lease = repository.current_lease(plan.name)
    statuses = repository.statuses(plan.name, backups)
    verified = [made.timestamp for made in backups if statuses[made.backup_id] is BackupStatus.VERIFIED]
    return {
        "plan": plan.name,
        "repository": repository.url,
        "total_backups": len(backups),
        "by_type": {kind.value: sum(made.backup_type is kind for made in backups) for kind in BackupType},
        "by_status": {kind.value: sum(status is kind for status in statuses.values()) for kind in BackupStatus},
        "size_bytes": sum(made.size_bytes for made in backups),
        "size_stored": sum(made.size_stored for made in backups),
        "oldest": _text(min((made.timestamp for made in backups), default=None)),
        "newest": _text(max((made.timestamp for made in backups), default=None)),
        "newest_verified": _text(max(verified, default=None)),
        "latest_backup_id": backups[-1].backup_id if backups else None,
        "in_progress": lease.purpose if lease is not None else None,
        "recovery": recovery_of(repository, plan.name, backups, statuses, datetime.now(UTC)).model_dump(mode="json"),
        "findings": list[JsonValue](survey.findings),
    }


def performance(plan: BackupPlan) -> dict[str, JsonValue]:
    """Return, for each type of which there are backups, how long they took and how large they are on average.

    Args:
        plan: The plan, read and resolved.
    """
    backups = plan.repository.unlock(plan.encryption).survey(plan.name, shown=True).backups
    kinds = [kind for kind in BackupType if any(made.backup_type is kind for made in backups)]
    return {kind.value: _averages([made for made in backups if made.backup_type is kind]) for kind in kinds}


def _averages(backups: Sequence[BackupMetadata]) -> JsonValue:
    seconds = [made.backup_duration_seconds for made in backups]
    return {
        "backups": len(backups),
        "mean_seconds": fmean(seconds),
        "max_seconds": max(seconds),
        "mean_size_bytes": fmean(made.size_bytes for made in backups),
        "mean_size_stored": fmean(made.size_stored for made in backups),
    }


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
