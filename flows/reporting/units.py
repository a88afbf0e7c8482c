"""Numbers as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta


def human_bytes(size: float) -> str:
    """Write a size in bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """Write a duration."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def human_time(moment: datetime) -> str:
    """Write an aware time in UTC, to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def human_span(span: timedelta) -> str:
    """Write a span of time in its largest unit: `30 days`, `1.5 hours`."""
    seconds = span.total_seconds()
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit if seconds != size else unit[:-1]}"
    return f"{seconds:.0f} seconds"
