"""What a restore is going to change in a tree: found, judged and compared before anything is changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.rows.selection import tree_keys
from blocks.sources.files.attributes import LookedAt
from blocks.sources.files.cover import Coverage, Judge, LeftOut, backed_up, relative_to
from blocks.sources.files.entries import Entries
from blocks.sources.files.hazards import Touched, openers
from blocks.sources.files.reading.ladder import FolderHandles
from blocks.sources.files.reading.stats import leaf, parent
from blocks.sources.files.refusals import Refusals, at_or_below
from blocks.sources.files.rows import FOLDER, TREE
from blocks.sources.files.tree import Walk, mounts_beneath, shown, special
from blocks.sources.files.view import FilesView
from blocks.sources.target import RestoreMode, RestoreScope

_NAMED = 5


@dataclass(frozen=True)
class Changes:
    """What is going to change.

    Attributes:
        touched: What is there and is replaced, deleted or changed.
        removals: What is deleted, or in the way; the deepest first; the value is True for a folder.
        aside: What no backup has and is moved away first.
        spared: Entries of the backup that are not written.
    """

    touched: Touched
    removals: Mapping[bytes, bool] = field(default_factory=dict)
    aside: tuple[bytes, ...] = ()
    spared: frozenset[bytes] = frozenset()


class Planner:
    """Finds what a restore changes in a tree that is there.

    Args:
        root: Resolved path of the tree's root.
        fd: An open descriptor of the tree's root.
        cover: The entries of the tree that the source covers.
        scope: The collections, rows and mode of the restore.
        unread: What the pre-restore backup lacks, with the reason.
    """

    def __init__(self, root: bytes, fd: int, cover: Coverage, scope: RestoreScope, unread: Mapping[bytes, str]) -> None:
        self._root, self._fd, self._cover, self._scope, self._unread = root, fd, cover, scope, unread
        self._exact = scope.mode is RestoreMode.EXACT and any(spec.name == TREE.name for spec, _ in scope.collections)
        self.handles = FolderHandles(fd)
        protected = cover.protected if scope.in_place else ()
        self._kept = frozenset(relative_to(root, protected)) | frozenset(_resolved(root, protected))
        self._identities = LeftOut.of([*protected, *cover.left_out]).identities
        left_out = [*relative_to(root, cover.left_out), *_resolved(root, cover.left_out)]
        self._judge = Judge(cover.rules, left_out)
        self._left_out = Judge(type(cover.rules)(), left_out)

    def reach(self) -> list[bytes]:
        """Return the paths that are there and that an exact restore replaces or deletes."""
        return self._selected(frozenset(), look_only=True) if self._exact else []

    def mounts(self) -> list[bytes]:
        """Return the mount points in the reach of an exact restore: it may have to write where they hide something."""
        if not self._exact or self._cover.one_file_system:
            return []
        covered, entered = backed_up(self._scope.definition, self._cover)
        inside = [
            path
            for path in mounts_beneath(self._root)
            if self._judge.covers(path, folder=True) and covered.covers(path, folder=True)
        ]
        return [path for path in inside if entered and any(self._chosen([path, path + b"/x"]))]

    def touched(self, paths: Iterable[bytes]) -> Touched:
        """Look at paths that are to be replaced or deleted."""
        entries, folders = {}, set()
        for path in paths:
            try:
                status = self.handles.lstat(path)
            except PermissionError:  # it is moved away unseen
                folders.add(parent(path))
                continue
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.add(path)
            else:
                entries[path] = status
            folders.add(parent(path))
        return Touched(self._root, entries, sorted(folders))

    def changes(
        self, entries: Entries, removed: Iterable[bytes], guard: FilesView | None, refusals: Refusals
    ) -> Changes:
        """Find all that changes.

        Args:
            entries: What is to be there.
            removed: Paths to be deleted besides, if nothing of the backup is to be there.
            guard: The view of the pre-restore backup, if there is one.
            refusals: What is left out; what is in the way is added.

        Raises:
            RestoreRefused: Something is in the way, or it cannot be known what is there.
        """
        spared = self._spared(entries) | self._unknown_leading(entries, guard)
        kinds = dict.fromkeys(entries.folders, FOLDER) | {
            path: int(kind) for path, kind in zip(entries.paths, entries.kinds.tolist(), strict=True)
        }
        spared |= {path for path in kinds if refusals.holds(path)}
        wanted = {path: kind for path, kind in kinds.items() if path not in spared}
        doomed = {path: self._is_folder(path) for path in self._selected(kinds.keys()) if not refusals.holds(path)}
        there = ((path, self._is_folder(path)) for path in removed if path not in kinds)
        doomed |= {p: folder for p, folder in there if self._may_go(p, folder=folder) and not refusals.holds(p)}
        replaced = []
        for path, kind in wanted.items():
            if refusals.holds(path):  # what is above it is in the way
                spared.add(path)
                continue
            status = None if self._below_unread(path) else self.handles.lstat(path)
            if status is None:
                continue
            if (status.st_dev, status.st_ino) in self._identities:
                spared.add(path)
                continue
            replaced.append(path)
            if stat.S_ISDIR(status.st_mode) == (kind == FOLDER):
                continue
            implied = kind == FOLDER and entries.folders[path] is None
            found = None
            if not self._exact or (implied and not self._scope.selection.everything):
                found = self._in_the_way(path, "a file" if kind == FOLDER else "a folder")
            elif kind != FOLDER:
                found = self._kept_inside(path, doomed)
            if found is None:
                doomed[path] = kind != FOLDER
                continue
            refusals.refuse(path, found)
            spared.add(path)
            replaced.pop()
            doomed = {inside: folder for inside, folder in doomed.items() if not at_or_below(inside, (path,))}
        aside = self._aside({*wanted} - spared, doomed)
        touched = self.touched([*replaced, *doomed, *aside, *self._parents_there(wanted)])
        return Changes(touched, dict(sorted(doomed.items(), reverse=True)), aside, frozenset(spared))

    def _spared(self, entries: Entries) -> set[bytes]:
        spared = {path for path in {*entries.paths, *entries.folders} if self._stays(path)}
        if self._scope.in_place and self._cover.rules.include:
            leading = {b""}
            folders = entries.folders.keys()
            for path in sorted({*entries.paths} - spared, reverse=True):
                if path in leading or self._judge.covers(path, folder=path in folders):
                    leading.add(parent(path))
                else:
                    spared.add(path)
        return spared

    def _unknown_leading(self, entries: Entries, guard: FilesView | None) -> set[bytes]:
        """Find folders that are there, only lead to what the plan includes, and that the pre-restore backup lacks."""
        if guard is None or not self._cover.rules.include:
            return set()
        leading = (path for path in entries.folders if path and not self._judge.covers(path, folder=True))
        return {path for path in leading if guard.row(path) is None and self._is_folder(path)}

    def _stays(self, path: bytes) -> bool:
        return path in self._kept or (bool(path) and not self._left_out.covers(path))

    def _selected(self, wanted: Iterable[bytes], *, look_only: bool = False) -> list[bytes]:
        """Find what is there and covered by plan, backup and selection, and is not wanted."""
        if not self._exact:
            return []
        listing = Walk(self._fd, self._cover, self._root, go_on=True).listing()
        covered, entered = backed_up(self._scope.definition, self._cover)
        mounts = mounts_beneath(self._root) if self._cover.one_file_system or not entered else frozenset()
        for path, reason in listing.unread:
            concerned = covered.covers(path) and self._chosen([path])[0]
            if not look_only and concerned and not self._below_unread(path):
                raise RestoreRefused(
                    f"{shown(path)} in {shown(self._root)} cannot be looked at ({reason}): it is not known what an "
                    "exact restore would delete",
                    hint="Give the user who restores access, or restore with --mode merge.",
                )
        folders = (listing.stats[:, 0] & 0o170000 == stat.S_IFDIR).tolist()
        found = {path: folder for path, folder in zip(listing.paths, folders, strict=True) if path not in wanted}
        paths = [*found]
        return [
            path
            for path, chosen in zip(paths, self._chosen(paths), strict=True)
            if chosen
            and covered.covers(path, folder=found[path])
            and self._may_go(path, folder=found[path])
            and not at_or_below(path, mounts)
        ]

    def _chosen(self, paths: list[bytes]) -> list[bool]:
        table = pa.table({"path": pa.array(paths, pa.large_binary())})
        selection = self._scope.selection_of(TREE.name).meant_for(TREE.key, TREE.label)
        if TREE.name in self._scope.created:  # then that is what was selected of it when it was made
            selection = replace(selection, within=tree_keys(selection.within))
        mask = selection.mask(table, TREE.label)
        return [True] * len(paths) if mask is None else mask.to_pylist()

    def _may_go(self, path: bytes, *, folder: bool) -> bool:
        may = bool(path) and self._judge.covers(path, folder=folder)
        return may and path not in self._kept and not self._is_protected(path)

    def _is_protected(self, path: bytes) -> bool:
        if not self._identities or self._below_unread(path):
            return False
        status = self.handles.lstat(path)
        return status is not None and (status.st_dev, status.st_ino) in self._identities

    def _is_folder(self, path: bytes) -> bool:
        status = self.handles.lstat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def _below_unread(self, path: bytes) -> bool:
        return bool(self._unread) and at_or_below(path, self._unread)

    def _aside(self, wanted: Iterable[bytes], doomed: dict[bytes, bool]) -> tuple[bytes, ...]:
        """Choose what has to be moved away of what no backup has: what would be written over or deleted."""
        unread = [path for path in self._unread if path]
        covered, _ = backed_up(self._scope.definition, self._cover)
        concerned = [path for path in unread if covered.covers(path)] if self._exact else []
        selected = {path for path, chosen in zip(concerned, self._chosen(concerned), strict=True) if chosen}
        met = {path for path in wanted if self._below_unread(path)}
        aside = [path for path in unread if path in selected or any(at_or_below(one, (path,)) for one in met)]
        for path in [path for path in doomed if self._below_unread(path)]:
            del doomed[path]
        return tuple(sorted(aside))

    def _parents_there(self, wanted: Iterable[bytes]) -> set[bytes]:
        found = {parent(path) for path in wanted if path}
        return {path for path in found if not self._below_unread(path)}

    def _kept_inside(self, folder: bytes, doomed: dict[bytes, bool]) -> RestoreRefused | None:
        """Say what must stay in a folder that would be replaced: excluded, not selected, or a device."""
        pending = [folder]
        while pending:
            path = pending.pop()
            with os.scandir(self.handles.folder(path)) as children:
                for child in children:
                    inside = path + b"/" + os.fsencode(child.name)
                    if inside not in doomed:
                        return RestoreRefused(
                            f"{shown(folder)} is a file in the backup and a folder in {shown(self._root)}, in which "
                            f"{shown(inside)} must stay",
                            hint="Move it away, or restore to another folder with --to.",
                        )
                    if child.is_dir(follow_symlinks=False):
                        pending.append(inside)
        return None

    def _in_the_way(self, path: bytes, kind: str) -> RestoreRefused:
        return RestoreRefused(
            f"{kind} is in the way: {shown(path)} in {shown(self._root)} is of another kind in the backup",
            hint="Move it away, restore with --mode exact, or restore to another folder with --to.",
        )

    def refuse_written(self, changes: Changes, entries: Entries, guard: FilesView) -> None:
        """Compare what is going to change with what the pre-restore backup holds of it.

        Raises:
            RestoreRefused: Something was written, made or deleted since.
        """
        looked_at, found = LookedAt(), []
        for path, status in changes.touched.entries.items():
            if self._below_unread(path):
                continue
            row, _ = looked_at.entry(self.handles.folder(parent(path)), leaf(path), status)
            if row != (known := guard.row(path)):
                self._refuse_special(path, status.st_mode)
                found.append((path, "is new" if known is None else "was written to", status))
        for path in changes.touched.folders:
            known = guard.row(path)
            concerned = (path in entries.folders and path not in changes.spared) or path in changes.removals
            if self._below_unread(path) or (known is None and not concerned):
                continue
            fd = self.handles.folder(path)
            here = os.fstat(fd)
            row, attributes = looked_at.entry(fd, None, here)
            if known is None:
                found.append((path, "is new", here))
            elif (row[0], *row[5:]) != (known[0], *known[5:]):
                found.append((path, "got another mode or owner", here))
            elif attributes != guard.listing.attributes.get(path):
                found.append((path, "got other attributes", here))
        self._refuse(found, self._gone(changes, entries, guard))

    def _refuse_special(self, path: bytes, mode: int) -> None:
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise RestoreRefused(
                f"{shown(path)} in {shown(self._root)} is a {special(mode)} now, which no backup holds, and the restore"
                " would replace it",
                hint="Move it away, or restore to another folder with --to.",
            )

    def _gone(self, changes: Changes, entries: Entries, guard: FilesView) -> list[bytes]:
        asked = guard.listing.paths if self._exact else entries.paths
        there = changes.touched.entries.keys() | set(changes.touched.folders) | changes.spared
        paths = [path for path in asked if path not in there and guard.row(path) is not None]
        return [
            path
            for path, chosen in zip(paths, self._chosen(paths), strict=True)
            if chosen and not self._below_unread(path) and self.handles.lstat(path) is None
        ]

    def _refuse(self, found: list[tuple[bytes, str, os.stat_result]], gone: list[bytes]) -> None:
        if not found and not gone:
            return
        told = [f"{shown(path)} {what}" for path, what, _ in found] + [f"{shown(path)} was deleted" for path in gone]
        who = openers(((status.st_dev, status.st_ino) for _, _, status in found), writing=True)
        by = f"; open for writing in {', '.join(sorted(who))}" if who else ""
        more = f", and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        raise RestoreRefused(
            f"{shown(self._root)} is being written to: since the backup that was made before the restore "
            f"{', '.join(told[:_NAMED])}{more}{by}",
            hint="Stop who writes there, and restore again.",
        )


def _resolved(root: bytes, paths: Iterable[Path]) -> list[bytes]:
    return relative_to(root, [Path(os.path.realpath(path)) for path in paths])
