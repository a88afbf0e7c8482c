"""Walking a tree of files by descriptors, so that a symbolic link swapped in never leads out of it."""

from __future__ import annotations

import errno
import os
import re
import stat
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from blocks.errors import SourceUnavailable
from blocks.host.leftovers import ASIDE
from blocks.host.places import mounts
from blocks.sources.files.attributes import LookedAt
from blocks.sources.files.cover import Coverage, Identity, LeftOut
from blocks.sources.files.reading.ladder import FolderHandles
from blocks.sources.files.reading.stats import Row, leaf, parent, stat_row

__all__ = ["STATS", "FolderHandles", "Listing", "Stats", "Walk", "leaf", "parent", "shown", "stat_row"]

STAGING_PREFIX = b".lastgood-restore-"
"""Folders of this name hold a restore at work (or what an interrupted one left); they are nobody's state."""

REPLACED_PREFIX = b".lastgood-replaced-"
"""Folders of this name hold what a restore that has not ended replaced or deleted."""

KEPT_PREFIX = b"lastgood-kept-aside-"
"""Folders of this name hold what no backup has and a restore moved away; they are people's to delete."""

_OURS = {
    STAGING_PREFIX: "belongs to a restore at work or interrupted; it is not kept",
    REPLACED_PREFIX: "holds what a restore at work or interrupted replaced; it is not kept",
    KEPT_PREFIX: "holds what a restore moved aside; it is not kept in backups",
}

_OF_OTHERS = re.compile(
    rb"\.(?:.*\.)?lastgood-.*-[0-9a-f]{8}-\d+-\d+-[0-9a-f]{8}(?:-wal|-shm|-journal)?"
    rb"|.+(" + re.escape(ASIDE.encode()) + rb"[0-9TZ]+)(?:-wal|-shm|-journal)?",
    re.DOTALL,
)
"""What restores of databases in the tree build and move aside, beside which a restore of the tree is at work."""

STATS = ("mode", "size", "mtime_ns", "ctime_ns", "inode", "uid", "gid")
"""Columns of `Listing.stats`."""

_WARNINGS_LISTED = 100

Stats = npt.NDArray[np.int64]

_MTIME = STATS.index("mtime_ns")
_LEAST, _GREATEST = -(1 << 63), (1 << 63) - 1


def fitting(row: Row) -> Row:
    """Bring a row into 64 bits: a modification time before 1677 or after 2262 becomes the nearest that fits."""
    moment = min(max(row[_MTIME], _LEAST), _GREATEST)
    return row if moment == row[_MTIME] else (*row[:_MTIME], moment, *row[_MTIME + 1 :])


def exact_row(stats: Sequence[int], mtime_ns: int | None) -> Row:
    """Undo `fitting`, for a row whose modification time is given where it did not fit."""
    return tuple(stats) if mtime_ns is None else (*stats[:_MTIME], mtime_ns, *stats[_MTIME + 1 :])


def shown(path: bytes) -> str:
    """Render a path in a message: as it is where it is plain text, escaped where it is not."""
    text = path.decode("utf-8", "backslashreplace")
    return (text if text.isprintable() else repr(path)[2:-1]) or "the tree's root"


def ours(name: bytes) -> bytes | None:
    """Return the prefix of a name that restores give to folders of their own; None for others."""
    return next((prefix for prefix in _OURS if name.startswith(prefix)), None)


def mounts_beneath(root: bytes) -> frozenset[bytes]:
    """Return the mount points beneath a folder, relative to it; none where the system does not say."""
    start = os.path.realpath(root).rstrip(b"/") + b"/"
    points = (os.fsencode(point) for point, _, _ in mounts())
    return frozenset(point[len(start) :] for point in points if point.startswith(start))


