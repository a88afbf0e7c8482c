"""What would make a restore fail half way, or do harm: looked for before anything is changed."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import RestoreRefused
from blocks.sources.files.cover import Identity
from blocks.sources.files.reading.ladder import FolderHandles
from blocks.sources.files.reading.stats import leaf, parent
from blocks.sources.files.tree import mounts_beneath, shown

_SQLITE = b"SQLite format 3\0"
_HOT_JOURNAL = bytes.fromhex("d9d505f920a163d7")
_BESIDE = (b"-wal", b"-shm", b"-journal")
_SMALLEST_PAGE = 512

_STATX = struct.Struct("<IIQ")
_STATX_BYTES = 256
_STATX_AT = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
_NO_FOLLOW = 0x100
_FLAGS = {0x10: "immutable", 0x20: "append-only"}  # STATX_ATTR_IMMUTABLE and _APPEND, from linux/stat.h

Head = Callable[[bytes, int], bytes]
Refuse = Callable[[bytes, RestoreRefused], None]
"""Takes what forbids a change, and the entry that it forbids to change; may raise it."""


@dataclass(frozen=True)
class Touched:
    """What a restore replaces, deletes or changes.

    Attributes:
        root: Path of the tree's root.
        entries: Files and links that are there, with their stat.
        folders: Folders in which names come or go, or that are changed themselves.
    """

    root: bytes
    entries: Mapping[bytes, os.stat_result]
    folders: Sequence[bytes]


def refused(path: bytes, error: RestoreRefused) -> None:
    """Refuse at once, whatever is concerned.

    Raises:
        RestoreRefused: Always.
    """
    raise error


def refuse_mounts(root: bytes, paths: Iterable[bytes], refuse: Refuse = refused) -> None:
    """Refuse where something at or beneath a mount point is to be changed: nothing can be renamed across it.

    Raises:
        RestoreRefused: The mount point is named.
    """
    mounts = mounts_beneath(root)
    if not mounts:
        return
    for path in paths:
        at = path
        while at:
            if at in mounts:
                error = RestoreRefused(
                    f"{shown(at)} in {shown(root)} is a mount point, and {shown(path)} lies on it: what is restored "
                    "there could not be put into place at once",
                    hint="Make a source of its own of what is mounted, leave it out with `exclude` or "
                    "`one_file_system: true`, unmount it, or restore elsewhere with --to.",
                )
                refuse(at, error)
                break
            at = parent(at)


def refuse_unchangeable(touched: Touched, handles: FolderHandles, refuse: Refuse = refused) -> None:
    """Refuse where flags or rights forbid a change.

    Raises:
        RestoreRefused: What forbids it is named.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    for path in [*touched.entries, *touched.folders]:
        folder = handles.folder(parent(path) if path else b"")
        flag = _flag(folder, leaf(path) or b".", buffer)
        if flag:
            error = RestoreRefused(
                f"{shown(path)} in {shown(touched.root)} is {flag} and cannot be replaced or deleted",
                hint=f"Take the flag away (chattr -{flag[0]}), or restore elsewhere with --to.",
            )
            refuse(path, error)
    if os.geteuid() != 0:
        _refuse_forbidden(touched, handles, refuse)


def _flag(folder: int, name: bytes, buffer: ctypes.Array[ctypes.c_char]) -> str | None:
    # statx, because asking the file itself would mean to open and close it
    if _STATX_AT is None or _STATX_AT(folder, name, _NO_FOLLOW, 0, buffer) != 0:
        return None
    attributes = _STATX.unpack_from(buffer)[2]
    return next((word for bit, word in _FLAGS.items() if attributes & bit), None)


def _refuse_forbidden(touched: Touched, handles: FolderHandles, refuse: Refuse) -> None:
    """Refuse where somebody else's folder, or a sticky one, forbids what root could do; own folders are opened up."""
    mine = os.geteuid()
    folders = {path: handles.lstat(path) for path in touched.folders}
    for path, status in folders.items():
        if status is None or status.st_uid == mine:
            continue
        if not os.access(f"/proc/self/fd/{handles.folder(path)}", os.W_OK | os.X_OK, effective_ids=True):
            refuse(path, _forbidden(touched.root, path, "may not be written to"))
    for path, status in touched.entries.items():
        above = folders.get(parent(path))
        sticky = above is not None and above.st_mode & stat.S_ISVTX and above.st_uid != mine
        if sticky and status.st_uid != mine:
            refuse(path, _forbidden(touched.root, path, "belongs to somebody else in a sticky folder"))


