"""The files of a database: which there are, what their times say, and how they are moved out of the way.

None of them is ever opened here. On POSIX, closing any descriptor of a file drops all locks that this process holds on
it, also those of other connections of the application that we run in; only SQLite itself knows how to avoid that.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from blocks.errors import RestoreRefused
from blocks.host.leftovers import left_behind, owned_name

SIDE_FILES = ("-wal", "-shm", "-journal")
_RACY_NS = 2_000_000_000
"""A file touched less than this ago may be touched again without its times showing it."""
_LOCKS = Path("/proc/locks")

Stamp = tuple[int, int, int, int]
"""Inode, size, and the nanoseconds of the last change of content and of the inode."""


def family(path: Path) -> tuple[Path, ...]:
    """Return the paths of a database and of the files that SQLite keeps beside it, whether they are there or not."""
    return (path, *(Path(f"{path}{suffix}") for suffix in SIDE_FILES))


def _stamp(path: Path) -> Stamp | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # an empty -wal or -journal says no more than a missing one, and looking at a database may leave one behind
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found.st_size else None


def stamps(path: Path) -> tuple[Stamp | tuple[int, int, int] | None, ...]:
    """Describe the database, its rollback journal and its write-ahead log so that a write to any of them shows."""
    wal = _stamp(Path(f"{path}-wal"))
    # run by root, SQLite gives the -wal to the database's owner whenever it opens it, which moves its ctime
    return _stamp(path), _stamp(Path(f"{path}-journal")), wal[:3] if wal and os.geteuid() == 0 else wal


def change_token(path: Path) -> str | None:
    """Describe the database's files so that equal descriptions mean an unchanged database.

    To be taken before a snapshot begins. None where a file was touched so lately that its times prove nothing.
    """
    facts = stamps(path)
    now = time.time_ns()
    if any(fact and now - fact[2] < _RACY_NS for fact in facts):
        return None
    return json.dumps(facts, separators=(",", ":"))


def users_of(path: Path) -> str:
    """Name the other processes that hold a lock on a database, as far as the system says; empty where it does not."""
    there = {_lock_id(file) for file in (path, Path(f"{path}-shm"))} - {None}
    pids = set()
    with suppress(OSError):
        for line in _LOCKS.read_text(encoding="ascii", errors="replace").splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[5] in there and fields[4] not in ("-1", str(os.getpid())):
                pids.add(int(fields[4]))
    return ", ".join(f"process {pid} ({_command(pid)})" for pid in sorted(pids))


def _lock_id(path: Path) -> str | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "ended"


def move_aside(path: Path, aside: Path) -> None:
    """Rename a database with its side files, those that are there: all of them or none.

    Raises:
        RestoreRefused: Nothing was moved.
    """
    try:
        for old, new in zip(family(path), family(aside), strict=True):
            with suppress(FileNotFoundError):
                os.rename(old, new)
    except BaseException as exc:
        move_back(path, aside)
        if not isinstance(exc, OSError):
            raise
        raise RestoreRefused(f"{path} cannot be moved aside: {exc}", hint="Check the rights of its folder.") from exc


def move_back(path: Path, aside: Path) -> bool:
    """Undo `move_aside`, wherever it stopped; return whether all is at its place again."""
    with suppress(OSError):
        if os.path.lexists(aside) and os.path.lexists(path):
            return False  # somebody has made a new one: its side files must not become those of another database
        for old, new in zip(family(path), family(aside), strict=True):
            if os.path.lexists(new):
                os.rename(new, old)
        return True
    return False


def put_in_place(new: Path, path: Path) -> None:
    """Give a finished database its name, which nothing else must have.

    Raises:
        FileExistsError: Something is there by now.
        OSError: It cannot be done.
    """
    try:
        os.link(new, path)  # unlike a rename it never replaces anything
    except FileExistsError:
        raise
    except OSError:  # not every file system has links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.rename(new, path)
    else:
        os.unlink(new)


def building_name(path: Path, plan: str) -> Path:
    """Make the name under which a database is built beside its place."""
    return path.with_name(owned_name(_building(path), plan))


def clear_leftovers(path: Path) -> None:
    """Remove unfinished databases that killed processes of this machine left beside a place."""
    with suppress(OSError):
        for name, base in list(_built(path)):
            if left_behind(base, _building(path)):
                with suppress(OSError):
                    os.unlink(path.with_name(name))


def leftovers(path: Path) -> list[str]:
    """Name unfinished databases that are not ours to remove: they are whole copies, and nobody else would notice."""
    return [
        f"{path.with_name(name)} was left by an interrupted restore, or another one is at work; remove it if none is."
        for name, base in sorted(_built(path))
        if name == base
    ]


def _built(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the names of unfinished databases and their side files, each with the name of the database itself."""
    for name in os.listdir(path.parent):
        if name.startswith(_building(path)):
            base = next((name.removesuffix(suffix) for suffix in SIDE_FILES if name.endswith(suffix)), name)
            yield name, base


def _building(path: Path) -> str:
    return f".{path.name}.lastgood-"
