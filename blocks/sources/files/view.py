"""One look at a tree of files: its parts, and their rows read without ever tearing a file."""

from __future__ import annotations

import os
import random
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from pydantic import JsonValue

from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading
from blocks.sources.files.chunks import data_chunks
from blocks.sources.files.part import PartReader, Signature, open_file, signature, split_changed
from blocks.sources.files.rows import CHUNK_BYTES, TREE, Edge, Range
from blocks.sources.files.tree import STATS, Ladder, Rules, Walk, leaf, parent, shown

_PART_ROWS = 50_000
_ENTRY_BYTES = 200

_SIZE = STATS.index("size")


class Watch:
    """Where reading meets the clock. Tests put their own in place, to step in at a chosen moment."""

    def now_ns(self) -> int:
        """Return nanoseconds since 1970, by the clock that also stamps files."""
        return time.time_ns()

    def wait(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def back_off(self, attempt: int) -> None:
        """Wait before reading again: 20 ms and more, doubled with each attempt, with jitter."""
        self.wait(0.02 * 2**attempt * random.uniform(1, 2))  # noqa: S311  # not a secret

    def reading(self, path: bytes) -> None:
        """Called when a file was opened and looked at, before its content is read."""


@dataclass(frozen=True)
class Options:
    """How a tree is read; the fields of `FilesSource` by the same names."""

    root: bytes
    rules: Rules
    on_change: Literal["error", "skip"]
    read_attempts: int
    one_file_system: bool
    part_size_bytes: int


class FilesView:
    """One look at a tree (see `blocks.sources.files`).

    Args:
        options: Where and how to read.
        root: Descriptor of the root; the caller closes it.
        watch: The clock.
    """

    token: str | None = None
    """Always None: nothing short of a walk tells whether a tree changed."""

    def __init__(self, options: Options, root: int, watch: Watch) -> None:
        self.options, self.root, self.watch = options, root, watch
        self.taken_at = datetime.now(UTC)
        self.listing = Walk(root, options.rules, one_file_system=options.one_file_system).listing()
        self.warnings = self.listing.warnings
        self.system = f"local files at {shown(options.root)}"
        self.definition: dict[str, JsonValue] = {}
        self._split: dict[bytes, Signature | None] = {}
        self._lock = threading.Lock()

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the one collection, `tree`."""
        return [TREE]

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw ranges of about `part_size_bytes` and at most 50,000 rows; a large file is cut between its chunks."""
        edges = self._edges()
        return [Range(after, upto).to_json() for after, upto in zip([None, *edges], [*edges, None], strict=True)]

    def _edges(self) -> list[Edge]:
        limit = max(self.options.part_size_bytes, CHUNK_BYTES)
        edges: list[Edge] = []
        size = rows = 0
        regular = (self.listing.stats[:, 0] & 0o170000) == stat.S_IFREG
        sizes = np.where(regular, self.listing.stats[:, _SIZE], 0).tolist()
        with Ladder(self.root) as ladder:
            for path, content in zip(self.listing.paths, sizes, strict=True):
                weight = _ENTRY_BYTES + len(path) + min(content, limit)
                count = 1 + min(content, limit) // CHUNK_BYTES + 1
                if rows and (size + weight > limit + _ENTRY_BYTES or rows + count > _PART_ROWS):
                    edges.append(Edge(path, 0))
                    size = rows = 0
                if content > limit:
                    inside, size, rows = self._inside(ladder, path, content, limit)
                    edges += inside
                else:
                    size, rows = size + weight, rows + count
        return edges

    def _inside(self, ladder: Ladder, path: bytes, content: int, limit: int) -> tuple[list[Edge], int, int]:
        """Cut a large file by the chunks that hold data; return also what its last part holds so far."""
        last = -(-content // CHUNK_BYTES)
        chunks = self._data_chunks(ladder, path, 0, last)
        step = limit // CHUNK_BYTES
        rest = len(chunks) % step or min(step, len(chunks))
        return [Edge(path, chunk) for chunk in chunks[step::step]], rest * CHUNK_BYTES, rest + 1

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds much more content than parts are drawn for; holes do not count."""
        limit = OUTGROWN * max(self.options.part_size_bytes, CHUNK_BYTES)
        with Ladder(self.root) as ladder:
            return any(self._content(ladder, Range.parse(part), limit) > limit for part in bounds)

    def _content(self, ladder: Ladder, part: Range, limit: int) -> int:
        """Sum up the content of a part in bytes; files larger than the limit are looked at for holes."""
        inside = part.locate(self.listing.paths)
        stats = self.listing.stats[inside]
        regular = (stats[:, 0] & 0o170000) == stat.S_IFREG
        total = 0
        for path, size in zip(self.listing.paths[inside], np.where(regular, stats[:, _SIZE], 0).tolist(), strict=True):
            first, stop = part.first_chunk(path), part.stop_chunk(path)
            last = -(-size // CHUNK_BYTES) if stop is None else stop
            count = max(last - first, 0)
            if count * CHUNK_BYTES > limit:
                count = len(self._data_chunks(ladder, path, first, last))
            total += min(count * CHUNK_BYTES, size)
        return total

    def _data_chunks(self, ladder: Ladder, path: bytes, first: int, last: int) -> list[int]:
        """Number the chunks of a file that hold data; all where it cannot be opened, which reading will explain."""
        try:
            fd = open_file(ladder.folder(parent(path)), leaf(path))
        except OSError:
            return list(range(first, last))
        try:
            return list(data_chunks(fd, first, last))
        finally:
            os.close(fd)

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the rows of one part.

        Raises:
            SourceUnavailable: A file cannot be read.
            SourceChanged: A file kept changing, and the source says `on_change: error`, or it spans several parts.
        """
        return PartReader(self, Range.parse(bounds), known).read()

    def agree(self, path: bytes, seen: Signature | None) -> None:
        """Remember how a part saw a file that spans several; all parts must have seen the same.

        Raises:
            SourceChanged: Another part saw it otherwise.
        """
        with self._lock:
            if self._split.setdefault(path, seen) != seen:
                raise split_changed(path)

    def finish(self) -> None:
        """Look once more at each file that spans several parts.

        Raises:
            SourceChanged: One changed between its first and its last part, or since.
        """
        with Ladder(self.root) as ladder:
            for path, seen in self._split.items():
                status = ladder.lstat(path)
                now = signature(status) if status and stat.S_ISREG(status.st_mode) else None
                if now != seen:
                    raise split_changed(path)
