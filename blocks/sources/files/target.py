"""Restoring a tree of files: staged in a hidden folder, put into place by renames."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, Partial, RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.files.bucket_rows import files_of, refuse_beneath_objects, without
from blocks.sources.files.cover import Coverage, relative_to
from blocks.sources.files.destination import check_file_system, is_gone, occupant, staging_place, tell_leavings
from blocks.sources.files.dressing import foretold
from blocks.sources.files.entries import Entries, check_paths
from blocks.sources.files.hazards import refuse_mounts
from blocks.sources.files.leavings import KeptAside, remove_dead_staging, settle, settle_dead, unchanged_times
from blocks.sources.files.place import Placement
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.refusals import Refusals, refused_kind
from blocks.sources.files.rows import TREE, plain_rows
from blocks.sources.files.staging import Positions, Staging
from blocks.sources.files.tree import shown
from blocks.sources.files.view import FilesView
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View


class FilesTarget:
    """A folder that a tree is restored to. Nothing in it changes before `commit`.

    Args:
        root: The folder; its parent must exist.
        cover: What the source covers: an exact restore deletes nothing else.
        scope: The collections, rows and mode of the restore.
    """

    def __init__(self, root: bytes, cover: Coverage, scope: RestoreScope) -> None:
        self._root = os.path.realpath(root)
        self._cover, self._scope = cover, scope
        self._staging: Staging | None = None
        self._placement: Placement | None = None
        self._guard: FilesView | None = None
        self._unread: dict[bytes, str] = {}
        self._refusals = Refusals(scope.keep_going)
        self._rows: list[pa.Table] = []
        self._entries: list[pa.Table] = []
        self._removed: set[bytes] = set()
        self._collected: Entries | None = None
        self._kept: KeptAside | None = None
        self._lock = threading.Lock()
        self._done = False
        self._notes: list[str] = []
        self._knows_attributes = True

    @property
    def changed(self) -> bool:
        """Whether anything in the folder may have been changed already."""
        return self._done or (self._staging is not None and self._staging.exposed)

    @property
    def notes(self) -> Sequence[str]:
        """What was kept aside and where, and what stayed as it was."""
        return [*self._notes, *(self._kept.all_notes() if self._kept else ())]

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """The entries that could not be put into place, and what could not be given to others of all they had."""
        return self._refusals.not_rebuilt

    @property
    def rows_left_out(self) -> Mapping[str, int]:
        """How many rows of those that came are of entries that are left out, complete after `commit`."""
        counts = pc.value_counts(pa.concat_tables(self._rows).column("path")) if self._rows else ()
        return {TREE.name: sum(c["counts"].as_py() for c in counts if self._refusals.holds(c["values"].as_py()))}

    def preflight(self) -> tuple[str, ...]:
        """Check that there is a place to write to, and room; say what an exact restore will do.

        Raises:
            RestoreRefused: There is not, or something there forbids it.
        """
        place, folder = staging_place(self._root), Path(os.fsdecode(self._root))
        check_file_system(self._root, place, self._scope)
        sentences = []
        if folder.is_dir():
            placement = self._opened()
            try:
                placement.look_ahead()
            finally:
                placement.close()
            sentences += self._refusals.sentences
            if self._scope.mode is RestoreMode.EXACT:
                sentences.append(f"What {folder} holds beyond the backup is deleted, but for what the source excludes.")
        return (*sentences, *foretold(place, self._scope.definition), *tell_leavings(place))

    def occupied(self) -> str | None:
        """Say what is at the place; None where nothing is, or a folder with nothing in it."""
        return occupant(self._root)

    def hold(self) -> None:
        """Nobody can be kept from writing to a folder; `check_unwritten` finds out who did."""

    def guard(self, view: View) -> None:
        """Remember how the pre-restore backup saw the folder."""
        assert isinstance(view, FilesView)
        self._guard = view

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Take what the pre-restore backup lacks; what of it would be overwritten or deleted is moved away instead.

        Raises:
            RestoreRefused: It cannot be moved away.
        """
        sentences = []
        for one in unread:
            path = os.fsencode(one.key or "")
            place = os.path.join(self._root, path) if path else self._root
            if is_gone(place):
                continue
            self._check_movable(path, one.reason)
            self._unread[path] = one.reason
            sentences.append(
                f"{shown(path)} cannot be read ({one.reason}), so that no backup has it: if the restore would over"
                f"write or delete it, it is moved to {shown(self._aside().where(path))}."
            )
        return tuple(sentences)

    def _check_movable(self, path: bytes, reason: str) -> None:
        place = os.path.join(self._root, path) if path else self._root
        others = [*self._cover.left_out, *(self._cover.protected if self._scope.in_place else ())]
        inside = [shown(at) for at in relative_to(place, others)]
        if inside:
            raise RestoreRefused(
                f"{shown(path)} in {shown(self._root)} cannot be read ({reason}), and it cannot be moved away: "
                f"{inside[0]} in it belongs to others",
                hint="Give the user who restores access to it.",
            )
        if not path and staging_place(self._root) == self._root:
            raise RestoreRefused(
                f"{shown(self._root)} cannot be read ({reason}), and it cannot be moved away as a whole: the folder "
                "above it cannot be written to, or is on another file system",
                hint="Give the user who restores access to it.",
            )
        refuse_mounts(self._root, [path])

    def _aside(self) -> KeptAside:
        if self._kept is None:
            self._kept = KeptAside(staging_place(self._root), self._root, self._scope.plan)
        return self._kept

    def begin(self) -> None:
        """Remove what killed restores staged here."""
        remove_dead_staging(self._root)

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Stage the rows of one part.

        Args:
            collection: The tree.
            rows: Rows with the columns and types of `SCHEMA` (rows.py), in any order; columns may be missing.

        Raises:
            CorruptionDetected: A row cannot have come from a backup: its path leads out of the tree, say.
            RestoreRefused: The disk is full or fails.
        """
        rows = plain_rows(rows)
        staging = self._staged()
        count = int(rows.num_rows)
        with self._lock:
            came = rows.select(["path"])
            rows = files_of(rows, self._refusals)
        entries = rows.filter(pc.equal(rows.column("offset"), -1))
        check_paths(entries.column("path").to_pylist())
        for batch in rows.to_batches():
            self._write(staging, batch)
        with self._lock:  # last, so that a part that failed may be applied again
            self._entries.append(entries)
            # a backup of an earlier version says nothing of attributes
            self._knows_attributes = any(name == "xattrs" for name, _ in collection.columns)
            if self._scope.keep_going:
                self._rows.append(came)
        return count

    def _write(self, staging: Staging, batch: pa.RecordBatch) -> None:
        offsets = batch.column("offset").to_numpy()
        # what a file's entry (-1) and spans have over a multiple of the chunk's size is not content
        over = offsets % CHUNK_BYTES
        odd = np.flatnonzero((offsets < -1) | ((over != 0) & (over != CHUNK_BYTES - 1)))
        if len(odd):
            path, offset = batch.column("path")[int(odd[0])].as_py(), offsets[odd[0]]
            raise CorruptionDetected(f"{shown(path)} has a piece at the impossible offset {offset}")
        try:
            wanted = np.flatnonzero(over == 0)
            if self._scope.keep_going:
                self._write_what_is_taken(staging, batch, wanted)
            else:
                staging.write(batch, wanted)
        except OSError as exc:
            raise refused_kind(exc)(
                f"files to be put into {shown(self._root)} cannot be staged: {exc.strerror or exc}",
                hint="Free space on its disk, or restore elsewhere with --to.",
            ) from exc

    def _write_what_is_taken(self, staging: Staging, batch: pa.RecordBatch, wanted: Positions) -> None:
        """Write content, and leave out the files that the file system does not take (one that is too large, say)."""
        try:
            staging.write(batch, wanted)
        except OSError:
            for i in wanted.tolist():
                path = batch.column("path")[i].as_py()
                try:
                    staging.write(batch, np.array([i], np.int64))
                except OSError as exc:
                    with self._lock:
                        self._refusals.fail(path, exc)

    def _staged(self) -> Staging:
        with self._lock:
            if self._staging is None:
                place = staging_place(self._root)
                try:
                    self._staging = Staging(place, self._scope.plan)
                except OSError as exc:
                    raise refused_kind(exc)(
                        f"no folder can be created in {shown(place)}: {exc.strerror or exc}",
                        hint="Free space there, or restore to another disk with --to.",
                    ) from exc
            return self._staging

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Take paths that `commit` deletes; return how many of the records are there now.

        Args:
            collection: The tree.
            keys: One row per record to delete, with at least `path` (large_binary).
        """
        table = keys.select(["path", "offset"])
        paths: list[bytes] = [bytes(path) for path in table.column("path").to_pylist()]
        check_paths(paths)
        there = {path for path in set(paths) if os.path.lexists(os.path.join(self._root, path) if path else self._root)}
        offsets = table.column("offset").to_pylist()
        with self._lock:
            self._removed |= {path for path, at in zip(paths, offsets, strict=True) if at == -1 and path in there}
        return sum(path in there for path in paths)

    def check_unwritten(self) -> None:
        """Compare what changes with what the pre-restore backup holds of it.

        Raises:
            RestoreRefused: It was written to since; nothing was changed.
            CorruptionDetected: Entries contradict each other; nothing was changed.
        """
        self._prepared().refuse_written(self._gathered())

    def _opened(self) -> Placement:
        return Placement(self._root, self._cover, self._scope, self._unread, self._guard, self._refusals)

    def _gathered(self) -> Entries:
        if self._collected is None:
            refused = refuse_beneath_objects(self._entries, self._refusals)
            tables = [without(table, refused) for table in self._entries]
            contents = [path for path in self._staged().paths() if path not in refused]
            self._collected = Entries.collect(tables, contents, knows_attributes=self._knows_attributes)
        return self._collected

    def _prepared(self) -> Placement:
        """Get ready, once."""
        if self._placement is None:
            staging, entries = self._staged(), self._gathered()
            placement = self._opened()
            try:
                placement.prepare(entries, staging, self._removed)
            except OSError as exc:
                placement.close()
                where = f"{shown(placement.at)} cannot be restored to {shown(self._root)}"
                message = f"{where}: {exc.strerror or exc}"
                raise refused_kind(exc)(message) from exc
            except BaseException:
                placement.close()
                raise
            self._placement = placement
        return self._placement

    def commit(self) -> None:
        """Put everything into place; the order is described in `place.py`.

        Raises:
            CorruptionDetected: Entries contradict each other; nothing was changed.
            RestoreRefused: Something in the folder is in the way; nothing was changed.
            Partial: The system refused in the middle; what was reached is named. The restore may be repeated.
        """
        staging, entries, placement = self._staged(), self._gathered(), self._prepared()
        try:
            staging.expose()
        except OSError as exc:
            message = f"the restore to {shown(self._root)} cannot begin: {exc.strerror or exc}"
            raise refused_kind(exc)(message) from exc
        kept = self._aside()
        try:
            placement.carry_out(entries, staging, kept)
            self._done = True
            self._settle(staging, placement)
        except OSError as exc:
            raise Partial(
                f"the restore to {shown(self._root)} stopped at {shown(placement.at)}: {exc.strerror or exc}",
                hint="Some files are restored, others are not yet. Remove the cause and restore again.",
            ) from exc
        self._notes += placement.notes
        self._notes += settle_dead(self._root, kept)
        self.abort()

    def _settle(self, staging: Staging, placement: Placement) -> None:
        """Let go of what was replaced, as far as the pre-restore backup has it; keep the rest aside."""
        staging.close()
        # without a pre-restore backup of a live place with anything in it, somebody has said that there is to be none
        renounced = self._done and self._scope.in_place and self._guard is None and placement.was_there
        why = "was there before the restore"
        if self._scope.in_place:
            why = (
                "was written to while the restore was at work"
                if self._guard
                else "was replaced by a restore that failed"
            )
        with unchanged_times(os.path.dirname(staging.path)):
            settle(staging.path, placement.moved, self._aside(), all_known=renounced, why=why)

    def abort(self) -> None:
        """Remove what was staged; what was replaced is kept unless the pre-restore backup has it."""
        with self._lock:
            staging, self._staging, self._entries = self._staging, None, []
            placement, self._placement = self._placement, None
        if placement:
            placement.close()
        if staging is None:
            return
        self._done = self._done or staging.exposed
        with contextlib.suppress(OSError):  # what stays is cleared up by the next restore; the first error counts
            if not staging.exposed:
                staging.remove()
            elif placement and os.path.lexists(staging.path):
                self._settle_failed(staging, placement)

    def _settle_failed(self, staging: Staging, placement: Placement) -> None:
        staging.close()
        why = "was replaced by a restore that did not end, and is in no backup"
        with unchanged_times(os.path.dirname(staging.path)):
            settle(staging.path, placement.moved, self._aside(), all_known=False, why=why)
