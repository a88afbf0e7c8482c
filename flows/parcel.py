"""What travels along the line: the part itself, and what each stage hands to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from blocks.manifest import Collection, Part, Segment
from blocks.partindex import KnownPart, PartIndex
from blocks.rowdigest import RowDigest
from blocks.sealing import ObjectContext
from blocks.selection import Selection
from blocks.sources.base import Bounds, CollectionSpec, View

if TYPE_CHECKING:  # a job holds parts and a part knows its job
    from flows.chain import Chain
    from flows.job import BackupJob


@dataclass(frozen=True)
class Normal:
    """A part after `normalize`: `_key`, `_digest` and canonical columns, sorted by key."""

    rows: pa.Table
    unchanged: pa.LargeBinaryArray | None = None
    touched: pa.LargeBinaryArray | None = None
    rest_unchanged: bool = False
    only_replaced: bool = False
    whole_part_unchanged: bool = False


@dataclass(frozen=True)
class Changes:
    """A part after `diff`: its segment's rows (upserts, tombstones) and index; `count` is of all rows there are now."""

    rows: pa.Table
    index: pa.Table
    upserts: int
    tombstones: int
    count: int


@dataclass(frozen=True)
class Packed:
    """A part after `compress`: two Parquet files; `size_bytes` counts the Arrow rows they came from."""

    data: pa.Buffer
    index: pa.Buffer
    upserts: int
    tombstones: int
    size_bytes: int

    @property
    def size_compressed(self) -> int:
        """Bytes of both files."""
        return len(self.data) + len(self.index)


@dataclass(frozen=True)
class Sealed:
    """A part after `encrypt`: two sealed objects and the numbers that go into the manifest."""

    data: bytes | bytearray | memoryview
    index: bytes | bytearray | memoryview
    upserts: int
    tombstones: int
    size_bytes: int
    size_compressed: int


class PartJob:
    """One part of one backup on its way down the line. Prints as `ledger/orders#3`.

    A plain class, because Prefect looks for futures inside the dataclasses it is given.
    """

    __slots__ = ("_base", "bounds", "collection_name", "job", "number", "rows", "selection", "spec", "view")

    def __init__(
        self,
        job: BackupJob,
        collection_name: str,
        number: int,
        spec: CollectionSpec,
        bounds: Bounds,
        view: View,
        selection: Selection | None = None,
    ) -> None:
        self.job, self.collection_name, self.number = job, collection_name, number
        self.spec, self.bounds, self.view, self.selection = spec, bounds, view, selection
        self.rows = 0
        self._base: PartIndex | None = None

    def __str__(self) -> str:
        """Name the part as people see it in the UI and in errors."""
        return f"{self.collection_name}#{self.number}"

    @property
    def digest(self) -> RowDigest:
        """The digest of rows under the repository's key."""
        return self.job.digest

    def base(self) -> PartIndex:
        """Return what the base holds of this part; empty where the backup stands alone."""
        if self._base is None:
            self._base = self.job.base_index(self)
        return self._base

    @property
    def base_rows(self) -> int:
        """How many records the base holds of this part, as its manifest says."""
        return self.job.base_rows(self)

    def known(self) -> KnownPart:
        """Return what a source may leave out of its reading."""
        return KnownPart(self.base, self.base_rows, self.spec.key, self.digest, self.job.base_token(self))

    def drop_base(self) -> None:
        """Forget the base's index, which is as large as the part has rows."""
        self._base = None


@dataclass(frozen=True)
class Stored:
    """What `store` gives back: the segment, or None where nothing changed, and the part's rows as of now."""

    segment: Segment | None
    rows: int


@dataclass(frozen=True)
class Piece:
    """One sealed object on its way up, with what opens it; `name` is what errors call it."""

    sealed: bytes
    key: bytes | None
    context: ObjectContext
    name: str


class RestorePart:
    """One part of one backup on its way up the line, with the segments of its chain, oldest first."""

    __slots__ = ("chain", "collection", "part", "selection", "spec")

    def __init__(self, chain: Chain, collection: Collection, part: Part, selection: Selection | None) -> None:
        self.chain, self.collection, self.part, self.selection = chain, collection, part, selection
        self.spec = spec_of(collection)

    def __str__(self) -> str:
        """Name the part as people see it in the UI and in errors."""
        return f"{self.collection.name}#{self.part.number}"


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