def _forbidden(root: bytes, path: bytes, why: str) -> RestoreRefused:
    return RestoreRefused(
        f"{shown(path)} in {shown(root)} {why} by this user",
        hint="Run as a user who may, leave it out with `exclude`, or restore elsewhere with --to.",
    )


def refuse_databases(touched: Touched, handles: FolderHandles, head: Head) -> None:
    """Refuse to replace or delete an SQLite database in use: one with a log or a hot journal, or that is open.

    A program that has it open would go on writing to a file without a name, and a log beside another database destroys
    it.

    Raises:
        RestoreRefused: The database is named, and who has it open.
    """
    beside = _Beside(handles, head)
    for path in touched.entries:
        base = next((path.removesuffix(end) for end in _BESIDE if path.endswith(end)), path)
        if (why := beside.log_of(base)) is not None and head(base, len(_SQLITE)) == _SQLITE:
            raise _in_use(touched.root, base, why)
    maybe = {
        (status.st_dev, status.st_ino): path
        for path, status in touched.entries.items()
        if stat.S_ISREG(status.st_mode) and status.st_size and status.st_size % _SMALLEST_PAGE == 0
    }
    for who, found in openers(maybe.keys()).items():
        for identity in found:
            if head(maybe[identity], len(_SQLITE)) == _SQLITE:
                raise _in_use(touched.root, maybe[identity], f"{who} has it open")


class _Beside:
    """Finds the files that SQLite keeps beside a database."""

    def __init__(self, handles: FolderHandles, head: Head) -> None:
        self._handles, self._head = handles, head
        self._names: dict[bytes, frozenset[bytes]] = {}

    def log_of(self, base: bytes) -> str | None:
        folder = parent(base)
        if folder not in self._names:
            self._names[folder] = frozenset(os.fsencode(name) for name in os.listdir(self._handles.folder(folder)))
        names = self._names[folder]
        if leaf(base) not in names:
            return None
        for end in _BESIDE:
            if leaf(base) + end not in names:
                continue
            if end != b"-journal" or self._head(base + end, len(_HOT_JOURNAL)) == _HOT_JOURNAL:
                return f"{shown(leaf(base) + end)} is beside it"
        return None


def _in_use(root: bytes, path: bytes, why: str) -> RestoreRefused:
    return RestoreRefused(
        f"{shown(path)} in {shown(root)} is an SQLite database in use ({why}); a file that replaced it would tear it",
        hint="Make it a source of type sqlite, which is restored while it is open; or stop the application (where that "
        "died, open and close the database once); or leave it out with `exclude`.",
    )


def openers(wanted: Iterable[Identity], *, writing: bool = False) -> dict[str, list[Identity]]:
    """Find the processes that have files open, as far as this user may see: by name and number, the files.

    Args:
        wanted: Device and inode of the files.
        writing: Look only for those that may write.
    """
    looked_for, found = set(wanted), {}
    for process in Path("/proc").glob("[0-9]*") if looked_for else ():
        files = _open_in(process, looked_for, writing=writing)
        if files:
            found[_name_of(process)] = files
    return found


def _open_in(process: Path, wanted: set[Identity], *, writing: bool) -> list[Identity]:
    files = []
    try:
        for entry in os.scandir(process / "fd"):
            try:
                status = entry.stat()
            except OSError:
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in wanted and not (writing and not _may_write(process, entry.name)):
                files.append(identity)
    except OSError:  # of another user, or gone
        pass
    return files


def _may_write(process: Path, number: str) -> bool:
    try:
        lines = (process / "fdinfo" / number).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((int(line.split()[1], 8) for line in lines if line.startswith("flags:")), 0)
    return flags & os.O_ACCMODE != os.O_RDONLY


def _name_of(process: Path) -> str:
    try:
        return f"{(process / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (process {process.name})"
    except OSError:
        return f"process {process.name}"