@dataclass(frozen=True)
class Listing:
    """All entries of a tree, sorted by the bytes of their paths; the root (an empty path) comes first.

    Attributes:
        paths: Relative paths.
        stats: One row of `STATS` per path.
        warnings: What was seen and is not listed, as sentences.
        left_out: Where places lie, or would lie, that belong to others.
        unread: Folders and entries that could not be looked at, with the reason; only of a walk that goes on.
        beyond: Modification times that `stats` has no room for (it has the nearest), by path, in nanoseconds.
        closed: Folders and entries that could not be looked at and need not be: the backup says nothing of them.
        attributes: The extended attributes of the entries that have any, by path.
        links: The first name, in the order of paths, of the files that have several names here, by each of these.
    """

    paths: list[bytes]
    stats: Stats
    warnings: tuple[str, ...]
    left_out: frozenset[bytes] = frozenset()
    unread: tuple[tuple[bytes, str], ...] = ()
    beyond: Mapping[bytes, int] = field(default_factory=dict)
    closed: tuple[bytes, ...] = ()
    attributes: Mapping[bytes, bytes] = field(default_factory=dict)
    links: Mapping[bytes, bytes] = field(default_factory=dict)

    def row(self, path: bytes) -> Row | None:
        """Return the stat of a path; None where it is not listed."""
        place = bisect_left(self.paths, path)
        if place == len(self.paths) or self.paths[place] != path:
            return None
        return exact_row(self.stats[place].tolist(), self.beyond.get(path))


