"""What changed in a tree between two backups, by file: rows of entries and of content put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.keys import encode_keys
from flows.reading.diff_rows import ChangeKind

ENTRY = -1
"""The offset of the row that is a file's entry; that of others is where their content is in the file."""
_SHOWN = ("kind", "size", "mtime_ns", "mode", "uid", "gid", "target")


@dataclass(frozen=True)
class FileState:
    """A file, folder or symbolic link in one backup.

    Attributes:
        kind: `file`, `dir` or `symlink`.
        size: In bytes; None of others than files.
        mtime_ns: When it was modified, in nanoseconds since 1970.
        mode: Permission bits.
        uid: The owner.
        gid: The group.
        target: Of a symbolic link; of a file with several names the first of them.
    """

    kind: str | None
    size: int | None
    mtime_ns: int | None
    mode: int | None
    uid: int | None
    gid: int | None
    target: bytes | None


@dataclass
class FileChange:
    """One file, folder or symbolic link that is not the same in both backups.

    Attributes:
        kind: What happened to it.
        path: Its path in the tree.
        old: How it was; None where it was not there, or only content changed.
        new: How it is, likewise.
        content: Whether its content was seen to differ.
    """

    kind: ChangeKind
    path: bytes
    old: FileState | None = None
    new: FileState | None = None
    content: bool = False


@dataclass
class FileChanges:
    """The files of a tree that are not the same; the counts are of all, the changes are the first ones.

    Attributes:
        limit: How many changes are kept; None for all.
    """

    limit: int | None
    counts: dict[ChangeKind, int] = field(default_factory=lambda: dict.fromkeys(ChangeKind, 0))
    changes: list[FileChange] = field(default_factory=list)
    _seen: dict[bytes, FileChange | None] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Files that are not the same."""
        return sum(self.counts.values())

    @property
    def room(self) -> bool:
        """Whether another change would be kept."""
        return self.limit is None or len(self.changes) < self.limit

    def one_sided(self, kind: ChangeKind, rows: pa.Table) -> None:
        """Note rows that are in one of the backups only.

        Args:
            kind: Whether they were added or removed.
            rows: Stored rows of the tree; an entry comes before its content.
        """
        removed = kind is ChangeKind.REMOVED
        told = rows.select(["path", "offset", *(name for name in _SHOWN if name in rows.column_names)])
        for row in (row for batch in told.to_batches() for row in batch.to_pylist()):
            if row["offset"] == ENTRY:
                state = _state(row)
                self._note(kind, row["path"], state if removed else None, None if removed else state)
            elif row.get("kind") != "span":
                self._content(row["path"])

    def changed(self, was: Mapping[str, object], now: Mapping[str, object]) -> None:
        """Note a row that is in both backups, and not the same.

        Args:
            was: Its values in the first backup, by column.
            now: Those in the second one.
        """
        path = now["path"]
        assert isinstance(path, bytes)
        if now["offset"] == ENTRY:
            self._note(ChangeKind.CHANGED, path, _state(was), _state(now))
        elif now.get("kind") != "span":
            self._content(path)

    def count(self, kind: ChangeKind, keys: pa.LargeBinaryArray) -> None:
        """Count entries by their keys, for who shows no more of them and does not read their rows.

        Args:
            kind: Whether they were added or removed.
            keys: `_key`s of rows of the tree.
        """
        self.counts[kind] += pc.sum(pc.ends_with(keys, pattern=_entry_end())).as_py() or 0

    def _content(self, path: bytes) -> None:
        known = self._seen.get(path)
        if known is not None:
            known.content = True
        elif path not in self._seen:
            self._note(ChangeKind.CHANGED, path, None, None, content=True)

    def _note(
        self, kind: ChangeKind, path: bytes, old: FileState | None, new: FileState | None, content: bool = False
    ) -> None:
        if path in self._seen:
            return
        self.counts[kind] += 1
        change = FileChange(kind, path, old, new, content) if self.room else None
        self._seen[path] = change
        if change is not None:
            self.changes.append(change)


def _state(row: Mapping[str, object]) -> FileState:
    return FileState(**{name: row.get(name) for name in _SHOWN})  # type: ignore[arg-type]  # a row has what rows have


@cache
def _entry_end() -> bytes:
    """Return what the key of an entry ends with."""
    rows = pa.table({"path": pa.array([b""], pa.large_binary()), "offset": pa.array([ENTRY], pa.int64())})
    return bytes(encode_keys(rows, ["path", "offset"])[0].as_py()).removeprefix(b"\x30")
