"""A tree as a view has seen it: the walk, and what its parts found since."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import JsonValue

from blocks.errors import SourceChanged
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.files.cover import Coverage, definition_of
from blocks.sources.files.readers import ContentReaders
from blocks.sources.files.reading.stats import Row
from blocks.sources.files.reading.xattrs import decode, kind_of
from blocks.sources.files.rows import TREE, Range
from blocks.sources.files.tree import FolderHandles, Listing, Walk, shown, stat_row
from blocks.sources.view import Unread

Signature = tuple[int, int, int, int]
"""Size, mtime, ctime (both in nanoseconds) and inode: what changes when a file's content does."""


KEPT_CHANGING = "kept changing"


@dataclass(frozen=True)
class Options:
    """How a tree is read; the fields of `FilesSource` by the same names.

    Attributes:
        root: Path of the folder, as bytes.
        cover: The entries of the tree that count.
        on_change: What to do about a file that changes each time it is read.
        on_unreadable: What to do about an entry that cannot be read.
        read_attempts: How often a file that changes is read.
        part_size_bytes: Size of content that parts are partitioned for, in bytes.
        salvage: Go on past what cannot be read and list it as unread.
    """

    root: bytes
    cover: Coverage
    on_change: Literal["error", "skip"]
    on_unreadable: Literal["fail", "skip"]
    read_attempts: int
    part_size_bytes: int
    salvage: bool = False


class ObservedTree:
    """What a view and the readers of its parts know of a tree. Thread-safe.

    Args:
        options: Where and how to read.
        root: Descriptor of the root; the caller closes it.
        readers: The processes that read its files; the caller ends them.
    """

    def __init__(self, options: Options, root: int, readers: ContentReaders) -> None:
        self.options, self.root, self.readers = options, root, readers
        self.taken_at = datetime.now(UTC)
        self.listing = self._walked()
        self.warnings = self.listing.warnings
        self.system = f"local files at {shown(options.root)}"
        self.definition: dict[str, JsonValue] = {}
        """What the backup does not cover, and which attributes there are; complete once all parts were read."""
        self._split: dict[bytes, Signature | None] = {}
        self._held: dict[bytes, set[Range]] = {}
        self._dropped: dict[bytes, str] = {}
        self._linked: dict[bytes, Signature] = {}
        self._settled = False
        self._lock = threading.Lock()
        self._unread = dict(self.listing.unread)
        self._skipped: set[bytes] = set(self.listing.closed)
        self._seen: dict[bytes, Row | None] = {}
        written = set(self.listing.attributes.values())
        self._kinds = sorted({kind_of(os.fsdecode(name)) for one in written for name in decode(one)})
        self._define()

    def _walked(self) -> Listing:
        """List all entries."""
        options, skip = self.options, self.options.on_unreadable == "skip"
        return Walk(self.root, options.cover, options.root, go_on=options.salvage, skip=skip).listing()

    def _define(self) -> None:
        self.definition = definition_of(self.options.cover, self.listing.left_out, self._skipped, self._kinds)

    @property
    def unread(self) -> Sequence[Unread]:
        """What could not be read so far, where the view goes on past it."""
        with self._lock:
            found = sorted(self._unread.items())
        return [Unread(reason, TREE.name, path.decode(errors="surrogateescape")) for path, reason in found]

    def give_up(self, path: bytes, reason: str) -> None:
        """List an entry as unread."""
        with self._lock:
            self._unread[path] = reason

    def skip(self, path: bytes) -> None:
        """Remember that the backup says nothing of an entry that is there."""
        with self._lock:
            self._skipped.add(path)
            self._define()

    def saw(self, path: bytes, row: Row | None) -> None:
        """Remember the stat that an entry was read with, where the walk saw another one; None where it was gone."""
        with self._lock:
            self._seen[path] = row

    def row(self, path: bytes) -> Row | None:
        """Return the stat that the backup stands for; None where it holds nothing of the path."""
        with self._lock:
            if path in self._unread:
                return None
            if path in self._seen:
                return self._seen[path]
        return self.listing.row(path)

    def agree(self, path: bytes, seen: Signature | None, span: Range) -> None:
        """Remember how a part saw a file that spans several; all parts must have seen the same.

        Raises:
            SourceChanged: Another part saw it otherwise, and the source does not say `on_change: skip`.
        """
        with self._lock:
            self._held.setdefault(path, set()).add(span)
            agreed = self._split.setdefault(path, seen) == seen
        if not agreed:
            self._torn(path)

    def linked(self, first: bytes, seen: Signature) -> bool:
        """Remember how a file was seen by one of its names; say whether it is what it was by others.

        Args:
            first: The first of its names.
            seen: What it is by one of them.
        """
        with self._lock:
            return self._linked.setdefault(first, seen) == seen

    def drop(self, path: bytes, why: str) -> None:
        """Give up a file that spans several parts, in all of them; `why` is a clause."""
        with self._lock:
            self._dropped.setdefault(path, why)

    def dropped(self, path: bytes, span: Range) -> str | None:
        """Return why a file was given up, None for others; from now on a part holds nothing new of it."""
        with self._lock:
            if path in self._dropped:
                self._held.get(path, set()).discard(span)
            return self._dropped.get(path)

    def stale(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Return the parts that hold something of a file that had to be given up after they were read.

        Raises:
            SourceChanged: A file changed between its first and its last part, or since, and the source does not say
                `on_change: skip`.
        """
        self._settled = True
        self._look_again()
        with self._lock:
            held = [self._held.get(path, set()) for path in self._dropped]
        return [span.to_json() for span in sorted({span for spans in held for span in spans}, key=_by_place)]

    def finish(self) -> None:
        """Look once more at each file that spans several parts, and was not given up.

        Raises:
            SourceChanged: One changed between its first and its last part, or since.
        """
        if not self._settled:
            self._look_again()
        with self._lock:
            torn = [path for path in self._dropped if self._held.get(path)]
        if torn and not self.options.salvage:
            raise split_changed(torn[0])

    def _look_again(self) -> None:
        paths = [*self._split]
        for path, row in zip(paths, self._status(paths), strict=True):
            now = (row[1], row[2], row[3], row[4]) if row else None
            if now != self._split[path] and path not in self._dropped:
                self._torn(path)

    def _status(self, paths: Sequence[bytes]) -> list[Row | None]:
        """Look at files; None for each that is none any more."""
        with FolderHandles(self.root) as handles:
            found = [handles.lstat(path) for path in paths]
        return [stat_row(status) if status and stat.S_ISREG(status.st_mode) else None for status in found]

    def _torn(self, path: bytes) -> None:
        if self.options.salvage:
            self.give_up(path, "it changed while its parts were read")
        elif self.options.on_change == "skip":
            self.drop(path, KEPT_CHANGING)
        else:
            raise split_changed(path)


def _by_place(span: Range) -> tuple[bytes, int]:
    return span.after or (b"", -1)


def split_changed(path: bytes) -> SourceChanged:
    """Make the error for a file that is read in several parts and was not the same for all of them."""
    return SourceChanged(
        f"the file {shown(path)} changed while its parts were read",
        hint="It is so large that it is read in several parts. Run again when it is at rest, copy it aside first, "
        "leave it out with `exclude`, or say `on_change: skip`.",
    )
