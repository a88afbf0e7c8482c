"""Times as people type them: ISO 8601, or `2h ago`, `yesterday 14:00`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from blocks.errors import ConfigurationError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d+)\s*(s|m|min|h|d|w)\s+ago")
_DAY = re.compile(r"(today|yesterday)(?:\s+(\d{1,2}:\d{2}(?::\d{2})?))?")


def parse_time(text: str, now: datetime) -> datetime:
    """Read a time; one without a zone is taken as local time.

    Args:
        text: What was typed.
        now: The moment that relative times count from, aware, in the zone that `yesterday` is meant in.

    Raises:
        ConfigurationError: It is not a time.
    """
    words = text.strip().lower()
    if words == "now":
        return now.astimezone(UTC)
    if match := _AGO.fullmatch(words):
        return (now - timedelta(**{_UNITS[match[2][0]]: int(match[1])})).astimezone(UTC)
    try:
        if match := _DAY.fullmatch(words):
            day = now.date() - timedelta(days=match[1] == "yesterday")
            return _local(datetime.combine(day, time.fromisoformat(_padded(match[2] or "00:00"))), now)
        moment = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise ConfigurationError(
            f"{text!r} is not a time",
            hint="Write 2026-01-02T03:04:05Z, 2026-01-02 03:04 (local time), 2h ago, or yesterday 14:00.",
        ) from exc
    return moment.astimezone(UTC) if moment.tzinfo else _local(moment, now)


def _local(moment: datetime, now: datetime) -> datetime:
    # astimezone() of a naive time asks the system for the offset of that day, which need not be today's
    system = now.astimezone().tzinfo == now.tzinfo
    return (moment.astimezone() if system else moment.replace(tzinfo=now.tzinfo)).astimezone(UTC)


def _padded(clock: str) -> str:
    return clock if clock.index(":") == 2 else f"0{clock}"
