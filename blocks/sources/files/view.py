"""One look at a tree of files: its parts, and their rows read without ever tearing a file."""

from __future__ import annotations

import stat
from collections.abc import Sequence

import numpy as np

from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.files.observed import ObservedTree, Options
from blocks.sources.files.part import PartReader
from blocks.sources.files.reading.channel import Watch
from blocks.sources.files.reading.content import CHUNK_BYTES
from blocks.sources.files.rows import TREE, Edge, Range
from blocks.sources.files.tree import STATS
from blocks.sources.reading import BaseLookup, FullRead

__all__ = ["FilesView", "Options", "Watch"]

_PART_ROWS = 50_000
_ENTRY_BYTES = 200

_SIZE = STATS.index("size")


class FilesView(ObservedTree):
    """One look at a tree (see `blocks.sources.files`).

    Args:
        options: Where and how to read.
        root: Descriptor of the root; the caller closes it.
        readers: The processes that read its files; the caller ends them.
    """

    token: str | None = None
    """Always None: nothing short of a walk shows whether a tree changed."""

    part_reader: type[PartReader] = PartReader
    """What reads a part."""

    @property
    def skips(self) -> bool:
        """Whether it goes on past what changes or cannot be read."""
        skip = "skip" in (self.options.on_change, self.options.on_unreadable) or bool(self.listing.closed)
        return skip and not self.options.salvage

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the one collection, `tree`."""
        return [TREE]

    def estimated_bytes(self) -> int | None:
        """Return the size of the files, holes included, and of their entries."""
        regular = (self.listing.stats[:, 0] & 0o170000) == stat.S_IFREG
        content = int(np.where(regular, self.listing.stats[:, _SIZE], 0).sum())
        return content + _ENTRY_BYTES * len(self.listing.paths)

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of about `part_size_bytes` and at most 50,000 rows; large files are cut at chunks."""
        edges = self._edges()
        return [Range(after, upto).to_json() for after, upto in zip([None, *edges], [*edges, None], strict=True)]

    def _edges(self) -> list[Edge]:
        limit = max(self.options.part_size_bytes, CHUNK_BYTES)
        edges: list[Edge] = []
        size = rows = 0
        regular = (self.listing.stats[:, 0] & 0o170000) == stat.S_IFREG
        sizes = np.where(regular, self.listing.stats[:, _SIZE], 0).tolist()
        for path, content in zip(self.listing.paths, sizes, strict=True):
            weight = _ENTRY_BYTES + len(path) + min(content, limit)
            count = 1 + min(content, limit) // CHUNK_BYTES + 1
            if rows and (size + weight > limit + _ENTRY_BYTES or rows + count > _PART_ROWS):
                edges.append(Edge(path, 0))
                size = rows = 0
            if content > limit:
                inside, size, rows = self._inside(path, content, limit)
                edges += inside
            else:
                size, rows = size + weight, rows + count
        return edges

    def _inside(self, path: bytes, content: int, limit: int) -> tuple[list[Edge], int, int]:
        """Cut a large file by the chunks that hold data; return also what its last part holds so far."""
        last = -(-content // CHUNK_BYTES)
        chunks = self.readers.chunks(path, 0, last)
        step = limit // CHUNK_BYTES
        rest = len(chunks) % step or min(step, len(chunks))
        return [Edge(path, chunk) for chunk in chunks[step::step]], rest * CHUNK_BYTES, rest + 1

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part holds much more content than parts are partitioned for; holes do not count."""
        limit = REPARTITION_FACTOR * max(self.options.part_size_bytes, CHUNK_BYTES)
        return any(self._content(Range.parse(part), limit) > limit for part in bounds)

    def _content(self, part: Range, limit: int) -> int:
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
                count = len(self.readers.chunks(path, first, last))
            total += min(count * CHUNK_BYTES, size)
        return total

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> FullRead:
        """Read the rows of one part.

        Raises:
            SourceUnavailable: A file cannot be read, and the source says `on_unreadable: fail`.
            SourceChanged: A file kept changing, and the source says `on_change: error`.
        """
        return self.part_reader(self, Range.parse(bounds), base).read()

    def stop(self) -> None:
        """End what is being read."""
        self.readers.close()
