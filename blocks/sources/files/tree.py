"""Walking a tree of files by descriptors, so that a symbolic link swapped in never leads out of it."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from blocks.errors import SourceUnavailable

STAGING_PREFIX = b".lastgood-restore-"
"""Folders of this name hold a restore at work (or what an interrupted one left); they are nobody's state."""

STATS = ("mode", "size", "mtime_ns", "ctime_ns", "inode", "uid", "gid")
"""Columns of `Listing.stats`."""

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST_HELD = 64
_WARNINGS_LISTED = 100

Stats = npt.NDArray[np.int64]


def shown(path: bytes) -> str:
    """Render a path in a message: as it is where it is plain text, escaped where it is not."""
    text = path.decode("utf-8", "backslashreplace")
    return (text if text.isprintable() else repr(path)[2:-1]) or "the tree's root"


def parent(path: bytes) -> bytes:
    """Return the folder that a relative path lies in; the root is empty."""
    return path.rpartition(b"/")[0]


def leaf(path: bytes) -> bytes:
    """Return the last component of a relative path."""
    return path.rpartition(b"/")[2]


def stat_row(status: os.stat_result) -> tuple[int, ...]:
    """Take the values of `STATS` from a stat; inodes beyond 63 bits wrap to negative ones."""
    inode = status.st_ino if status.st_ino < 1 << 63 else status.st_ino - (1 << 64)
    return (
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        inode,
        status.st_uid,
        status.st_gid,
    )