class Walk:
    """One walk of a tree.

    Args:
        root: Descriptor of the root.
        cover: The entries of the tree that count.
        path: Where the root is, for finding mount points.
        go_on: List what cannot be looked at as `unread`, in place of raising.
        skip: List it as `closed`, in place of raising.
    """

    def __init__(
        self, root: int, cover: Coverage, path: bytes = b"", *, go_on: bool = False, skip: bool = False
    ) -> None:
        self._root, self._cover, self._go_on, self._skip = root, cover, go_on, skip
        self._rules = cover.rules
        self._plain = not (self._rules.include or self._rules.exclude)
        self._mounts = mounts_beneath(path) if cover.one_file_system and path else frozenset()
        self._others = LeftOut.of(cover.left_out)
        self._looked_at = LookedAt()
        self._paths: list[bytes] = []
        self._stats = array("q")
        self._covered = bytearray()
        self._warnings: list[str] = []
        self._unlisted = 0
        self._left_out: set[bytes] = set()
        self._unread: dict[bytes, str] = {}
        self._beyond: dict[bytes, int] = {}
        self._closed: dict[bytes, str] = {}
        self._attributes: dict[bytes, bytes] = {}
        self._names: dict[Identity, list[bytes]] = {}

    def listing(self) -> Listing:
        """Walk the whole tree.

        Raises:
            SourceUnavailable: A folder or an entry cannot be read; it is named.
        """
        status = os.fstat(self._root)
        whole: bool | None = True if self._rules.included is None else None
        self._add(b"", self._root, None, status, covered=whole is True)
        pending = [(b"", whole)]
        with FolderHandles(self._root) as handles:
            while pending:
                folder, covered = pending.pop()
                try:
                    pending += self._folder(handles.folder(folder), folder, covered, status.st_dev)
                except (FileNotFoundError, NotADirectoryError):
                    self._warn(f"the folder {shown(folder)} vanished while the tree was walked")
                except OSError as exc:
                    if not folder or not self._pass_over(folder, covered, exc):
                        raise _unreadable(folder, exc) from exc
        return self._sorted()

    def _pass_over(self, path: bytes, covered: bool | None, error: OSError) -> bool:
        """Go on past what cannot be looked at, where that may be."""
        reason = error.strerror or str(error)
        # `include: [models]` does not mean that every other folder has to be readable
        if covered is None and not self._rules.may_lead(path, names=False):
            self._closed[path] = reason
            self._warn(f"{shown(path)} cannot be read ({reason}); whether it holds what `include` names is not known")
        elif self._go_on:
            self._unread[path] = reason
        elif self._skip:
            self._closed[path] = reason
            self._warn(
                f"{shown(path)} cannot be read ({reason}); the backup says nothing new of it: of an incremental or "
                "differential backup it is as its base has it, of another it is left out"
            )
        else:
            return False
        return True

    def _folder(self, fd: int, folder: bytes, covered: bool | None, device: int) -> list[tuple[bytes, bool | None]]:
        prefix = folder + b"/" if folder else b""
        folders: list[tuple[bytes, bool | None]] = []
        others = self._others_in(fd, prefix)
        with os.scandir(fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                path = prefix + name
                inside = covered if self._plain else self._inside(path, covered, entry)
                if inside is False:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    if not self._pass_over(path, inside, exc):
                        raise
                    continue
                if (found := _OF_OTHERS.fullmatch(name)) is not None:
                    if found[1]:
                        self._warn(f"{shown(path)} {_OURS[KEPT_PREFIX]}")
                    continue
                if name in others or (status.st_dev, status.st_ino) in self._others.identities:
                    self._leave(path)
                    continue
                if stat.S_ISDIR(status.st_mode):
                    if self._enters(path, name, status, device):
                        folders.append((path, inside))
                    elif ours(name):
                        continue
                    self._add(path, fd, name, status, covered=inside is True)
                elif not inside:
                    continue
                elif stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                    self._add(path, fd, name, status, covered=True)
                else:
                    self._warn(f"{shown(path)} is a {special(status.st_mode)}; such entries are not kept")
        return folders

    def _inside(self, path: bytes, covered: bool | None, entry: os.DirEntry[str]) -> bool | None:
        """Say as `Rules.step` does what an entry is; also False for what nothing is looked for in."""
        folder = entry.is_dir(follow_symlinks=False)
        inside = self._rules.step(path, covered, folder=folder)
        return False if inside is None and not (folder and self._rules.may_lead(path)) else inside

    def _others_in(self, fd: int, prefix: bytes) -> frozenset[bytes]:
        """Return the names in a folder that are others', also of what is not there yet."""
        if not self._others.names:
            return frozenset()
        status = os.fstat(fd)
        here: Identity = (status.st_dev, status.st_ino)
        names = self._others.names.get(here, frozenset())
        self._left_out.update(prefix + name for name in names)
        return names

    def _leave(self, path: bytes) -> None:
        self._left_out.add(path)
        self._warn(f"{shown(path)} is left out: it is the repository's, another source's, or what lastgood remembers")

    def _enters(self, path: bytes, name: bytes, status: os.stat_result, device: int) -> bool:
        if (prefix := ours(name)) is not None:
            self._warn(f"{shown(path)} {_OURS[prefix]}")
            return False
        if self._cover.one_file_system and (status.st_dev != device or path in self._mounts):
            self._warn(f"{shown(path)} is on another file system; it is kept as an empty folder")
            return False
        return True

    def _add(self, path: bytes, fd: int, name: bytes | None, status: os.stat_result, *, covered: bool) -> None:
        row, attributes = self._looked_at.entry(fd, name, status)
        if attributes is not None:
            self._attributes[path] = attributes
        if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
            self._names.setdefault((status.st_dev, status.st_ino), []).append(path)
        fits = fitting(row)
        if fits is not row:
            self._beyond[path] = row[_MTIME]
        self._paths.append(path)
        self._stats.extend(fits)
        self._covered.append(covered)

    def _warn(self, sentence: str) -> None:
        if len(self._warnings) < _WARNINGS_LISTED:
            self._warnings.append(sentence)
        else:
            self._unlisted += 1

    def _sorted(self) -> Listing:
        if self._unlisted:
            self._warnings.append(f"{self._unlisted} more warnings like these")
        self._warnings += self._looked_at.sentences()
        paths = self._paths
        stats = np.frombuffer(self._stats, np.int64).reshape(-1, len(STATS))
        unseen = self._unread.keys() | self._closed.keys()
        order = sorted(
            (i for i in range(len(paths)) if paths[i] not in unseen) if unseen else range(len(paths)),
            key=paths.__getitem__,
        )
        if self._rules.included is not None:
            order = self._leading(order)
        return Listing(
            [paths[i] for i in order],
            stats[np.array(order, np.int64)],
            tuple(self._warnings),
            frozenset(self._left_out),
            tuple(sorted(self._unread.items())),
            self._beyond,
            tuple(sorted(self._closed)),
            self._attributes,
            self._links(),
        )

    def _links(self) -> dict[bytes, bytes]:
        # names beyond the tree, or that the plan leaves out, make nothing special of a file
        shared = (names for names in self._names.values() if len(names) > 1)
        return {name: first for names in shared for first in [min(names)] for name in names}

    def _leading(self, order: Sequence[int]) -> list[int]:
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
        f"the folder {shown(path)} cannot be read: {error.strerror or os.strerror(error.errno or errno.EIO)}",
        hint="Give the user who runs the backup access, or leave the folder out with `exclude`.",
    )
