"""What a plan's backups amount to: how many, how large, how old, how well proved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean

from pydantic import BaseModel, JsonValue

from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.repository.verdict import Verdict
from flows.reading.attempts import Attempts, backup_attempts
from flows.reading.recovery import recovery_of


class TypeNumbers(BaseModel):
    """Numbers of a plan's backups of one type; sizes in bytes. Means are None where there are no backups.

    Attributes:
        backups: How many there are.
        looked_at: Of how many of these anything was tried.
        good_share: The share of these that nothing is known against; None where none was looked at.
        runs: How many runs ended that should make one, as the journal of this machine has them.
        success_share: The share of these that did all that they should; None where there are none.
    """

    backups: int
    size_bytes: int
    size_stored: int
    mean_seconds: float | None
    max_seconds: float | None
    mean_size_bytes: float | None
    mean_size_stored: float | None
    looked_at: int
    good_share: float | None
    runs: int
    success_share: float | None


class PlanStats:
    """Numbers of a plan's backups, of which everything is read once.

    Args:
        plan: The plan, read and resolved.
    """

    def __init__(self, plan: BackupPlan) -> None:
        self._plan = plan
        self._repository = plan.repository.unlock(plan.encryption)
        self._survey = self._repository.survey(plan.name, shown=True)
        self._verdicts = self._repository.verdicts(plan.name, self._survey.backups)

    def totals(self) -> dict[str, JsonValue]:
        """Return numbers of all backups; sizes in bytes, times as ISO 8601 in UTC, null where there is none."""
        plan, repository, backups = self._plan, self._repository, self._survey.backups
        lease = repository.current_lease(plan.name)
        statuses = {backup_id: verdict.shown_status for backup_id, verdict in self._verdicts.items()}
        verified = [made.timestamp for made in backups if statuses[made.backup_id] is BackupStatus.VERIFIED]
        recovery = recovery_of(repository, plan.name, backups, statuses, datetime.now(UTC))
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
            "recovery": recovery.model_dump(mode="json"),
            "findings": list[JsonValue](self._survey.findings),
        }

    def performance(self) -> dict[str, JsonValue]:
        """Return, of each type of which there are backups, how long they took and how large they are on average."""
        told = {"backups", "mean_seconds", "max_seconds", "mean_size_bytes", "mean_size_stored"}
        return {kind: one.model_dump(include=told) for kind, one in self._by_type({}).items()}

    def by_type(self) -> dict[str, TypeNumbers]:
        """Return numbers of each type of which there are backups, or were runs."""
        return self._by_type(backup_attempts(self._plan, self._repository.repository_id))

    def _by_type(self, attempts: Mapping[str, Attempts]) -> dict[str, TypeNumbers]:
        of_kind = {kind: [made for made in self._survey.backups if made.backup_type is kind] for kind in BackupType}
        return {
            kind.value: _numbers(made, self._verdicts, attempts.get(kind.value, Attempts()))
            for kind, made in of_kind.items()
            if made or kind.value in attempts
        }


def _numbers(backups: Sequence[BackupMetadata], verdicts: Mapping[str, Verdict], attempts: Attempts) -> TypeNumbers:
    seconds = [made.backup_duration_seconds for made in backups]
    tried = [verdict for made in backups if (verdict := verdicts[made.backup_id]).axes]
    return TypeNumbers(
        backups=len(backups),
        size_bytes=sum(made.size_bytes for made in backups),
        size_stored=sum(made.size_stored for made in backups),
        mean_seconds=_mean(seconds),
        max_seconds=max(seconds, default=None),
        mean_size_bytes=_mean([made.size_bytes for made in backups]),
        mean_size_stored=_mean([made.size_stored for made in backups]),
        looked_at=len(tried),
        good_share=_mean([not verdict.bad for verdict in tried]),
        runs=attempts.ended,
        success_share=attempts.succeeded / attempts.ended if attempts.ended else None,
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
