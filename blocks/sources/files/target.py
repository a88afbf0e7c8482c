"""Restoring a tree of files: staged in a hidden folder, put into place by renames."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import CorruptionDetected, Partial, RestoreRefused
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.files.entries import Entries, check_paths
from blocks.sources.files.place import Placement
from blocks.sources.files.rows import CHUNK_BYTES, SCHEMA
from blocks.sources.files.staging import Staging
from blocks.sources.files.tree import STAGING_PREFIX, Rules, shown
from blocks.variant import decode_variant, is_variant


class FilesTarget:
    """A folder that a tree is restored to. Nothing in it changes before `commit`.

    Args:
        root: The folder; its parent must exist.
        rules: What the source includes and excludes: an exact restore deletes nothing else.
        scope: What is restored.
        one_file_system: Whether folders on other file systems belong to the source.
    """

    notes: Sequence[str] = ()
    """Nothing: whatever a restore of files has to tell, it tells before the first write."""

    def __init__(self, root: bytes, rules: Rules, scope: RestoreScope, *, one_file_system: bool) -> None:
        self._root = os.path.realpath(root)
        self._rules, self._scope, self._one_file_system = rules, scope, one_file_system
        self._staging: Staging | None = None
        self._entries: list[pa.Table] = []
        self._lock = threading.Lock()

    def preflight(self) -> tuple[str, ...]:
        """Check that there is a place to write to, and room; tell what an exact restore will do.

        Raises:
            RestoreRefused: There is not.
        """
        place, folder = self._place(), Path(os.fsdecode(self._root))
        free = os.statvfs(place)
        if free.f_bavail * free.f_frsize < self._scope.size_bytes:
            raise RestoreRefused(
                f"restoring to {folder} needs {self._scope.size_bytes} bytes beside what is there, and "
                f"{free.f_bavail * free.f_frsize} are free",
                hint="Free space there, or restore to another disk with --to.",
            )
        sentences = []
        if self._scope.mode is RestoreMode.EXACT and folder.is_dir():
            sentences.append(f"What {folder} holds beyond the backup is deleted, but for what the source excludes.")
        sentences += [
            f"{os.fsdecode(left)} was left by an interrupted restore, or another one is at work; remove it if none is."
            for left in sorted({entry.path for entry in os.scandir(place)})
            if os.path.basename(left).startswith(STAGING_PREFIX)
        ]
        return tuple(sentences)

    def _place(self) -> bytes:
        """Choose the folder to stage in: beside the root, or inside it where that is not the same file system."""
        root, beside = self._root, os.path.dirname(self._root)
        try:
            above = os.stat(beside)
            here = os.lstat(root) if os.path.lexists(root) else None
        except OSError as exc:
            raise RestoreRefused(
                f"the folder that {shown(root)} is to be restored in cannot be used: {exc.strerror}",
                hint="Create it first; a restore creates one folder, not a path.",
            ) from exc
        if here and not stat.S_ISDIR(here.st_mode):
            raise RestoreRefused(
                f"{shown(root)} is there already and is no folder", hint="Move it away, or restore elsewhere."
            )
        if (here is None or here.st_dev == above.st_dev) and root != beside and _writable(beside):
            return beside
        if here and _writable(root):
            return root
        raise RestoreRefused(
            f"{shown(root)} cannot be written to", hint="Run as a user who may, or restore elsewhere with --to."
        )

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Stage the rows of one part.

        Raises:
            CorruptionDetected: A row cannot have come from a backup: its path leads out of the tree, say.
            RestoreRefused: The disk is full or fails.
        """
        rows = _plain(rows)
        staging = self._staged()
        described = rows.drop_columns(["data"])
        entries = described.filter(pc.equal(described.column("offset"), -1))
        check_paths(entries.column("path").to_pylist())
        for batch in rows.to_batches():
            self._write(staging, batch)
        with self._lock:  # last, so that a part that failed may be applied again
            self._entries.append(entries)
        return int(rows.num_rows)

    def _write(self, staging: Staging, batch: pa.RecordBatch) -> None:
        offsets = batch.column("offset").to_numpy()
        # what a file's entry (-1) and spans have over a multiple of the chunk's size is not content
        over = offsets % CHUNK_BYTES
        odd = np.flatnonzero((offsets < -1) | ((over != 0) & (over != CHUNK_BYTES - 1)))
        if len(odd):
            path, offset = batch.column("path")[int(odd[0])].as_py(), offsets[odd[0]]
            raise CorruptionDetected(f"{shown(path)} has a piece at the impossible offset {offset}")
        try:
            staging.write(batch, np.flatnonzero(over == 0))
        except OSError as exc:
            raise RestoreRefused(
                f"files to be put into {shown(self._root)} cannot be staged: {exc.strerror or exc}",
                hint="Nothing in the folder was changed. Free space on its disk, or restore elsewhere with --to.",
            ) from exc

    def _staged(self) -> Staging:
        with self._lock:
            if self._staging is None:
                place = self._place()
                try:
                    self._staging = Staging(place)
                except OSError as exc:
                    raise RestoreRefused(
                        f"no folder can be created in {shown(place)}: {exc.strerror or exc}",
                        hint="Free space there, or restore to another disk with --to.",
                    ) from exc
            return self._staging

    def commit(self) -> None:
        """Put everything into place; the order is told in `place.py`.

        Raises:
            CorruptionDetected: Entries contradict each other; nothing was changed.
            RestoreRefused: Something in the folder is in the way; nothing was changed.
            Partial: The system refused in the middle; what was reached is named. The restore may be repeated.
        """
        staging = self._staged()
        entries = Entries.collect(self._entries, staging.paths())
        with Placement(self._root, self._rules, self._scope, one_file_system=self._one_file_system) as placement:
            try:
                placement.prepare(entries, staging)
            except OSError as exc:
                raise RestoreRefused(
                    f"the restore to {shown(self._root)} cannot be prepared: {exc.strerror or exc}",
                    hint="Nothing in the folder was changed.",
                ) from exc
            try:
                placement.carry_out(entries, staging)
            except OSError as exc:
                raise Partial(
                    f"the restore to {shown(self._root)} stopped at {shown(placement.at)}: {exc.strerror or exc}",
                    hint="Some files are restored, others are not yet. Remove the cause and restore again.",
                ) from exc
        self.abort()

    def abort(self) -> None:
        """Remove what was staged."""
        with self._lock:
            staging, self._staging, self._entries = self._staging, None, []
        if staging:
            staging.remove()


def _writable(folder: bytes) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _plain(rows: pa.Table) -> pa.Table:
    """Bring rows to the exact schema: columns may be missing, without type, or variant.

    Raises:
        CorruptionDetected: A column holds what it never holds in a backup.
    """
    columns = []
    for field in SCHEMA:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        column = rows.column(field.name)
        try:
            if is_variant(rows.schema.field(field.name)):
                column = pa.array(decode_variant(column), field.type)
            elif column.type != field.type:
                column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as exc:
            raise CorruptionDetected(f"the tree's column {field.name!r} holds what it never holds: {exc}") from exc
        columns.append(column)
    plain = pa.Table.from_arrays(columns, schema=SCHEMA)
    if plain.column("path").null_count or plain.column("offset").null_count:
        raise CorruptionDetected("a row of the tree has no path or no offset")
    return plain
