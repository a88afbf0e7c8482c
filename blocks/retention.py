"""RetentionPolicy: how long backups of each type are kept, and which may never go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from blocks.block import Block
from blocks.manifest import BackupMetadata, BackupType

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(value: object) -> object:
    """Read `90d`, `12h`, `15m`, `4w` or `30s`; anything else is left to pydantic (ISO 8601, a timedelta).

    A bare number is refused, because it does not say of what.
    """
    if isinstance(value, int | float) or (isinstance(value, str) and value.isdigit()):
        raise ValueError(f"{value} needs a unit, for instance {value}d")
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)([smhdw])", value.strip())):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("a duration must be longer than nothing")
    return value


def format_duration(span: timedelta) -> str:
    """Write a duration as `parse_duration` reads it: a saved block holds `90d`, not a bare number."""
    for name in "dhms":
        unit = timedelta(**{_UNITS[name]: 1})
        if not span % unit:
            return f"{span // unit}{name}"
    return f"PT{span.total_seconds():f}S"


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), AfterValidator(_positive), PlainSerializer(format_duration)
]


@dataclass(frozen=True)
class Decision:
    """What retention does with one backup, and why."""

    backup: BackupMetadata
    remove: bool
    reason: str


class RetentionPolicy(Block):
    """How long backups of each type are kept.

    A backup is removed when it is older than its type allows, unless a backup that is kept stands on it. The newest
    full backups and the newest backup that can be restored never go, however old they are.

    Example:
        ```python
        from blocks.retention import RetentionPolicy

        RetentionPolicy.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Retention Policy"
    _block_type_slug = "retention-policy"
    _documentation_url = "https://github.com/lastgood/lastgood/blob/main/README.md"  # type: ignore[assignment]
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    full: Duration = Field(default=timedelta(days=90), description="How long full backups are kept, such as 90d.")
    differential: Duration = Field(default=timedelta(days=30), description="How long differential backups are kept.")
    incremental: Duration = Field(default=timedelta(days=7), description="How long incremental backups are kept.")
    snapshot: Duration = Field(default=timedelta(days=7), description="How long named snapshots are kept.")
    emergency: Duration = Field(default=timedelta(days=180), description="How long emergency backups are kept.")
    keep_last: int = Field(default=1, ge=1, description="Number of newest full backups that never expire.")
    sweep_grace: Duration = Field(
        default=timedelta(hours=24), description="Age after which objects of unfinished backups are swept."
    )

    def age_limit(self, kind: BackupType) -> timedelta:
        """Return how long backups of a type are kept."""
        limit: timedelta = getattr(self, kind.value)
        return limit

    def decide(self, backups: Sequence[BackupMetadata], now: datetime) -> list[Decision]:
        """Decide about each backup of one plan.

        Args:
            backups: All committed backups in the order of their sequence.
            now: The moment, aware.
        """
        held = self._held(backups)
        keep: dict[str, str] = {}
        for backup in backups:
            age, limit = now - backup.timestamp, self.age_limit(backup.backup_type)
            if backup.backup_id in held:
                keep[backup.backup_id] = held[backup.backup_id]
            elif age < limit:
                keep[backup.backup_id] = f"{_text(age)} old, kept for {_text(limit)}"
        for backup in reversed(backups):
            if backup.backup_id in keep:
                for link in backup.chain:
                    keep.setdefault(link.backup_id, f"{backup.backup_id} stands on it")
        return [self._decision(backup, keep, now) for backup in backups]

    def _decision(self, backup: BackupMetadata, keep: dict[str, str], now: datetime) -> Decision:
        if backup.backup_id in keep:
            return Decision(backup, remove=False, reason=keep[backup.backup_id])
        age, limit = now - backup.timestamp, self.age_limit(backup.backup_type)
        kind = backup.backup_type.value
        return Decision(backup, remove=True, reason=f"{_text(age)} old, {kind} backups are kept for {_text(limit)}")

    def _held(self, backups: Sequence[BackupMetadata]) -> dict[str, str]:
        fulls = [b.backup_id for b in backups if b.backup_type is BackupType.FULL]
        held = dict.fromkeys(fulls[-self.keep_last :], f"among the newest {self.keep_last} full backups")
        restorable = [b.backup_id for b in backups if b.backup_type is not BackupType.EMERGENCY]
        if restorable:
            held[restorable[-1]] = "the newest backup"
        return held


def _text(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if abs(seconds) >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
