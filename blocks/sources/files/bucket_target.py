"""Restoring objects to a bucket: assembled in a local folder, then written one by one, and the rest deleted."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    Partial,
    RestoreRefused,
    SourceUnavailable,
)
from blocks.host.leftovers import kept_temporarily, make_scratch_folder, temporary_folder
from blocks.host.room import TEMPORARY, Need, check_room
from blocks.rows.selection import tree_keys
from blocks.sources.collection import CollectionSpec
from blocks.sources.files.bucket_rows import NOBODY, attributes_at_start, from_xattrs, object_row
from blocks.sources.files.bucket_view import BucketView
from blocks.sources.files.cover import Coverage, Judge, backed_up
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.rows import FILE, KINDS, LINK, TREE, plain_rows
from blocks.sources.files.staging import Staging
from blocks.sources.files.tree import shown
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View
from blocks.storage.bucket_objects import Listed, ObjectPlace, Upload
from blocks.storage.bucket_urls import shown_keys

LONGEST_KEY = 1024
"""Bytes of a key, its prefix included."""
_NAMED = 5
_HINT = "--keep-going leaves it as it is, restores all else, and names it."


@dataclass(frozen=True)
class _Wanted:
    """An object of the backup: its size, and what told it from others when it was backed up (None: not known)."""

    size_bytes: int
    token: int | None


class BucketTarget:
    """The objects below a prefix that a backup is restored to. Nothing there changes before `commit`.

    Args:
        place: The objects; closed by `commit` and `abort`.
        cover: What the source covers: an exact restore deletes nothing else.
        scope: The collections, rows and mode of the restore.
        longest_key: How many bytes a key, relative to the prefix, may have.
    """

    def __init__(
        self, place: ObjectPlace, cover: Coverage, scope: RestoreScope, longest_key: int = LONGEST_KEY
    ) -> None:
        self._place, self._cover, self._scope, self._longest_key = place, cover, scope, longest_key
        self._folder: Path | None = None
        self._staging: Staging | None = None
        self._guard: BucketView | None = None
        self._lock = threading.Lock()
        self._wanted: dict[bytes, _Wanted] = {}
        self._attributes: dict[bytes, bytes] = {}
        self._counts: dict[bytes, int] = {}
        self._removed: set[bytes] = set()
        self._unread: dict[bytes, str] = {}
        self._left_out: dict[bytes, str] = {}
        self._live: Listed | None = None
        self._looked: Listed | None = None
        self._exact = scope.mode is RestoreMode.EXACT and any(spec.name == TREE.name for spec, _ in scope.collections)
        self._plain_files = 0
        self._done = False
        self._notes: list[str] = []

    @property
    def changed(self) -> bool:
        """Whether anything in the bucket may have been changed already."""
        return self._done

    @property
    def notes(self) -> Sequence[str]:
        """What of the backup a bucket does not hold, and what was left as it was."""
        return self._notes

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """The objects that were left out."""
        return [NotRebuilt(f"object {shown(path)}", why) for path, why in sorted(self._left_out.items())]

    @property
    def rows_left_out(self) -> Mapping[str, int]:
        """How many rows of those that came are of objects that are left out, complete after `commit`."""
        return {TREE.name: sum(self._counts.get(path, 0) for path in self._left_out)}

    def preflight(self) -> tuple[str, ...]:
        """Check that the bucket is there and can be listed, and that there is room to assemble objects.

        Raises:
            RestoreRefused: It is not, or there is not.
        """
        self._list()
        called = "the folder for temporary data"
        check_room(Need(temporary_folder(), self._scope.size_bytes, called=called, hint=TEMPORARY))
        if not self._exact:
            return ()
        return (f"What {self._place.place} holds beyond the backup is deleted, but for what the source excludes.",)

    def _list(self) -> Listed:
        try:
            return self._place.list()
        except (SourceUnavailable, ConfigurationError) as exc:
            raise RestoreRefused(exc.message, hint=exc.hint) from exc

    def occupied(self) -> str | None:
        """Say how many objects are there; None where there are none."""
        count = len(self._list().objects)
        return f"a bucket with {count:,} objects" if count else None

    def hold(self) -> None:
        """Nobody can be kept from writing to a bucket; `check_unwritten` finds out who did."""

    def guard(self, view: View) -> None:
        """Remember how the pre-restore backup saw the bucket."""
        assert isinstance(view, BucketView)
        self._guard = view

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Remember what no backup has: what cannot be read cannot be copied either, so nothing may replace it.

        Raises:
            RestoreRefused: The bucket as a whole cannot be read.
        """
        for one in unread:
            if not one.key:
                raise RestoreRefused(f"{self._place.place} cannot be read: {one.reason}")
            self._unread[one.key.encode("utf-8", "surrogateescape")] = one.reason
        return ()

    def begin(self) -> None:
        """Do nothing: what is assembled takes no time to begin."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Assemble the objects of one part.

        Args:
            collection: The tree.
            rows: Rows with the columns and types of `SCHEMA` (rows.py), in any order; columns may be missing.

        Raises:
            RestoreRefused: An entry of a tree can be no object, and nothing may be left out.
            TemporaryFolderUnusable: There is no room to assemble objects, or the disk fails.
        """
        rows = plain_rows(rows)
        entries = rows.filter(pc.equal(rows.column("offset"), -1))
        offsets = rows.column("offset").to_numpy()
        over = offsets % CHUNK_BYTES
        if ((offsets < -1) | ((over != 0) & (over != CHUNK_BYTES - 1))).any():
            raise CorruptionDetected("a piece of an object has an impossible offset")
        staging = self._staged()
        with kept_temporarily("what is restored", staging.path.decode(errors="replace")):
            at = 0
            for batch in rows.to_batches():
                staging.write(batch, np.flatnonzero(over[at : at + batch.num_rows] == 0))
                at += batch.num_rows
        with self._lock:
            for path in rows.column("path").to_pylist():
                self._counts[path] = self._counts.get(path, 0) + 1
            self._take(entries)
            self._attributes |= attributes_at_start(rows)
        return int(rows.num_rows)

    def _take(self, entries: pa.Table) -> None:
        names = ("path", "kind", "size", "uid", "inode", "ctime_ns", "xattrs")
        columns = [entries.column(name).to_pylist() for name in names]
        for path, kind, size, uid, inode, changed, written in zip(*columns, strict=True):
            if kind == KINDS[FILE]:
                self._plain_files += uid != NOBODY
                known = uid == NOBODY and changed is not None
                self._wanted[path] = _Wanted(size or 0, inode if known else None)
                if written is not None:
                    self._attributes[path] = written
                if (why := self._no_key(path)) is not None:
                    self._leave_out(path, why)
            elif kind == KINDS[LINK]:
                self._leave_out(path, "it is a symbolic link, which a bucket does not hold")

    def _no_key(self, path: bytes) -> str | None:
        try:
            path.decode()
        except UnicodeDecodeError:
            return "its name is no UTF-8"
        return f"its key would be longer than {LONGEST_KEY:,} bytes" if len(path) > self._longest_key else None

    def _leave_out(self, path: bytes, why: str) -> None:
        if not self._scope.keep_going:
            raise RestoreRefused(f"{shown(path)} cannot be an object: {why}", hint=_HINT)
        self._left_out.setdefault(path, why)

    def _staged(self) -> Staging:
        with self._lock:
            if self._staging is None:
                self._folder = make_scratch_folder("bucket", self._scope.plan)
                with kept_temporarily("what is restored", self._folder):
                    self._staging = Staging(str(self._folder).encode(), self._scope.plan)
            return self._staging

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Take objects that `commit` deletes; return how many of the records are there now.

        Args:
            collection: The tree.
            keys: One row per record to delete, with at least `path` and `offset`.
        """
        if self._live is None:
            self._live = self._list()
        there = {key.encode() for key in self._live.objects}
        paths: list[bytes] = [bytes(path) for path in keys.column("path").to_pylist()]
        with self._lock:
            self._removed |= {path for path in paths if path in there}
        return sum(path in there for path in paths)

    def _prepared(self) -> tuple[list[bytes], list[bytes], Listed]:
        """Find what is to be written and what deleted, by a listing made now.

        Raises:
            RestoreRefused: No backup has what would be replaced or deleted, and nothing may be left out.
        """
        there = self._looked = self._list()
        wanted = [path for path in sorted(self._wanted) if path not in self._left_out]
        if self._scope.in_place:
            wanted = [path for path in wanted if not self._is_there(path, there)]
        doomed = [path for path in self._removed if path.decode() in there.objects and path not in self._wanted]
        if self._exact:
            doomed += self._selected([key.encode() for key in there.objects], there)
        doomed = sorted({path for path in doomed if path not in self._left_out})
        for path in [path for path in (*wanted, *doomed) if path in self._unread]:
            why = f"it cannot be read ({self._unread[path]}), so that no backup has what is there"
            if not self._scope.keep_going:
                raise RestoreRefused(
                    f"{shown(path)} in {self._place.place} would be replaced or deleted: {why}",
                    hint=f"Give the user who restores access to it. {_HINT}",
                )
            self._left_out.setdefault(path, why)
        self._refuse_replacing([path for path in wanted if path.decode() in there.objects])
        gone = self._left_out.keys()
        return [path for path in wanted if path not in gone], [path for path in doomed if path not in gone], there

    def _refuse_replacing(self, paths: Sequence[bytes]) -> None:
        """Refuse to replace what is at another place: nothing can be kept aside there, and no backup has it."""
        if paths and not self._scope.in_place and not self._scope.overwrite:
            raise RestoreRefused(
                f"{shown_keys(path.decode() for path in paths)} in {self._place.place} would be replaced, and no backup"
                " has what is there",
                hint="Restore to another prefix, or replace it with --overwrite.",
            )

    def _is_there(self, path: bytes, there: Listed) -> bool:
        """Whether an object is what it was when it was backed up: then it is left alone."""
        stamp = there.objects.get(path.decode())
        return stamp is not None and stamp.token == self._wanted[path].token

    def _selected(self, paths: list[bytes], there: Listed) -> list[bytes]:
        """Choose what is covered by plan, backup and selection, and is not in the backup."""
        judge = Judge(self._cover.rules)
        covered, _ = backed_up(self._scope.definition, self._cover)
        chosen = self._chosen(paths)
        return [
            path
            for path, is_chosen in zip(paths, chosen, strict=True)
            if path
            and is_chosen
            and path not in self._wanted
            and judge.covers(path, folder=False)
            and covered.covers(path, folder=False)
        ]

    def _chosen(self, paths: list[bytes]) -> list[bool]:
        table = pa.table({"path": pa.array(paths, pa.large_binary())})
        selection = self._scope.selection_of(TREE.name).meant_for(TREE.key, TREE.label)
        if TREE.name in self._scope.created:  # then that is what was selected of it when it was made
            selection = replace(selection, within=tree_keys(selection.within))
        mask = selection.mask(table, TREE.label)
        return [True] * len(paths) if mask is None else mask.to_pylist()

    def check_unwritten(self) -> None:
        """Compare what changes with what the pre-restore backup holds of it.

        Raises:
            RestoreRefused: It was written to since; nothing was changed.
        """
        wanted, doomed, there = self._prepared()
        self._refuse_written(wanted, doomed, there)

    def _refuse_written(self, wanted: Sequence[bytes], doomed: Sequence[bytes], there: Listed) -> None:
        guard = self._guard
        if guard is None:
            return
        told = []
        for path in {*wanted, *doomed}:
            stamp, known = there.objects.get(path.decode()), guard.row(path)
            if stamp is None:
                continue
            row = object_row(stamp)
            if known is None:
                told.append(f"{shown(path)} is new")
            elif (row[1], row[4]) != (known[1], known[4]):
                told.append(f"{shown(path)} was written to")
        asked = guard.objects if self._exact else [*self._wanted]
        gone = [path for path in asked if guard.row(path) is not None and path.decode() not in there.objects]
        told += [f"{shown(p)} was deleted" for p, chosen in zip(gone, self._chosen(gone), strict=True) if chosen]
        if told:
            more = f", and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
            raise RestoreRefused(
                f"{self._place.place} is being written to: since the backup that was made before the restore "
                f"{', '.join(sorted(told)[:_NAMED])}{more}",
                hint="Stop who writes there, and restore again.",
            )

    def commit(self) -> None:
        """Write objects, each as a whole; delete what is not to be there when all of them are.

        Raises:
            CorruptionDetected: There is content for what is no object; nothing was changed.
            RestoreRefused: Something there is in the way; nothing was changed.
            Partial: The storage refused in the middle; what it refused is named. The restore may be repeated.
        """
        staging = self._staged()
        for path in staging.paths():
            if path not in self._wanted:
                raise CorruptionDetected(f"there is content for {shown(path)}, which is no object")
        wanted, doomed, there = self._prepared()
        self._refuse_written(wanted, doomed, there)
        uploads = [self._upload(staging, path) for path in wanted]
        self._done = bool(uploads or doomed)
        try:
            self._settle("written", self._place.put(uploads))
            self._settle("deleted", self._place.remove([path.decode() for path in doomed]))
        except Partial:
            raise
        except LastgoodError as exc:
            raise Partial(
                f"the restore to {self._place.place} stopped: {exc.message}",
                hint=f"Some objects are restored, others are not yet. {exc.hint} Then restore again.",
            ) from exc
        if self._plain_files:
            self._notes.append(
                f"{self._plain_files:,} files became objects, without their modes, owners and times; folders are none."
            )
        if same := len(self._wanted) - len(self._left_out) - len(uploads):
            self._notes.append(f"{same:,} objects were as they were backed up, and are not written again.")
        self.abort()

    def _upload(self, staging: Staging, path: bytes) -> Upload:
        size_bytes, number = self._wanted[path].size_bytes, staging.number(path)
        with kept_temporarily("what is restored", staging.path.decode(errors="replace")):
            staging.settle(number, size_bytes)
        attributes = from_xattrs(path, self._attributes.get(path))
        return Upload(path.decode(), staging.path + b"/" + staging.name(number), size_bytes, attributes)

    def _settle(self, what: str, refused: Sequence[tuple[str, str]]) -> None:
        if not refused:
            return
        if self._scope.keep_going:
            self._left_out |= {key.encode(): f"it could not be {what}: {why}" for key, why in refused}
            return
        raise Partial(
            f"the restore to {self._place.place} is not whole: {shown_keys(key for key, _ in refused)} could not be "
            f"{what}: {refused[0][1]}",
            hint="All else that was to be written is there. Remove the cause and restore again.",
        )

    def abort(self) -> None:
        """Remove what was assembled, and let the bucket go; what was written stays."""
        with self._lock:
            folder, self._folder = self._folder, None
            staging, self._staging = self._staging, None
        if staging is not None:
            staging.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        self._place.close()
