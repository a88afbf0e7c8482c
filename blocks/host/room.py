"""Room on local disks, looked at before a restore writes anything."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import PlaceUnfit

ELSEWHERE = "Make room there, or restore to another disk with --to."
TEMPORARY = "Make room there, or set TMPDIR to another folder."


@dataclass(frozen=True)
class Need:
    """What is going to be written below a folder.

    Attributes:
        folder: Where.
        size_bytes: How much, as an estimate.
        what: What needs it, for people.
        called: What the folder is, where its path alone does not say that.
        hint: What can be done where there is too little.
    """

    folder: Path
    size_bytes: int
    what: str = "the restore"
    called: str = ""
    hint: str = ELSEWHERE


def check_room(*needs: Need) -> None:
    """Compare what is needed with what is free; needs in one file system are added up.

    A folder that cannot be looked at is left alone: who writes there says so.

    Raises:
        PlaceUnfit: Too little is free; names the folder, and both sizes in bytes.
    """
    wanted = Counter[int]()
    for need in needs:
        with suppress(OSError):
            disk = os.stat(need.folder).st_dev
            wanted[disk] += need.size_bytes
            free_bytes = _free_bytes(need.folder)
            if need.size_bytes and free_bytes < wanted[disk]:
                named = f"{need.called}, {need.folder}," if need.called else str(need.folder)
                raise PlaceUnfit(
                    f"{named} has {free_bytes:,} bytes free, and {need.what} needs about {wanted[disk]:,} there",
                    hint=need.hint,
                )


def _free_bytes(folder: Path) -> int:
    """Count what this user may still write, without what is kept back for others."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
