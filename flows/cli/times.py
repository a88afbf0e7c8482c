"""Times as people type them: ISO 8601, or `2h ago`, `1 hour ago`, `yesterday 14:00`, `monday 9:30`, `14:00`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from blocks.errors import ConfigurationError
from blocks.plan.durations import unit

_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "half an": 0.5}
_UNIT = r"s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?"
_AGO = re.compile(rf"(\d+|{'|'.join(_COUNTS)})\s*({_UNIT})\s+ago")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NIGHT = {"noon": "12:00", "midnight": "00:00"}
_DAY_NAME = rf"(today|yesterday|(?:last )?(?:{'|'.join(_WEEKDAYS)}))(?:,?\s+(?:at\s+)?)?"
_DAY = re.compile(rf"(?:{_DAY_NAME})?(\d{{1,2}}:\d{{2}}(?::\d{{2}})?|{'|'.join(_NIGHT)})?")


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
            return now.astimezone(UTC) - float(_COUNTS.get(match[1], match[1])) * unit(match[2][0])
        if words and (match := _DAY.fullmatch(words)):
            day = now.astimezone(zone).date() - timedelta(days=_days_back(match[1], now.astimezone(zone)))
            clock = _NIGHT.get(match[2], match[2]) or "00:00"
            return _utc(datetime.combine(day, time.fromisoformat(clock.zfill(5 if len(clock) < 6 else 8))), zone)
        return _utc(datetime.fromisoformat(text.strip()), zone)
    except (ValueError, OverflowError) as exc:
        raise ConfigurationError(
            f"{text!r} is not a time",
            hint="Write 2026-01-02T03:04:05Z, 2026-01-02 03:04 (local time), '1 hour ago', or 'yesterday 14:00'.",
        ) from exc


def _days_back(day: str | None, now: datetime) -> int:
    """Return how many days ago a day was; the name of a weekday is the last one of that name before today."""
    if day in (None, "today"):
        return 0
    if day == "yesterday":
        return 1
    return (now.weekday() - _WEEKDAYS.index(str(day).removeprefix("last ")) - 1) % 7 + 1


def _utc(moment: datetime, zone: tzinfo | None) -> datetime:
    if moment.tzinfo is None and zone is not None:
        moment = moment.replace(tzinfo=zone)
    return moment.astimezone(UTC)
