"""Where state, backups and keys live, resolved so that two spellings of one place compare equal.

A local path is resolved through symbolic links and then through mounts: on Linux, to the device and the path inside of
its file system, so that a folder and its bind mount are one place.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Location:
    """Where state lives.

    Attributes:
        shown: The place for people to see, without secrets.
        paths: Local files or folders that it is, the main one first; empty where it is on a server.
        tree: Whether all beneath the path belongs to it.
        server: What identifies the server, database or object; equal for every spelling. Empty for local paths.
        databases: Which of the server's databases it is; None for all of them.
        prefix: How the names of a server's objects begin that it is; it ends in `/`. Empty for all of them.
        part: What a source takes of it, in words (patterns, tables); empty for all of it.
    """

    shown: str
    paths: tuple[Path, ...] = ()
    tree: bool = False
    server: tuple[str, ...] = ()
    databases: frozenset[str] | None = None
    prefix: str = ""
    part: str = ""

    def same(self, other: Location) -> bool:
        """Whether both are one place, or share a database of one server."""
        if self.server or other.server:
            return self.server == other.server and self.prefix == other.prefix and self._shares_database(other)
        mine = {resolved(path) for path in self.paths}
        if any(resolved(path) in mine for path in other.paths):
            return True
        # one file can have two names in two folders
        files = {found for path in self.paths if (found := _file(path))}
        return any(_file(path) in files for path in other.paths)

    def holds(self, other: Location) -> bool:
        """Whether the other place lies inside of this one."""
        if self.server or other.server:
            beneath = self.prefix != other.prefix and other.prefix.startswith(self.prefix)
            return self.server == other.server and beneath
        return self.tree and any(inside(path, self.paths[0]) for path in other.paths)

    def _shares_database(self, other: Location) -> bool:
        return self.databases is None or other.databases is None or bool(self.databases & other.databases)


@dataclass(frozen=True)
class Resolved:
    """A local path on its file system: the device, and the path from the root of that file system."""

    device: str
    path: PurePosixPath


def resolved(path: Path) -> Resolved:
    """Resolve a path, which need not exist, through symbolic links and mounts."""
    real = os.path.realpath(path)
    if (mount := _mount_of(real)) is None:
        return Resolved("", PurePosixPath(real))
    return Resolved(mount.device, mount.inside(real))


def on_share(path: Path) -> str | None:
    """Name a path on a file server as all machines see it, resolved: `server:/export/path`; None on a local disk."""
    real = os.path.realpath(path)
    mount = _mount_of(real)
    if mount is None or not (":/" in mount.source or mount.source.startswith("//")):
        return None
    return f"{mount.source.rstrip('/')}{mount.inside(real)}"


def _mount_of(real: str) -> _Mount | None:
    for mount in _deepest_first(_table()):
        if real.startswith(mount.point) and real[len(mount.point) : len(mount.point) + 1] in ("", "/"):
            return mount
    return None


def _file(path: Path) -> tuple[int, int] | None:
    """Identify a file by device and inode; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies beneath it, through whatever links and mounts both are spelled."""
    there, here = resolved(folder), resolved(path)
    if here.device == there.device and here.path.is_relative_to(there.path):
        return True
    # what is mounted beneath the folder lies on another file system, but inside of it all the same
    return PurePosixPath(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def mounts() -> list[tuple[str, str, str]]:
    """Return point, device and root of each mount, in the order in which they were made.

    Bytes that are no UTF-8 are as `os.fsdecode` makes them. Nothing where the system does not tell.
    """
    return [(mount.point, mount.device, str(mount.root)) for mount in _parsed(_table())]


def _table() -> bytes:
    try:
        return _MOUNTS.read_bytes()
    except OSError:
        return b""


@dataclass(frozen=True)
class _Mount:
    point: str
    device: str
    root: PurePosixPath
    source: str

    def inside(self, real: str) -> PurePosixPath:
        """Return where a path beneath the mount point is in the file system."""
        return self.root / real[len(self.point) + 1 :]


# a command asks for hundreds of paths, and few mounts are made meanwhile: the table is read for each, and parsed once
@lru_cache(maxsize=1)
def _parsed(table: bytes) -> tuple[_Mount, ...]:
    return tuple(_mount(line.split(b" ")) for line in table.split(b"\n") if line)


def _mount(fields: list[bytes]) -> _Mount:
    # optional fields end with a dash; the type of the file system and what is mounted follow
    after = fields[fields.index(b"-") + 1 :] if b"-" in fields else []
    source = _unescaped(after[1]) if len(after) > 1 else ""
    return _Mount(_unescaped(fields[4]), os.fsdecode(fields[2]), PurePosixPath(_unescaped(fields[3])), source)


@lru_cache(maxsize=1)
def _deepest_first(table: bytes) -> tuple[_Mount, ...]:
    """Return mounts, those with the deepest point and the latest first; the root's point is empty."""
    # the last mount on a point hides those before it
    found = [replace(mount, point=mount.point.rstrip("/")) for mount in reversed(_parsed(table))]
    return tuple(sorted(found, key=lambda mount: mount.point.count("/"), reverse=True))


def _unescaped(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda code: bytes([int(code[1], 8)]), field))
