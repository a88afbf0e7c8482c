"""Putting staged files into place.

    prepare     finish the staged files (size, owner, attributes, mode, times; further names), look at what is there,
                refuse; sync
                What a place refuses (a name, a mount point, a flag, an attribute) is found here, named, and may be
                left out.
    carry_out   move away what no backup has -> move what is not in the backup, or in the way, to the replaced files ->
                folders -> swap staged files in -> modes and times of folders, deepest first -> sync

Everything happens relative to the descriptor of a folder that was opened one component at a time without following
symbolic links, so nothing in a backup or in the live tree leads a write out of the root.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from blocks.errors import CorruptionDetected, RestoreRefused
from blocks.sources.files import renames
from blocks.sources.files.changes import Changes, Planner
from blocks.sources.files.cover import Coverage
from blocks.sources.files.dressing import Dresser
from blocks.sources.files.entries import Entries
from blocks.sources.files.hazards import Touched, refuse_databases, refuse_mounts, refuse_unchangeable
from blocks.sources.files.leavings import KeptAside, Moved
from blocks.sources.files.readers import Readers
from blocks.sources.files.reading.channel import Watch
from blocks.sources.files.reading.ladder import FOLDER_FLAGS
from blocks.sources.files.reading.stats import leaf, parent
from blocks.sources.files.refusals import Refusals
from blocks.sources.files.rows import FOLDER, LINK
from blocks.sources.files.staging import Staging, sync_file_system
from blocks.sources.files.tree import shown
from blocks.sources.files.view import FilesView
from blocks.sources.target import RestoreScope

_ALL = 0o700
_SYNCED_SINGLY = 64
_NAMED = 3
_ORDINARY = re.compile(rb"[A-Za-z0-9._+@=,-]{0,63}[A-Za-z0-9_+@=,-]")
"""Names that every file system takes."""


class Placement:
    """One commit of a restore.

    Args:
        root: The tree's root, resolved, which may not be there yet.
        cover: The entries of the tree that the source covers.
        scope: The collections, rows and mode of the restore.
        unread: What the pre-restore backup lacks, with the reason.
        guard: The view of the pre-restore backup.
        refusals: What cannot be put into place, and may be left out.
    """

    def __init__(
        self,
        root: bytes,
        cover: Coverage,
        scope: RestoreScope,
        unread: Mapping[bytes, str],
        guard: FilesView | None,
        refusals: Refusals,
    ) -> None:
        self._refusals = refusals
        self._root, self._cover, self._scope, self._unread, self._guard = root, cover, scope, unread, guard
        self._loosened: dict[bytes, int] = {}
        self._times: dict[bytes, tuple[int, int]] = {}
        self._opened_up: set[bytes] = set()
        self._changes = Changes(Touched(root, {}, []))
        self._fd = -1
        self._apart = 0
        self._dresser = Dresser(refusals)
        self.at = b""
        """Where `carry_out` is, for messages."""
        self.moved: list[Moved] = []
        """What the numbers in the folder of replaced files are."""
        self._open_what_is_there()
        self.was_there = self._fd >= 0
        """Whether there was a folder that could be opened."""

    def _open_what_is_there(self) -> None:
        if b"" in self._unread:  # it is moved away as a whole
            return
        try:
            self._open()
        except FileNotFoundError:
            pass  # it is made when everything is ready
        except OSError as exc:
            raise RestoreRefused(f"{shown(self._root)} cannot be opened: {exc.strerror or exc}") from exc

    def _open(self) -> None:
        self._fd = os.open(self._root, FOLDER_FLAGS)
        self._planner = Planner(self._root, self._fd, self._cover, self._scope, self._unread)
        self._handles = self._planner.handles

    def close(self) -> None:
        """Close what is open; may be called twice."""
        if self._fd >= 0:
            self._handles.close()
            os.close(self._fd)
            self._fd = -1

    def look_ahead(self) -> None:
        """Refuse what can be known before any row has come.

        Raises:
            RestoreRefused: The restore could not be carried out.
        """
        if self._fd >= 0:
            reach = [path for path in self._planner.reach() if path not in self._unread]
            touched = self._planner.touched(reach)
            places = [*touched.entries, *map(parent, reach), *self._planner.mounts()]
            refuse_mounts(self._root, places, self._refusals.refuse)
            refuse_unchangeable(touched, self._handles, self._refusals.refuse)
            self._refuse_databases(self._planner.touched(path for path in reach if not self._refusals.holds(path)))

    def _refuse_databases(self, touched: Touched) -> None:
        with Readers(self._fd, Watch()) as readers:
            refuse_databases(touched, self._handles, readers.head)

    def prepare(self, entries: Entries, staging: Staging, removed: Iterable[bytes]) -> None:
        """Do everything that can fail before the first visible change."""
        self._refuse_names(entries, staging)
        if self._fd >= 0:
            self._find_changes(entries, removed)
        numbers: list[int] = []
        files = {i: file for file, names in enumerate(entries.names) for i in names}
        firsts: dict[int, bytes] = {}
        for i, path in enumerate(entries.paths):
            if not self._is_placed(path):
                continue
            self.at, file = path, files.get(i, -1)
            try:
                if entries.kinds[i] == FOLDER:
                    self._foresee(path, staging, entries, i)
                elif not self._link(staging, firsts.get(file), path):
                    numbers += self._finish(staging, entries, i)
                    if file >= 0:  # after a name that is refused the next one is the first
                        firsts.setdefault(file, path)
            except (OverflowError, ValueError) as exc:
                raise CorruptionDetected(f"{shown(path)} has a size, owner or time that no file has") from exc
            except OSError as exc:
                self._refusals.fail(path, exc)
        self._check_something_is_left(entries)
        self._refusals.check(self._root)
        self._note_what_moves(entries, staging)
        staging.sync(numbers)

    def _refuse_names(self, entries: Entries, staging: Staging) -> None:
        """Try, in the staging folder, the names that not every file system takes."""
        paths = {path for path in (*entries.paths, *entries.folders) if path and not _ORDINARY.fullmatch(leaf(path))}
        bad: dict[bytes, OSError] = {}
        for name in {leaf(path) for path in paths}:
            if (error := staging.refuses_name(name)) is not None:
                bad[name] = error
        for path in sorted(path for path in paths if leaf(path) in bad):
            message = f"the file system of {shown(self._root)} does not take this name: {bad[leaf(path)].strerror}"
            hint = "Restore to another file system with --to."
            self._refusals.refuse(path, RestoreRefused(f"{shown(path)}: {message}", hint=hint))

    def _find_changes(self, entries: Entries, removed: Iterable[bytes]) -> None:
        """Find what changes; again as long as something of it has to be left out."""
        removed, count = list(removed), -1
        while count < len(self._refusals):
            count = len(self._refusals)
            self._changes = self._planner.changes(entries, removed, self._guard, self._refusals)
            placed = [path for path, kind in self._placed(entries) if kind != FOLDER]
            changed = [*self._changes.removals, *placed, *self._changes.aside]
            refuse_mounts(self._root, changed, self._refusals.refuse)
            refuse_unchangeable(self._changes.touched, self._handles, self._refusals.refuse)
        self._refuse_databases(self._changes.touched)

    def _check_something_is_left(self, entries: Entries) -> None:
        """Refuse a restore that would leave out everything."""
        refused = self._refusals.entries
        if refused and not self._changes.removals and not any(path for path, _ in self._placed(entries)):
            raise RestoreRefused(f"nothing can be restored to {shown(self._root)}: {refused[0].reason}")

    def _is_placed(self, path: bytes) -> bool:
        return path not in self._changes.spared and not self._refusals.holds(path)

    def _finish(self, staging: Staging, entries: Entries, i: int) -> list[int]:
        """Finish a staged file or link; return its number where it has content."""
        path = entries.paths[i]
        number = staging.number(path)
        if entries.kinds[i] == LINK:
            os.symlink(entries.targets[path], staging.name(number), dir_fd=staging.fd)
        else:
            staging.settle(number, entries.size[i])
        self._dresser.dress(staging.name(number), staging.fd, entries, i)
        return [] if entries.kinds[i] == LINK else [number]

    def _foresee(self, path: bytes, staging: Staging, entries: Entries, i: int) -> None:
        there = None
        if self._fd >= 0 and path not in self._changes.removals and self._is_folder(path):
            with suppress(PermissionError):  # it is moved away unseen
                there = self._handles.folder(path)
        self._dresser.foresee(there, staging.fd, entries, i)

    def _link(self, staging: Staging, first: bytes | None, path: bytes) -> bool:
        """Make a staged file one more name of the first of its names that there is; return whether it is one."""
        if first is None:
            return False
        try:
            staging.link(staging.number(first), staging.number(path))
        except OSError as exc:
            self._refusals.lose_link(path, exc)
            return False
        return True

    def _note_what_moves(self, entries: Entries, staging: Staging) -> None:
        """Write down what each number will be, for who has to clear up after a kill."""
        placed = [path for path, kind in self._placed(entries) if kind != FOLDER]
        gone = [path for path, is_folder in self._changes.removals.items() if not is_folder]
        for path in [*placed, *gone]:
            number = staging.number(path)
            known = self._guard.row(path) if self._guard else None
            self.moved.append(Moved.of(number, path, staging.inode(number), known))
        staging.write_journal(self.moved)

    def _placed(self, entries: Entries) -> list[tuple[bytes, int]]:
        both = zip(entries.paths, entries.kinds.tolist(), strict=True)
        return [(path, int(kind)) for path, kind in both if self._is_placed(path)]

    def refuse_written(self, entries: Entries) -> None:
        """Refuse where what changes was written to since the pre-restore backup.

        Raises:
            RestoreRefused: It was; nothing was changed.
        """
        if self._guard is not None and self._fd >= 0:
            self._planner.refuse_written(self._changes, entries, self._guard)

    def carry_out(self, entries: Entries, staging: Staging, kept: KeptAside) -> None:
        """Change the tree.

        Raises:
            OSError: The system refused; `at` says where.
        """
        if self._fd < 0:
            self._make_root(kept)
        for path in self._changes.aside:
            why = f"could not be read ({self._unread[path]}), so that no backup has it"
            kept.take(leaf(path), self._folder(parent(path)), path, why)
        for path, is_folder in self._changes.removals.items():
            with self._of(path):
                self._remove(path, staging, is_folder=is_folder)
        for path in filter(self._is_placed, entries.folders):
            with self._of(path):
                self._make_folder(path)
        found = self.was_there  # mostly either all entries of a folder are there or none is
        for path, kind in self._placed(entries):
            if kind != FOLDER and self._is_placed(path):
                with self._of(path):
                    folder, staged = self._folder(parent(path)), staging.name(staging.number(path))
                    found = renames.swap_in(staged, staging.fd, leaf(path), folder, found)
        folders = {path: i for path, i in entries.folders.items() if self._is_placed(path)}
        self._finish_folders(folders, entries)
        self._count_apart(entries)
        self._sync(folders)

    @contextmanager
    def _of(self, path: bytes) -> Iterator[None]:
        """Leave out an entry that the system refuses, where that may be."""
        try:
            yield
        except OSError as exc:
            self._refusals.fail(path, exc)

    def _make_root(self, kept: KeptAside) -> None:
        if b"" in self._unread and os.path.lexists(self._root):
            above = os.open(os.path.dirname(self._root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                why = f"could not be read ({self._unread[b'']}), so that no backup has it"
                kept.take(os.path.basename(self._root), above, b"", why)
            finally:
                os.close(above)
        os.mkdir(self._root, _ALL)
        self._open()

    def _folder(self, path: bytes) -> int:
        """Open a folder to write in, which its mode may forbid its owner for now."""
        self.at = path
        if path not in self._opened_up:
            self._opened_up.add(path)
            fd = self._handles.folder(path)
            status = os.fstat(fd)
            self._times.setdefault(path, (status.st_atime_ns, status.st_mtime_ns))
            mode = stat.S_IMODE(status.st_mode)
            if mode & _ALL != _ALL and os.geteuid() in (0, status.st_uid):
                self._loosened[path] = mode
                os.fchmod(fd, mode | _ALL)
        return self._handles.folder(path)

    def _remove(self, path: bytes, staging: Staging, *, is_folder: bool) -> None:
        folder = self._folder(parent(path))
        try:
            if is_folder:
                os.rmdir(leaf(path), dir_fd=folder)
            else:
                os.rename(leaf(path), b"%d" % staging.number(path), src_dir_fd=folder, dst_dir_fd=staging.fd)
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError:
            # a folder stays for what it holds that was not to be deleted
            if not is_folder or not os.listdir(self._handles.folder(path)):
                raise

    def _make_folder(self, path: bytes) -> None:
        # private until it gets its own mode; of one that the backup does not hold, nobody knows a wider one
        if path and self._handles.lstat(path) is None:
            os.mkdir(leaf(path), _ALL, dir_fd=self._folder(parent(path)))

    def _finish_folders(self, folders: Mapping[bytes, int | None], entries: Entries) -> None:
        for path in sorted(folders.keys() | self._times.keys(), reverse=True):
            self.at = path
            i = folders.get(path)
            with self._of(path):
                if i is not None:
                    self._dresser.dress(self._handles.folder(path), None, entries, i)
                elif path in self._times and self._is_folder(path):
                    self._leave_as_found(path)

    def _count_apart(self, entries: Entries) -> None:
        """Count the files of several names that have one now."""
        for names in entries.names:
            self._apart += sum(self._is_placed(entries.paths[i]) for i in names) == 1

    def _leave_as_found(self, path: bytes) -> None:
        """Give a folder that was not restored itself its time and mode again: only what was asked for changes."""
        fd = self._handles.folder(path)
        with suppress(PermissionError):  # the time of somebody else's folder is his
            os.utime(fd, ns=self._times[path])
        if path in self._loosened:
            os.fchmod(fd, self._loosened[path])

    def _is_folder(self, path: bytes) -> bool:
        status = self._handles.lstat(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def _sync(self, folders: Mapping[bytes, int | None]) -> None:
        touched = folders.keys() | {parent(path) for path in self._changes.removals}
        if len(touched) > _SYNCED_SINGLY:
            sync_file_system(self._fd)
            return
        for path in filter(self._is_folder, touched):
            os.fsync(self._handles.folder(path))
        above = os.open(os.path.dirname(self._root), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)

    @property
    def notes(self) -> list[str]:
        """What is not as it was backed up, in sentences."""
        told = []
        spared = sorted(path for path in self._changes.spared if not self._refusals.holds(path))
        if spared:
            names = ", ".join(map(shown, spared[:_NAMED]))
            more = f" and {len(spared) - _NAMED} more" if len(spared) > _NAMED else ""
            told.append(f"{names}{more} stayed as they are: the plan leaves them out, or needs them itself.")
        if self._apart:
            told.append(
                f"{self._apart} files came back by one name only, apart from other names (hard links) that were not "
                "restored with them."
            )
        return told + self._dresser.notes
