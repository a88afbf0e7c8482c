"""The folder that a tree is restored to: what is there, and whether it can be written to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from blocks.errors import PlaceUnfit, RestoreRefused
from blocks.host.room import Need, check_room
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.rows import TREE
from blocks.sources.files.tree import REPLACED_PREFIX, STAGING_PREFIX, mounts_beneath, ours, shown, special
from blocks.sources.target import RestoreScope


def staging_place(root: bytes) -> bytes:
    """Choose the folder to stage in: beside the root, or inside it where that is not the same file system.

    Raises:
        RestoreRefused: Neither can be written to.
    """
    beside = os.path.dirname(root)
    try:
        above = os.stat(beside)
        here = os.lstat(root) if os.path.lexists(root) else None
    except OSError as exc:
        raise RestoreRefused(
            f"the folder that {shown(root)} is to be restored in cannot be used: {exc.strerror}",
            hint="Create it first; a restore creates one folder, not a path.",
        ) from exc
    if here and not stat.S_ISDIR(here.st_mode):
        raise RestoreRefused(
            f"{shown(root)} is there already and is no folder", hint="Move it away, or restore elsewhere."
        )
    # a bind mount is on the same device, and nothing can be renamed across it all the same
    mounted = os.path.ismount(root) or os.path.basename(root) in mounts_beneath(beside)
    apart = root == beside or mounted or (here is not None and here.st_dev != above.st_dev)
    if not apart and _writable(beside):
        return beside
    # its owner may open it up for as long as it takes
    if here and (_writable(root) or (here.st_uid == os.geteuid() and not _read_only(root))):
        return root
    raise PlaceUnfit(
        f"{shown(root)} cannot be written to", hint="Run as a user who may, or restore elsewhere with --to."
    )


def check_file_system(root: bytes, place: bytes, scope: RestoreScope) -> None:
    """Check that the file system can be written to, and has room.

    Args:
        root: The folder that is restored to.
        place: Where it is staged.
        scope: The collections, rows and mode of the restore.

    Raises:
        RestoreRefused: It cannot, or has not.
    """
    free = os.statvfs(place)
    if free.f_flag & os.ST_RDONLY:
        raise PlaceUnfit(
            f"{shown(root)} is on a file system that is mounted read-only",
            hint="Mount it writable, or restore to another disk with --to.",
        )
    check_room(Need(Path(os.fsdecode(place)), scope.size_bytes, f"restoring to {shown(root)}"))
    rows = sum(rows for spec, rows in scope.collections if spec.name == TREE.name)
    # of an entry and its first piece of content at least one is an entry; further pieces are full
    entries = max(rows - scope.size_bytes // CHUNK_BYTES, 0) // 2
    if scope.selection.everything and free.f_files and free.f_favail < entries:
        raise PlaceUnfit(
            f"restoring to {shown(root)} makes at least {entries} files and folders, and its file system has "
            f"room for {free.f_favail} more (inodes)",
            hint="Delete files there, or restore to another disk with --to.",
        )


def tell_leavings(place: bytes) -> list[str]:
    """Say what restores that were killed have left in a folder."""
    names = {entry.path: entry.name for entry in os.scandir(place)}
    staged = [path for path, name in names.items() if name.startswith(STAGING_PREFIX)]
    replaced = [path for path, name in names.items() if name.startswith(REPLACED_PREFIX)]
    return [
        f"{shown(left)} was left by an interrupted restore, or another one is at work; remove it if none is."
        for left in sorted(staged)
    ] + [
        f"{shown(left)} holds what a restore that was killed had replaced, unless one is at work; the next "
        "restore that ends here clears it up, and keeps what is in no backup."
        for left in sorted(replaced)
    ]


def occupant(root: bytes) -> str | None:
    """Say what is at the place; None where nothing is, or a folder with nothing in it."""
    try:
        status = os.lstat(root)
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return f"a file of {status.st_size} bytes" if stat.S_ISREG(status.st_mode) else f"a {special(status.st_mode)}"
    count = 0
    for folder, folders, files in os.walk(root):
        if folder == root:
            folders[:] = [name for name in folders if not ours(name)]
        count += len(folders) + len(files)
    return f"a folder with {count} {'entry' if count == 1 else 'entries'}" if count else None


def is_gone(place: bytes) -> bool:
    """Whether nothing is at a place; what cannot be looked at is there."""
    try:
        os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it cannot even be looked at
        return False
    return False


def _read_only(folder: bytes) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _writable(folder: bytes) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
