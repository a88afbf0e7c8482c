"""Reading one part of a tree of files."""

from __future__ import annotations

import errno
import os

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.errors import SourceChanged, SourceUnavailable
from blocks.sources.files.observed import KEPT_CHANGING, ObservedTree
from blocks.sources.files.readers import Contents
from blocks.sources.files.reading.channel import CHANGED, FAILED, GONE, READ, Outcome
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.reading.stats import UNKNOWN, Row
from blocks.sources.files.rows import FILE, LINK, Beside, Range, entry_rows, kinds_of, part_rows
from blocks.sources.files.tree import STATS, FolderHandles, exact_row, fitting, leaf, parent, shown
from blocks.sources.reading import BaseLookup, FullRead

_SIZE, _MTIME, _CTIME, _INODE = (STATS.index(name) for name in ("size", "mtime_ns", "ctime_ns", "inode"))


class PartReader:
    """Reads one part once.

    Args:
        view: The view it belongs to.
        span: The part's range of rows.
        base: What the base holds of it, if that may be relied on.
    """

    def __init__(self, view: ObservedTree, span: Range, base: BaseLookup | None) -> None:
        self._view, self._span, self._base = view, span, base
        here = span.locate(view.listing.paths)
        self._paths = view.listing.paths[here]
        self._stats = view.listing.stats[here].copy()
        beyond = view.listing.beyond
        self._beyond = {path: beyond[path] for path in self._paths if path in beyond} if beyond else {}
        self._kinds = kinds_of(self._stats)
        self._firsts = np.zeros(len(self._paths), np.int64)
        if self._paths:
            self._firsts[0] = span.first_chunk(self._paths[0])
        # a file that goes on here has a row of its own only if it reaches here
        reaches = (self._kinds == FILE) & (self._stats[:, _SIZE] > self._firsts * CHUNK_BYTES)
        self._emitted = (self._firsts == 0) | reaches
        attributes, links = view.listing.attributes, view.listing.links
        self._attributes = {p: attributes[p] for p in self._paths if p in attributes} if attributes else {}
        self._targets = {i: links[path] for i, path in enumerate(self._paths) if path in links} if links else {}
        self._from_base: list[bytes] = []
        self._warnings: list[str] = []

    def read(self) -> FullRead:
        """Read the part; see `FilesView.read`."""
        self._given_up = self._leave_dropped()
        self._leave_unchanged()
        todo = np.flatnonzero((self._kinds == FILE) & ~self._unchanged & ~self._given_up).tolist()
        self._owners = np.array(todo, np.int64)
        self._contents: Contents | None = None
        if todo:
            asked = [(self._paths[i], int(self._firsts[i]), self._stop(i)) for i in todo]
            self._contents = self._view.readers.read(asked, self._view.options.read_attempts, self._until())
            for i, outcome in zip(todo, self._contents.outcomes, strict=False):
                self._take(i, outcome)
        with FolderHandles(self._view.root) as handles:
            for i in np.flatnonzero((self._kinds == LINK) & self._emitted).tolist():
                self._read_link(handles, i)
        links = self._view.listing.links
        twins = [self._paths[i] for i in todo if self._paths[i] in links] if links else []
        names = pa.array(twins, pa.large_binary()) if twins else None
        return FullRead(self._rows(), self._base_keys(), tuple(self._warnings), names)

    def _leave_dropped(self) -> npt.NDArray[np.bool_]:
        """Leave out the files that were given up while other parts of them were read."""
        given_up = np.zeros(len(self._paths), bool)
        for i in {0, len(self._paths) - 1} if self._paths else ():
            if self._span.splits(self._paths[i]) and (why := self._view.dropped(self._paths[i], self._span)):
                given_up[i] = True
                self._keep_base(i, why)
        return given_up

    def _row(self, i: int) -> Row:
        return exact_row(self._stats[i].tolist(), self._beyond.get(self._paths[i]))

    def _stop(self, i: int) -> int:
        beyond = self._span.stop_chunk(self._paths[i])
        return -1 if beyond is None else beyond

    def _until(self) -> tuple[int, ...]:
        """Say what ends the reading of the part, so that nobody waits for more."""
        options = self._view.options
        if options.salvage:
            return ()
        return (FAILED, CHANGED) if options.on_change == "error" else (FAILED,)

    def _leave_unchanged(self) -> None:
        """Find the files that the base holds as they are: their content need not be read."""
        self._unchanged = np.zeros(len(self._paths), bool)
        if self._base is None:
            return
        # of a ctime that is not known an equal one proves nothing
        asked = np.flatnonzero((self._kinds == FILE) & self._emitted & (self._stats[:, _CTIME] != UNKNOWN))
        if not len(asked):
            return
        paths = [self._paths[i] for i in asked]
        beside = self._beside(asked)
        rows = entry_rows(paths, self._firsts[asked], self._kinds[asked], self._stats[asked], beside)
        same = asked[np.asarray(self._base.same(rows).to_numpy(zero_copy_only=False), dtype=bool)]
        self._unchanged[same] = True
        self._emitted[same] = False
        self._from_base = [self._paths[i] for i in same]
        for i in same.tolist():
            self._check_linked(i)
            if self._span.splits(self._paths[i]):
                row = self._row(i)
                self._view.agree(self._paths[i], (row[1], row[2], row[3], row[4]), self._span)

    def _take(self, i: int, outcome: Outcome) -> None:
        """Take what came of a file: its stat as it was read, or the reason why it was not."""
        path, (code, number, row, proven, attributes) = self._paths[i], outcome
        if code == CHANGED:
            self._leave_out(i)
            return
        if code == FAILED:
            self._unreadable(i, number if isinstance(number, str) else os.strerror(number))
            return
        if code == GONE:
            self._gone(i)
        else:
            assert code == READ
            if row != self._row(i):
                self._view.saw(path, row)
            if row[_INODE] != self._stats[i, _INODE]:  # another file, with names that nobody looked for
                self._targets.pop(i, None)
            self._attributes.pop(path, None)
            if attributes is not None:
                self._attributes[path] = attributes
            self._stats[i] = fits = fitting(row)
            self._beyond.pop(path, None)
            if fits is not row:
                self._beyond[path] = row[_MTIME]
            if not proven:
                self._stats[i, _CTIME] = UNKNOWN
            self._check_linked(i)
            first = int(self._firsts[i])
            self._emitted[i] = first == 0 or row[_SIZE] > first * CHUNK_BYTES
        if self._span.splits(path):
            self._view.agree(path, (row[1], row[2], row[3], row[4]) if row else None, self._span)

    def _check_linked(self, i: int) -> None:
        """Warn where a file changed between the readings of two of its names."""
        first = self._targets.get(i)
        if first is None or self._firsts[i]:
            return
        row = self._row(i)
        if not self._view.linked(first, (row[1], row[2], row[3], row[4])):
            self._warnings.append(
                f"{shown(self._paths[i])} is another name of a file that changed while its names were read; it comes "
                "back as a file of its own"
            )

    def _beside(self, here: npt.NDArray[np.int64]) -> Beside:
        targets = [self._targets.get(i) for i in here.tolist()] if self._targets else None
        return Beside(targets, self._beyond, self._attributes)

    def _read_link(self, handles: FolderHandles, i: int) -> None:
        path = self._paths[i]
        try:
            self._targets[i] = os.readlink(leaf(path), dir_fd=handles.folder(parent(path)))
        except (FileNotFoundError, NotADirectoryError):
            self._gone(i)
        except OSError as exc:
            if exc.errno == errno.EINVAL:  # it is no symbolic link any more
                self._leave_out(i)
            else:
                self._unreadable(i, exc.strerror or str(exc))

    def _unreadable(self, i: int, why: str) -> None:
        """Go on without an entry where that may be, else give up."""
        self._emitted[i] = False
        options = self._view.options
        if options.salvage:
            self._view.give_up(self._paths[i], why)
        elif options.on_unreadable == "skip":
            self._skip(i, f"cannot be read ({why})")
        else:
            raise SourceUnavailable(
                f"{shown(self._paths[i])} cannot be read: {why}",
                hint="Give the user who runs the backup access, leave it out with `exclude`, or say "
                "`on_unreadable: skip`.",
            )

    def _gone(self, i: int) -> None:
        self._emitted[i] = False
        self._view.saw(self._paths[i], None)
        self._warnings.append(f"{shown(self._paths[i])} vanished while the backup was made and is taken as deleted")

    def _leave_out(self, i: int) -> None:
        """Give up an entry: an error, or a recorded skip, as the source says."""
        path, attempts = self._paths[i], self._view.options.read_attempts
        if self._view.options.salvage:
            self._unreadable(i, f"it changed each of the {attempts} times it was read")
            return
        if self._view.options.on_change == "error":
            raise SourceChanged(
                f"{shown(path)} changed each of the {attempts} times it was read",
                hint="Run again when it is at rest, copy it aside first, raise `read_attempts`, leave it out with "
                "`exclude`, or say `on_change: skip`.",
            )
        self._skip(i, KEPT_CHANGING)

    def _skip(self, i: int, why: str) -> None:
        """Go on without a file, in all of its parts."""
        if self._span.splits(self._paths[i]):
            self._view.drop(self._paths[i], why)
            self._view.dropped(self._paths[i], self._span)
        self._keep_base(i, why)

    def _keep_base(self, i: int, why: str) -> None:
        """Leave the records of a file as the base has them, and warn where its entry would be."""
        self._emitted[i] = False
        path = self._paths[i]
        known = self._base is not None and bool(len(self._base.under(pa.array([path], pa.large_binary()))))
        if known:
            self._from_base.append(path)
        if self._firsts[i]:
            return
        if not known:
            self._view.skip(path)
        ending = "; the backup keeps the version of its base" if known else " and is not in this backup"
        self._warnings.append(f"{shown(path)} {why}{ending}")

    def _base_keys(self) -> pa.LargeBinaryArray | None:
        if self._base is None:
            return None
        keys = [self._base.under(pa.array(self._from_base, pa.large_binary()))] if self._from_base else []
        if closed := self._view.listing.closed:
            keys.append(self._base.beneath(pa.array(closed, pa.large_binary())))
        return pa.concat_arrays(keys) if keys else None

    def _rows(self) -> pa.Table:
        here = np.flatnonzero(self._emitted)
        paths = [self._paths[i] for i in here]
        entries = entry_rows(paths, self._firsts[here], self._kinds[here], self._stats[here], self._beside(here))
        if self._contents is None:
            return entries
        owners = self._owners[self._contents.owners]
        owned = pa.array([self._paths[i] for i in owners.tolist()], pa.large_binary())
        return part_rows(entries, owned, (here, owners), self._contents.offsets, self._contents.data)
