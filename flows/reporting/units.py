"""Numbers as people read them."""

from __future__ import annotations

from datetime import datetime


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