class Ladder:
    """Descriptors of the folders from a root down to the one asked for last, opened one component at a time.

    No component may be a symbolic link. Used by one thread; the root's descriptor stays its owner's.
    """

    def __init__(self, root: int) -> None:
        self._fds = [root]
        self._names: list[bytes] = []
        self._path = b""

    def folder(self, path: bytes) -> int:
        """Return a descriptor of a folder, valid until the next call.

        Raises:
            OSError: A component is missing, is no folder (ENOTDIR, also for a symbolic link) or cannot be opened.
        """
        if path == self._path:
            return self._fds[-1]
        names = path.split(b"/") if path else []
        held = 0
        while held < min(len(names), len(self._names)) and names[held] == self._names[held]:
            held += 1
        self._drop(held)
        try:
            for name in names[held:]:
                self._descend(name)
        finally:  # also where a component was missing: what is held is where it stands
            self._path = b"/".join(self._names)
        return self._fds[-1]

    def _descend(self, name: bytes) -> None:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=self._fds[-1])
        if len(self._names) < _DEEPEST_HELD:
            self._names.append(name)
            self._fds.append(fd)
        else:  # only the end of a very deep path is held: a joined name equals no component later
            os.close(self._fds[-1])
            self._fds[-1] = fd
            self._names[-1] += b"/" + name

    def _drop(self, keep: int) -> None:
        for fd in self._fds[keep + 1 :]:
            os.close(fd)
        del self._fds[keep + 1 :], self._names[keep:]

    def lstat(self, path: bytes) -> os.stat_result | None:
        """Stat an entry without following links; None where it, or a folder above it, is not there."""
        try:
            if not path:
                return os.fstat(self._fds[0])
            return os.lstat(leaf(path), dir_fd=self.folder(parent(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def close(self) -> None:
        """Close all descriptors but the root's."""
        self._drop(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Rules:
    """Which entries of a tree count: globs over relative paths, in which `*` also matches `/`.

    An entry is covered by a glob that matches it or a folder above it. Excluded entries never count. With `include`,
    only covered entries count, and the folders that lead to them.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def matchers(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        """Compile both lists; None for an empty one."""
        return _compiled(self.include), _compiled(self.exclude)


def _compiled(globs: Iterable[str]) -> re.Pattern[str] | None:
    cleaned = [glob.removeprefix("./").rstrip("/") for glob in globs]
    return re.compile("|".join(fnmatch.translate(glob) for glob in cleaned)) if cleaned else None


@dataclass(frozen=True)
class Listing:
    """All entries of a tree, sorted by the bytes of their paths; the root (an empty path) comes first.

    Attributes:
        paths: Relative paths.
        stats: One row of `STATS` per path.
        warnings: What was seen and is not listed, as sentences.
    """

    paths: list[bytes]
    stats: Stats
    warnings: tuple[str, ...]


class Walk:
    """One walk of a tree.

    Args:
        root: Descriptor of the root.
        rules: Which entries count.
        one_file_system: List folders on other file systems, but not what is in them.
    """

    def __init__(self, root: int, rules: Rules, *, one_file_system: bool) -> None:
        self._root, self._one_file_system = root, one_file_system
        self._include, self._exclude = rules.matchers()
        self._paths: list[bytes] = []
        self._stats = array("q")
        self._covered = bytearray()
        self._warnings: list[str] = []
        self._unlisted = 0

    def listing(self) -> Listing:
        """Walk the whole tree.

        Raises:
            SourceUnavailable: A folder or an entry cannot be read; it is named.
        """
        status = os.fstat(self._root)
        self._add(b"", status, covered=self._include is None)
        pending = [(b"", self._include is None)]
        with Ladder(self._root) as ladder:
            while pending:
                folder, covered = pending.pop()
                try:
                    pending += self._folder(ladder.folder(folder), folder, covered, status.st_dev)
                except (FileNotFoundError, NotADirectoryError):
                    self._warn(f"the folder {shown(folder)} vanished while the tree was walked")
                except OSError as exc:
                    raise _unreadable(folder, exc) from exc
        return self._sorted()

    def _folder(self, fd: int, folder: bytes, covered: bool, device: int) -> list[tuple[bytes, bool]]:
        prefix = folder + b"/" if folder else b""
        folders = []
        plain = self._include is None and self._exclude is None
        with os.scandir(fd) as entries:
            for entry in entries:
                path = prefix + os.fsencode(entry.name)
                inside = covered
                if not plain:
                    text = os.fsdecode(path)
                    if self._exclude is not None and self._exclude.match(text):
                        continue
                    inside = covered or (self._include is not None and self._include.match(text) is not None)
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    if self._enters(path, status, device):
                        folders.append((path, inside))
                    elif leaf(path).startswith(STAGING_PREFIX):
                        continue
                    self._add(path, status, covered=inside)
                elif not inside:
                    continue
                elif kind in (stat.S_IFREG, stat.S_IFLNK):
                    self._add(path, status, covered=True)
                else:
                    self._warn(f"{shown(path)} is a {special(status.st_mode)}; such entries are not kept")
        return folders

    def _enters(self, path: bytes, status: os.stat_result, device: int) -> bool:
        if leaf(path).startswith(STAGING_PREFIX):
            self._warn(f"{shown(path)} belongs to a restore at work or interrupted; it is not kept")
            return False
        if self._one_file_system and status.st_dev != device:
            self._warn(f"{shown(path)} is on another file system; it is kept as an empty folder")
            return False
        return True

    def _add(self, path: bytes, status: os.stat_result, *, covered: bool) -> None:
        self._paths.append(path)
        self._stats.extend(stat_row(status))
        self._covered.append(covered)

    def _warn(self, sentence: str) -> None:
        if len(self._warnings) < _WARNINGS_LISTED:
            self._warnings.append(sentence)
        else:
            self._unlisted += 1

    def _sorted(self) -> Listing:
        paths = self._paths
        stats = np.frombuffer(self._stats, np.int64).reshape(-1, len(STATS))
        order = sorted(range(len(paths)), key=paths.__getitem__)
        if self._include is not None:
            order = self._leading(order)
        if self._unlisted:
            self._warnings.append(f"{self._unlisted} more warnings like these")
        return Listing([paths[i] for i in order], stats[np.array(order, np.int64)], tuple(self._warnings))

    def _leading(self, order: list[int]) -> list[int]:
        """Keep the entries that `include` covers and the folders that lead to one; always the root."""
        needed, kept = {b""}, []
        for i in reversed(order):
            path = self._paths[i]
            if self._covered[i] or path in needed:
                kept.append(i)
                needed.add(parent(path))
        return kept[::-1]


def special(mode: int) -> str:
    """Name a kind of entry that is neither file, folder nor symbolic link."""
    names = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return names.get(stat.S_IFMT(mode), "special entry")


def _unreadable(path: bytes, error: OSError) -> SourceUnavailable:
    return SourceUnavailable(
        f"the folder {shown(path)} cannot be read: {error.strerror or error}",
        hint="Give the user who runs the backup access, or leave the folder out with `exclude`.",
    )
