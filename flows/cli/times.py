"""Times as people type them: ISO 8601, or `2h ago`, `yesterday 14:00`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from blocks.errors import ConfigurationError
from blocks.plan.durations import unit

_AGO = re.compile(r"(\d+)\s*(s|m|min|h|d|w)\s+ago")
_DAY = re.compile(r"(today|yesterday)(?:\s+(\d{1,2}:\d{2}(?::\d{2})?))?")


def parse_time(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read a time; one without a zone is taken as local time.

    Args:
        text: The time as the user typed it.
        now: The moment that relative times count from, aware.
        zone: The local zone; None asks the system, which knows the offset of any day.

    Raises:
        ConfigurationError: It is not a time.
    """
    words = text.strip().lower()
    try:
        if words == "now":
            return now.astimezone(UTC)
        if match := _AGO.fullmatch(words):
            return now.astimezone(UTC) - int(match[1]) * unit(match[2][0])
        if match := _DAY.fullmatch(words):
            day = now.astimezone(zone).date() - timedelta(days=match[1] == "yesterday")
            return _utc(datetime.combine(day, time.fromisoformat((match[2] or "00:00").zfill(5))), zone)
        return _utc(datetime.fromisoformat(text.strip()), zone)
    except (ValueError, OverflowError) as exc:
        raise ConfigurationError(
            f"{text!r} is not a time",
            hint="Write 2026-01-02T03:04:05Z, 2026-01-02 03:04 (local time), 2h ago, or yesterday 14:00.",
        ) from exc


def _utc(moment: datetime, zone: tzinfo | None) -> datetime:
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)
