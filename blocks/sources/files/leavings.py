"""What a restore leaves beside or inside of a tree: staged files, replaced ones, and what it keeps aside for people."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blocks.host.leftovers import left_behind
from blocks.sources.files.reading.ladder import FOLDER_FLAGS
from blocks.sources.files.reading.stats import Row, stat_row
from blocks.sources.files.renames import in_between
from blocks.sources.files.tree import KEPT_PREFIX, REPLACED_PREFIX, STAGING_PREFIX, shown

JOURNAL = b"replaced"
"""File in the folder of replaced files that says which of its numbers is what."""

_NAMED = 20
_INODE, _SIZE, _MTIME = 4, 1, 2  # in a `Row`


@dataclass(frozen=True)
class Moved:
    """A number in the folder of replaced files.

    Attributes:
        number: Its name.
        path: Where what it stands for was, or is to be.
        made: Inode of the file that was staged under it; -1 for none.
        known: Inode, size and mtime of what the pre-restore backup holds of the path; None where it holds nothing.
    """

    number: int
    path: bytes
    made: int
    known: tuple[int, int, int] | None

    @classmethod
    def of(cls, number: int, path: bytes, made: int, row: Row | None) -> Moved:
        """Make it from the row that the pre-restore backup stands for."""
        return cls(number, path, made, None if row is None else (row[_INODE], row[_SIZE], row[_MTIME]))

    def line(self) -> str:
        """Write it as a line of the journal."""
        known = "- - -" if self.known is None else " ".join(map(str, self.known))
        return f"{self.number} {self.made} {known} {self.path.hex() or '-'}\n"

    @classmethod
    def parse(cls, line: str) -> Moved:
        """Read what `line` wrote."""
        number, made, inode, size, mtime, path = line.split()
        known = None if inode == "-" else (int(inode), int(size), int(mtime))
        return cls(int(number), bytes.fromhex(path.strip("-")), int(made), known)


class KeptAside:
    """A folder for what no backup has; made when there is something to keep, never removed.

    Args:
        place: The folder to make it in, on the tree's file system.
        root: Path of the tree's root.
        plan: Name of the plan.
    """

    def __init__(self, place: bytes, root: bytes, plan: str) -> None:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = KEPT_PREFIX + os.fsencode(f"{plan}-" if plan else "") + moment.encode()
        self.path, self._fd, self._root = os.path.join(place, name), -1, os.path.basename(root)
        self._count = 0
        self.notes: list[str] = []

    def where(self, path: bytes) -> bytes:
        """Return where a path would be kept."""
        return os.path.join(self.path, self._root, path) if path else os.path.join(self.path, self._root)

    def take(self, name: bytes, folder: int, path: bytes, why: str) -> None:
        """Move an entry here; `why` is a clause for the note.

        Raises:
            OSError: It cannot be moved.
        """
        to = self._free(self.where(path))
        os.makedirs(os.path.dirname(to), mode=0o700, exist_ok=True)
        _rename_into(name, folder, to)
        self._count += 1
        if self._count <= _NAMED:
            self.notes.append(f"{shown(path)} {why}; it is kept as {shown(to)}.")

    @staticmethod
    def _free(wanted: bytes) -> bytes:
        to, count = wanted, 0
        while os.path.lexists(to):
            count += 1
            to = wanted + b"~%d" % count
        return to

    def all_notes(self) -> list[str]:
        """Return a sentence for each, or for the first of many."""
        more = self._count - len(self.notes)
        return [*self.notes, *([f"{more} more are kept in {shown(self.path)}."] if more else [])]


def _rename_into(name: bytes, folder: int, to: bytes) -> None:
    try:
        os.rename(name, to, src_dir_fd=folder)
    except PermissionError:
        # a folder can change its parent only where its owner may write in it
        status = os.lstat(name, dir_fd=folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise
        os.chmod(name, stat.S_IMODE(status.st_mode) | 0o700, dir_fd=folder)
        os.rename(name, to, src_dir_fd=folder)
        os.chmod(to, stat.S_IMODE(status.st_mode))


def settle(folder: bytes, moved: Iterable[Moved], kept: KeptAside, *, all_known: bool, why: str) -> None:
    """Empty a folder of replaced files: what the pre-restore backup holds goes, and what was staged; the rest is kept.

    Args:
        folder: The folder, which is removed at the end.
        moved: The entries that the numbered files stand for.
        kept: The folder for entries that are kept aside.
        all_known: Whether nothing at all is to be kept.
        why: For the notes: why something is kept, as a clause.

    Raises:
        OSError: Something cannot be moved.
    """
    fd = os.open(folder, FOLDER_FLAGS)
    try:
        for one in moved:
            for name in (b"%d" % one.number, in_between(b"%d" % one.number)):
                try:
                    status = os.lstat(name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                row = stat_row(status)
                now = (row[_INODE], row[_SIZE], row[_MTIME])
                if stat.S_ISDIR(status.st_mode) or not (all_known or status.st_ino == one.made or now == one.known):
                    kept.take(name, fd, one.path, why)
    finally:
        os.close(fd)
    # nothing is left in it that counts: under this name anybody clears it up if this process dies now
    above, name = os.path.split(folder)
    spent = os.path.join(above, STAGING_PREFIX + name.removeprefix(REPLACED_PREFIX))
    os.rename(folder, spent)
    shutil.rmtree(spent)


def settle_dead(root: bytes, kept: KeptAside) -> list[str]:
    """Empty the folders of replaced files that killed restores left; return sentences about them."""
    told = []
    for folder in _left(root, REPLACED_PREFIX):
        with contextlib.suppress(OSError, ValueError):
            lines = Path(os.fsdecode(os.path.join(folder, JOURNAL))).read_text(encoding="utf-8").splitlines()
            with unchanged_times(os.path.dirname(folder)):
                settle(
                    folder,
                    map(Moved.parse, lines),
                    kept,
                    all_known=False,
                    why="was replaced by a restore that was killed, and is in no backup",
                )
            told.append(f"{shown(folder)}, left by a killed restore, was cleared up.")
    return told


def remove_dead_staging(root: bytes) -> None:
    """Remove what killed processes of this machine staged for a tree; nothing of it was ever visible."""
    for folder in _left(root, STAGING_PREFIX):
        with contextlib.suppress(OSError), unchanged_times(os.path.dirname(folder)):
            shutil.rmtree(folder)


def _left(root: bytes, prefix: bytes) -> Iterator[bytes]:
    for place in (os.path.dirname(root), root):
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(place) if name.startswith(prefix)]
            found = [name for name in names if left_behind(os.fsdecode(name), os.fsdecode(prefix))]
            yield from (os.path.join(place, name) for name in found)


@contextmanager
def unchanged_times(folder: bytes) -> Iterator[None]:
    """Leave the times of a folder, and a mode that forbids writing, as they were."""
    before = os.stat(folder)
    mode = stat.S_IMODE(before.st_mode)
    shut = mode & 0o700 != 0o700 and before.st_uid == os.geteuid()
    if shut:
        os.chmod(folder, mode | 0o700)
    try:
        yield
    finally:
        if shut:
            os.chmod(folder, mode)
        with contextlib.suppress(PermissionError):
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
