"""The moment that a restore goes back to."""

from __future__ import annotations

from datetime import UTC, datetime

from blocks.errors import ConfigurationError
from flows.reporting.moments import local_time


def checked_moment(at: datetime | None, now: datetime) -> datetime | None:
    """Return the moment to restore to in UTC; one without a zone is taken as local time.

    A moment in the future is a slip, of a year or of a zone: taken as it is, it would bring back the state of now.

    Args:
        at: The time to restore to; None for the newest backup.
        now: The moment that is, aware.

    Raises:
        ConfigurationError: It is in the future, or is none that a clock can show.
    """
    if at is None:
        return None
    try:
        moment = at.astimezone(UTC)
    except (OverflowError, ValueError, OSError) as exc:
        raise ConfigurationError(f"{at.isoformat()} is a moment that no clock can show") from exc
    if moment > now:
        raise ConfigurationError(
            f"{local_time(moment)} is in the future: it is {local_time(now)} now",
            hint="Look at the year and the zone of the time; `now` stands for the newest backup.",
        )
    return moment
