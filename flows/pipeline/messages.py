"""The messages of the stages: the part itself, and what each stage passes to the next."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from blocks.crypto.stream import ObjectContext, unseal
from blocks.records import Collection, Segment
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.reading import Reading
from blocks.sources.view import View


@dataclass(frozen=True)
class NormalizedPart:
    """A part after `normalize`.

    Attributes:
        reading: With `rows`, where there are any, of the columns `_key` (large_binary), `_digest` (uint64) and those of
            the collection in their canonical types; sorted by `_key`, of which no two are the same.
    """

    reading: Reading


@dataclass(frozen=True)
class CompressedPart:
    """A part after `compress`: two Parquet files, and the numbers that go into the manifest.

    Attributes:
        data: The segment as a Parquet file.
        index: The index as a Parquet file.
        upserts: Number of rows that were added or changed.
        tombstones: Number of rows that are gone.
        count: Number of records that the part has now.
        size_bytes: Size of the segment's rows as an Arrow table, in bytes.
    """

    data: pa.Buffer
    index: pa.Buffer
    upserts: int
    tombstones: int
    count: int
    size_bytes: int

    @property
    def size_compressed(self) -> int:
        """Bytes of both files."""
        return len(self.data) + len(self.index)


@dataclass(frozen=True)
class SealedPart:
    """A part after `encrypt`: two sealed objects, and what the part was after `compress`, without its files.

    Attributes:
        data: The sealed segment.
        index: The sealed index.
        upserts: Number of rows that were added or changed.
        tombstones: Number of rows that are gone.
        count: Number of records that the part has now.
        size_bytes: Size of the segment's rows as an Arrow table, in bytes.
        size_compressed: Size of both Parquet files, in bytes.
    """

    data: bytes | bytearray | memoryview
    index: bytes | bytearray | memoryview
    upserts: int
    tombstones: int
    count: int
    size_bytes: int
    size_compressed: int


@dataclass(frozen=True)
class SelectedCollection:
    """One collection of one backup.

    Attributes:
        number: Its number in the manifest.
        name: Source and collection, e.g. `ledger/orders`.
        spec: The collection as its source describes it.
        view: The view of its source.
        selection: Which of its rows are kept, by key.
    """

    number: int
    name: str
    spec: CollectionSpec
    view: View
    selection: Selection

    @property
    def source(self) -> str:
        """Name of the source."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Stored:
    """What `store` gives back: the segment, or None where nothing changed, and the part's rows as of now."""

    segment: Segment | None
    rows: int


@dataclass(frozen=True)
class Piece:
    """One sealed object that is restored, with what opens it; `name` is what errors call it."""

    sealed: bytes
    key: bytes | None
    context: ObjectContext
    name: str

    def open(self) -> pa.Buffer:
        """Open the object.

        Raises:
            CorruptionDetected: It is not what was sealed for this place.
        """
        return pa.py_buffer(unseal(self.sealed, self.key, self.context))


def spec_of(collection: Collection) -> CollectionSpec:
    """Return a collection of a manifest as its source saw it."""
    return CollectionSpec(
        name=collection.name.partition("/")[2],
        key=collection.key,
        label=collection.label,
        columns=collection.columns,
        definition=collection.definition,
        tracking=collection.tracking,
    )
