"""What a local path is known by besides its spelling, so that a place is still the same after a move or a restart."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sys
from pathlib import Path

from pydantic import JsonValue

from blocks.host.places import on_share

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_GET_GENERATION = 0x80087601
"""FS_IOC_GETVERSION of <linux/fs.h>, where a long has 8 bytes; elsewhere it is refused, and the word left out."""


def place_identity(path: Path, folder: Path | None = None) -> dict[str, JsonValue]:
    """Return the identity of a folder, or of a file: words of which one in common makes two places the same.

    The path on this machine outlives another disk; the number of the folder in its file system, with the generation
    that no later folder of that number has, outlives another mount point, path and machine; the path on a file server
    is the same for all of its clients.

    Args:
        path: The folder or file.
        folder: For a file the folder that it is in, since the file may be replaced by another one of its name.

    Returns:
        Nothing where nothing is there.
    """
    if not os.path.exists(path):
        return {}
    real = Path(os.path.realpath(path))
    words = [on_this_machine(str(real)), on_share(real)]
    if number := _number_of(folder or real):
        words.append(f"{number}/{real.name}" if folder else number)
    return {"place": [word for word in words if word]}


def on_this_machine(place: str) -> str:
    """Say that a place is on this machine, by an id that outlives its name; the place alone where there is none."""
    return f"{place} on machine {found}" if (found := machine()) else place


def machine() -> str | None:
    """Return an id of this machine, hashed since its own one is to be kept confidential; None where it has none."""
    for path in _MACHINE_IDS:
        try:
            text = path.read_bytes().strip()
        except OSError:
            continue
        if re.fullmatch(rb"[0-9a-f]{32}", text):
            return hashlib.sha256(b"lastgood " + text).hexdigest()[:12]
    return None


def _number_of(folder: Path) -> str | None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(fd, _GET_GENERATION, bytes(8))
        generation = int.from_bytes(answer[:4], sys.byteorder)
        return f"inode {os.fstat(fd).st_ino}.{generation}" if generation else None
    except OSError:
        return None
    finally:
        os.close(fd)
