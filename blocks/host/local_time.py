"""Times as a person reads them: by the clock of this machine's zone."""

from __future__ import annotations

from datetime import datetime


def local_time(moment: datetime) -> str:
    """Write an aware time by the clock of this machine's zone, to the second, with the zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"
