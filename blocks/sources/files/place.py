"""Putting staged files into place.

    prepare     finish the staged files (size, owner, mode, times), look at what is there, refuse; sync
    carry_out   delete what is not in the backup or in the way (EXACT) -> folders -> renames -> modes and times of
                folders, deepest first -> sync

Everything happens relative to the descriptor of a folder that was opened one component at a time without following
symbolic links, so nothing in a backup or in the live tree leads a write out of the root.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType
from typing import Self

import pyarrow as pa

from blocks.errors import CorruptionDetected, RestoreRefused
from blocks.sources.base import RestoreMode, RestoreScope
from blocks.sources.files.entries import Entries
from blocks.sources.files.rows import FILE, FOLDER, LINK, TREE
from blocks.sources.files.staging import Staging, sync_file_system
from blocks.sources.files.tree import FOLDER_FLAGS, Ladder, Rules, Walk, leaf, parent, shown

_ALL = 0o700
_SYNCED_SINGLY = 64


class Placement:
    """One commit of a restore.

    Args:
        root: The tree's root, which may not be there yet.
        rules: What the source includes and excludes.
        scope: What is restored.
        one_file_system: Whether folders on other file systems belong to the source.
    """

    def __init__(self, root: bytes, rules: Rules, scope: RestoreScope, *, one_file_system: bool) -> None:
        self._root, self._rules, self._scope = root, rules, scope
        self._one_file_system = one_file_system
        self._exact = scope.mode is RestoreMode.EXACT
        self._owns = os.geteuid() == 0
        self._removals: list[tuple[bytes, bool]] = []
        self._loosened: dict[bytes, int] = {}
        self._fd = -1
        self.at = b""
        """Where `carry_out` is, for messages."""

    def __enter__(self) -> Self:
        try:
            self._open()
        except FileNotFoundError:
            pass  # it is made when everything is ready
        except OSError as exc:
            raise RestoreRefused(
                f"{shown(self._root)} cannot be opened: {exc.strerror or exc}", hint="Nothing was changed."
            ) from exc
        return self

    def _open(self) -> None:
        self._fd = os.open(self._root, FOLDER_FLAGS)
        self._ladder = Ladder(self._fd)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            self._ladder.close()
            os.close(self._fd)

    def prepare(self, entries: Entries, staging: Staging) -> None:
        """Do everything that can fail before the first visible change."""
        if self._fd >= 0:
            self._plan(entries)
        numbers = []
        for i, path in enumerate(entries.paths):
            if entries.kinds[i] == FOLDER:
                continue
            number = staging.number(path)
            try:
                if entries.kinds[i] == LINK:
                    os.symlink(entries.targets[path], staging.name(number), dir_fd=staging.fd)
                else:
                    staging.settle(number, entries.size[i])
                    numbers.append(number)
                self._dress(staging.name(number), staging.fd, entries, i)
            except (OverflowError, ValueError) as exc:
                raise CorruptionDetected(f"{shown(path)} has a size, owner or time that no file has") from exc
        staging.sync(numbers)

    def _dress(self, name: bytes | int, folder: int | None, entries: Entries, i: int) -> None:
        """Set owner, mode and times, in this order: a change of owner clears setuid."""
        link = entries.kinds[i] == LINK
        if self._owns and entries.uid[i] >= 0:
            os.chown(name, entries.uid[i], entries.gid[i], dir_fd=folder, follow_symlinks=not link)
        if not link and entries.mode[i] >= 0:
            os.chmod(name, entries.mode[i] & 0o7777, dir_fd=folder)
        moment = entries.mtime_ns[i]
        os.utime(name, ns=(moment, moment), dir_fd=folder, follow_symlinks=not link)

    def _plan(self, entries: Entries) -> None:
        """Find what has to go, and refuse where that would do harm."""
        doomed = self._surplus(entries)
        kinds = dict.fromkeys(entries.folders, FOLDER) | {
            path: int(kind) for path, kind in zip(entries.paths, entries.kinds.tolist(), strict=True)
        }
        for path, kind in kinds.items():
            status = self._ladder.lstat(path)
            if status is None or stat.S_ISDIR(status.st_mode) == (kind == FOLDER):
                continue
            implied = kind == FOLDER and entries.folders[path] is None
            if not self._exact or (implied and not self._scope.selection.everything):
                raise self._in_the_way(path, "a file" if kind == FOLDER else "a folder")
            if kind != FOLDER:
                self._check_all_doomed(path, doomed)
            doomed[path] = kind != FOLDER
        self._removals = sorted(doomed.items(), reverse=True)

    def _surplus(self, entries: Entries) -> dict[bytes, bool]:
        """Find what the live tree has, within the selection, and the backup has not; the value tells a folder."""
        if not self._exact or all(spec.name != TREE.name for spec, _ in self._scope.collections):
            return {}
        listing = Walk(self._fd, self._rules, one_file_system=self._one_file_system).listing()
        table = pa.table({"path": pa.array(listing.paths, pa.large_binary())})
        mask = self._scope.selection_of(TREE.name).mask(table, TREE.label)
        selected = [True] * len(listing.paths) if mask is None else mask.to_pylist()
        wanted = set(entries.paths) | entries.folders.keys()
        return {
            path: stat.S_ISDIR(mode)
            for path, mode, chosen in zip(listing.paths, listing.stats[:, 0].tolist(), selected, strict=True)
            if chosen and path not in wanted
        }

    def _check_all_doomed(self, folder: bytes, doomed: dict[bytes, bool]) -> None:
        """Refuse to replace a folder in which something must stay: excluded, not selected, or a device."""
        pending = [folder]
        while pending:
            path = pending.pop()
            with os.scandir(self._ladder.folder(path)) as children:
                for child in children:
                    inside = path + b"/" + os.fsencode(child.name)
                    if inside not in doomed:
                        raise RestoreRefused(
                            f"{shown(folder)} is a file in the backup and a folder in {shown(self._root)}, in which "
                            f"{shown(inside)} must stay",
                            hint="Move it away, or restore to another folder with --to.",
                        )
                    if child.is_dir(follow_symlinks=False):
                        pending.append(inside)

    def _in_the_way(self, path: bytes, kind: str) -> RestoreRefused:
        return RestoreRefused(
            f"{kind} is in the way: {shown(path)} in {shown(self._root)} is of another kind in the backup",
            hint="Move it away, restore with --mode exact, or restore to another folder with --to.",
        )

    def carry_out(self, entries: Entries, staging: Staging) -> None:
        """Change the tree.

        Raises:
            OSError: The system refused; `at` tells where.
        """
        if self._fd < 0:
            os.mkdir(self._root)
            self._open()
        for path, is_folder in self._removals:
            self._remove(path, is_folder=is_folder)
        for path, i in entries.folders.items():
            self._make_folder(path, 0o777 if i is None else _ALL)
        for path, kind in zip(entries.paths, entries.kinds.tolist(), strict=True):
            if kind in (FILE, LINK):
                folder = self._folder(parent(path))
                name = staging.name(staging.number(path))
                os.rename(name, leaf(path), src_dir_fd=staging.fd, dst_dir_fd=folder)
        self._finish_folders(entries)
        self._sync(entries)

    def _folder(self, path: bytes) -> int:
        """Open a folder to write in, which its mode may forbid its owner for now."""
        if path != self.at:
            self.at = path
            fd = self._ladder.folder(path)
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & _ALL != _ALL:
                self._loosened[path] = mode
                os.fchmod(fd, mode | _ALL)
        return self._ladder.folder(path)

    def _remove(self, path: bytes, *, is_folder: bool) -> None:
        folder = self._folder(parent(path))
        try:
            if is_folder:
                os.rmdir(leaf(path), dir_fd=folder)
            else:
                os.unlink(leaf(path), dir_fd=folder)
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError:
            # a folder stays for what it holds that was not to be deleted
            if not is_folder or not os.listdir(self._ladder.folder(path)):
                raise

    def _make_folder(self, path: bytes, mode: int) -> None:
        if path and self._ladder.lstat(path) is None:
            os.mkdir(leaf(path), mode, dir_fd=self._folder(parent(path)))

    def _finish_folders(self, entries: Entries) -> None:
        for path in sorted(entries.folders.keys() | self._loosened.keys(), reverse=True):
            self.at = path
            i = entries.folders.get(path)
            if i is not None:
                self._dress(self._ladder.folder(path), None, entries, i)
            elif path in self._loosened and self._is_folder(path):
                os.fchmod(self._ladder.folder(path), self._loosened[path])

    def _is_folder(self, path: bytes) -> bool:
        status = self._ladder.lstat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def _sync(self, entries: Entries) -> None:
        touched = entries.folders.keys() | {parent(path) for path, _ in self._removals}
        if len(touched) > _SYNCED_SINGLY:
            sync_file_system(self._fd)
            return
        for path in filter(self._is_folder, touched):
            os.fsync(self._ladder.folder(path))
        above = os.open(os.path.dirname(self._root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)
