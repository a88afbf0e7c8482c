"""The messages of the stages: the part itself, and what each stage passes to the next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from blocks.crypto.stream import ObjectContext, unseal
from blocks.records import Blob, Collection, KeyRange, Segment
from blocks.rows.changes import Changes
from blocks.rows.parquet import from_parquet
from blocks.rows.selection import Selection
from blocks.rows.shared import Range, rows_at, unpack
from blocks.sources.collection import CollectionSpec
from blocks.sources.reading import Reading
from blocks.sources.view import View
from blocks.storage.fsync import Buffer

if TYPE_CHECKING:
    from flows.pipeline.attempt import BackupPart


@dataclass(frozen=True)
class NormalizedPart:
    """A part after `normalize`.

    Attributes:
        reading: With `rows`, where there are any, of the columns `_key` (large_binary), `_digest` (uint64) and those of
            the collection in their canonical types; sorted by `_key`, of which no two are the same.
    """

    reading: Reading


class StoredPart:
    """One part in what is stored together, and what the manifest says of it.

    A plain class, because Prefect looks for futures inside the dataclasses it is given.

    Attributes:
        part: The part.
        upserts: Number of rows that were added or changed.
        tombstones: Number of rows that are gone.
        count: Number of records that the part has now.
        size_bytes: Size of the segment's rows as an Arrow table, with the values that they only refer to, in bytes.
        size_compressed: Its share of data and index after compression, in bytes.
        keys: Which keys it holds.
        rows_at: Where its rows are in shared data: offset and length, in bytes; None where all of it is.
        index_at: Where its index is in a shared one: first row and number of rows; None where all of it is.
    """

    __slots__ = (
        "count", "index_at", "keys", "part", "rows_at", "size_bytes", "size_compressed", "tombstones", "upserts",
    )  # fmt: skip

    def __init__(self, part: BackupPart, changes: Changes, keys: KeyRange) -> None:
        self.part, self.keys, self.size_compressed = part, keys, 0
        self.upserts, self.tombstones, self.count = changes.upserts, changes.tombstones, changes.count
        self.size_bytes = changes.rows.nbytes + changes.elsewhere_bytes
        self.rows_at: Range | None = None
        self.index_at: Range | None = None

    def segment(self, data: Blob, index: Blob) -> Segment:
        """Return what the manifest says of the part, when data and index are stored."""
        return Segment(
            data=data.model_copy(update={"shared": self.rows_at}),
            index=index.model_copy(update={"shared": self.index_at}),
            key_range=self.keys,
            upserts=self.upserts,
            tombstones=self.tombstones,
            size_bytes=self.size_bytes,
            size_compressed=self.size_compressed,
        )


class CompressedParts:
    """One part after `compress`, or several small ones: their data and their index.

    Attributes:
        data: The segment as a Parquet file, or shared rows.
        index: The index as a Parquet file.
        members: The parts; none where a small part waits for others.
    """

    __slots__ = ("data", "index", "members")

    def __init__(self, data: Buffer, index: Buffer, members: Sequence[StoredPart]) -> None:
        self.data, self.index, self.members = data, index, members


class SealedParts:
    """One part after `encrypt`, or several small ones: two sealed blobs, each with its number.

    Attributes:
        data: Number and bytes of the sealed data.
        index: Number and bytes of the sealed index.
        members: The parts.
    """

    __slots__ = ("data", "index", "members")

    def __init__(self, data: tuple[int, bytes], index: tuple[int, bytes], members: Sequence[StoredPart]) -> None:
        self.data, self.index, self.members = data, index, members


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
    """One sealed blob that is restored, with what opens it; `name` is what errors call it."""

    sealed: bytes
    key: bytes | None
    context: ObjectContext
    name: str

    def open(self) -> Opened:
        """Open the blob.

        Raises:
            CorruptionDetected: It is not what was sealed for this place.
        """
        return Opened(pa.py_buffer(unseal(self.sealed, self.key, self.context)), self.name)


class SharedBlob:
    """A sealed blob that small parts share; it is opened once for all of them. Thread-safe."""

    def __init__(self, piece: Piece) -> None:
        self._sealed: Piece | None = piece
        self._guard = threading.Lock()
        self._plain: pa.Buffer | None = None

    def plain(self) -> pa.Buffer:
        """Open and unpack the blob.

        Raises:
            CorruptionDetected: It is not what was sealed for this place.
        """
        with self._guard:
            if self._plain is None and self._sealed is not None:
                self._plain = unpack(self._sealed.open().data, self._sealed.name)
                self._sealed = None
            return self._plain


@dataclass(frozen=True)
class SharedPiece:
    """What one part has of a shared blob; `name` is what errors call it."""

    blob: SharedBlob
    place: Range
    name: str

    def open(self) -> Opened:
        """Open the blob, if it is not open yet.

        Raises:
            CorruptionDetected: It is not what was sealed for this place.
        """
        return Opened(self.blob.plain(), self.name, self.place)


@dataclass(frozen=True)
class Opened:
    """The data of one segment, compressed still, or at a place in what several parts share."""

    data: pa.Buffer
    name: str
    place: Range | None = None

    @property
    def size_bytes(self) -> int:
        """Size of what is the part's, in bytes."""
        return self.data.size if self.place is None else self.place[1]

    def rows(self) -> pa.Table:
        """Read the rows: `_key` (large_binary; set for tombstones only) and the canonical columns.

        Raises:
            CorruptionDetected: They are not there.
        """
        if self.place is None:
            return from_parquet(self.data, self.name)
        return rows_at(self.data, self.place, self.name)


@dataclass(frozen=True)
class FoundRows:
    """The rows of some keys, which were looked up in one segment: open already."""

    table: pa.Table

    def open(self) -> FoundRows:
        """Return itself."""
        return self

    def rows(self) -> pa.Table:
        """Return the rows: `_key` (large_binary; set for tombstones only) and the canonical columns."""
        return self.table


AnyPiece = Piece | SharedPiece | FoundRows


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
