"""Moments as people read them: by the clock of their own zone, and how long ago."""

from __future__ import annotations

from datetime import datetime, timedelta

from blocks.host.local_time import local_time

__all__ = ["ago", "local_time", "span"]

_UNITS = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)
_DAYS_BEFORE_HOURS = 2
"""From so many days on hours are no longer counted in them."""


def span(length: timedelta) -> str:
    """Write a length of time in one unit, rounded down: `3 h`, `12 min`; up to two days in hours."""
    seconds = timedelta(seconds=int(length.total_seconds()))
    if seconds >= _DAYS_BEFORE_HOURS * _UNITS[0][1]:
        return f"{seconds // _UNITS[0][1]:,} d"
    name, unit = next(((name, unit) for name, unit in _UNITS[1:] if seconds >= unit), _UNITS[-1])
    return f"{seconds // unit} {name}"


def ago(moment: datetime, now: datetime) -> str:
    """Write when an aware time was, seen from another: `3 h ago`, `in 5 min`."""
    return f"{span(now - moment)} ago" if moment <= now else f"in {span(moment - now)}"
