"""Whether this machine's clock can be believed; what retention removes depends on it.

A clock is compared with that of the storage (`storage_doubt`), and with what the plan has on record (`future_doubt`,
`silence_doubt`). All of them are pure, and return a sentence with both times. Backups that were made under a clock that
was doubted prove nothing, until a person accepts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from blocks.plan.retention import RetentionPolicy
from blocks.records import Acceptance, BackupMetadata, Expiry

TOLERANCE = timedelta(minutes=15)
"""How far two clocks may differ without a word."""


def storage_doubt(now: datetime, storage: datetime | None) -> str | None:
    """Compare the clock with that of the storage.

    Args:
        now: This machine's time.
        storage: When the storage says that an object was written just now; None where it does not tell.
    """
    if storage is None or abs(now - storage) <= TOLERANCE:
        return None
    return f"this machine's clock says {_text(now)}, and that of the storage {_text(storage)}"


def future_doubt(
    now: datetime,
    backups: Sequence[BackupMetadata],
    newest_event: datetime | None = None,
    accepted: Sequence[Expiry] = (),
) -> str | None:
    """Doubt the clock where something on record is still to come.

    Args:
        now: This machine's time.
        backups: All committed backups of the plan.
        newest_event: The newest time on record beside backups.
        accepted: The records of what persons accepted so far.
    """
    newest = newest_time(_trusted(backups, accepted), newest_event)
    known = [said.newest for said in _of_clocks(accepted) if said.newest is not None]
    if newest is None or newest - now <= TOLERANCE or any(newest <= one for one in known):
        return None
    return f"this machine's clock says {_text(now)}, and the newest record is of {_text(newest)}, still to come"


def silence_doubt(
    now: datetime, backups: Sequence[BackupMetadata], policy: RetentionPolicy, accepted: Sequence[Expiry] = ()
) -> str | None:
    """Doubt the clock where by it no backup is young enough any more to be kept for its age.

    All but what stays whatever its age would go at once, because time has passed without any backup.

    Args:
        now: This machine's time.
        backups: All committed backups of the plan.
        policy: How long each type is kept.
        accepted: The records of what persons accepted so far; one of them is young as long as a full backup is.
    """
    regular = [b for b in _trusted(backups, accepted) if b.is_regular]
    young = any(now - b.timestamp < policy.age_limit(b.backup_type) for b in regular)
    lately = any(now - one.expired_at < policy.full for one in accepted if one.accepted and one.accepted.newest)
    if not regular or young or lately:
        return None
    return (
        f"this machine's clock says {_text(now)}, and by it no backup is young enough to be kept for its age: "
        f"the newest is of {_text(max(b.timestamp for b in regular))}"
    )


def is_ahead(moment: datetime, now: datetime) -> bool:
    """Whether a time on record is still to come, by more than two clocks may differ: of what age it is is not known."""
    return moment - now > TOLERANCE


def _of_clocks(accepted: Sequence[Expiry]) -> list[Acceptance]:
    return [one.accepted for one in accepted if one.accepted is not None and one.accepted.newest is not None]


def _trusted(backups: Sequence[BackupMetadata], accepted: Sequence[Expiry]) -> list[BackupMetadata]:
    known = max((said.sequence for said in _of_clocks(accepted)), default=0)
    return [b for b in backups if b.clock_doubt is None or b.sequence <= known]


def newest_time(backups: Sequence[BackupMetadata], newest_event: datetime | None) -> datetime | None:
    """Return the newest time on record; None where there is none."""
    return max([*(b.timestamp for b in backups), *([newest_event] if newest_event else [])], default=None)


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
