"""A folder in memory for the files of tests: most of the time that they would wait for a disk is saved."""

from __future__ import annotations

import os
import re
from pathlib import Path

_FOLDER = Path("/dev/shm")
_MEMORY = Path("/proc/meminfo")
_ROOM_BYTES = 8 << 30


def in_memory() -> str | None:
    """Return a folder in memory, where this machine has one with room for all that the tests write."""
    if not os.access(_FOLDER, os.W_OK | os.X_OK):
        return None
    room = os.statvfs(_FOLDER)
    found = re.search(r"^MemAvailable: +(\d+) kB", _MEMORY.read_text(), re.MULTILINE) if _MEMORY.exists() else None
    available = int(found[1]) << 10 if found else 0
    return str(_FOLDER) if min(room.f_bavail * room.f_frsize, available) >= _ROOM_BYTES else None
