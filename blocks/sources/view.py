"""One consistent look at a source, and what some of them can do besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, FullRead, Reading


class View(Protocol):
    """One consistent look at a source. Methods may be called from several threads."""

    taken_at: datetime
    """The moment (aware, UTC) whose state is seen."""
    system: str
    """Product, version and place, without secrets."""
    definition: dict[str, JsonValue]
    """What a restore needs besides the collections (views, triggers, settings)."""
    warnings: tuple[str, ...]
    """What this backup does not cover, each a sentence; recorded in the manifest."""

    @property
    def token(self) -> str | None:
        """Equal tokens of two views mean that nothing at all changed between them; None where that is not known.

        A backup asks for it before anything is read; who only looks does not, so a source may first have to do
        something to be able to report what changes from now on.
        """
        ...

    def collections(self) -> Sequence[CollectionSpec]:
        """Return all collections, in a stable order."""
        ...

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Return the bounds of parts of about PART_SIZE_BYTES each. They cover everything, now and for any later row.

        At least one part, also for an empty collection; the first is open downwards, the last open upwards.
        """
        ...

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part of an older full has grown beyond REPARTITION_FACTOR times the size of a part.

        A part is held in memory as a whole, so the chain then ends and the next full partitions again. A source
        that would have to look at all records may leave that to `read`.
        """
        ...

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> Reading:
        """Read the rows of one part.

        Args:
            collection: One of `collections()`.
            bounds: Drawn by this view or by that of the chain's full.
            base: The base's content of the part where native change tracking may be used, else None: read all.

        Returns:
            A `FullRead`, or with `base` any `Reading`, whichever takes the source least work.

        Raises:
            SourceUnavailable: The source went away.
            SourceChanged: It kept changing under the reader.
            UnsupportedState: A value cannot be kept exactly; names the record.
            BaseUnusable: The part, within the bounds of the base, needs repartition.
        """
        ...

    def finish(self) -> None:
        """Called after all parts were read and before the backup is committed.

        Raises:
            SourceChanged: Something that spans several parts changed while it was read.
        """
        ...


def read_whole(view: View, collection: CollectionSpec, bounds: Bounds) -> FullRead:
    """Read a part without a base.

    Raises:
        TypeError: The view left out what it calls unchanged, where there is no base that would hold it.
    """
    match view.read(collection, bounds, None):
        case FullRead(unchanged=None) as reading:
            return reading
        case other:
            raise TypeError(f"{view.system}: {collection.name} was read without a base, but as {type(other).__name__}")


@dataclass(frozen=True)
class Unread:
    """State that a pre-restore backup could not read, so that a restore must move it aside instead of overwriting it.

    Attributes:
        reason: Why, as a clause.
        collection: Name within the source; None where the source as a whole cannot be read.
        key: The value of the label columns of the one record (a path, say), as `--key` matches it; None where the
            collection as a whole cannot be read.
    """

    reason: str
    collection: str | None = None
    key: str | None = None


@runtime_checkable
class Estimating(Protocol):
    """A view that knows about how much there is before anything is read, and is not asked for it by hard work."""

    def estimated_bytes(self) -> int | None:
        """Return about how many bytes a reading of all gives; None where that is not known.

        Raises:
            SourceUnavailable: The source went away.
        """
        ...


@runtime_checkable
class Salvaging(Protocol):
    """A view that goes on past what it cannot read; `unread` is complete once all parts were read."""

    @property
    def unread(self) -> Sequence[Unread]:
        """What could not be read so far."""
        ...


@runtime_checkable
class Skipping(Protocol):
    """A view that may go on past what cannot be read: such records are left as the base has them.

    Its `read` is given the base also where all has to be read again (`UnprovenLookup`).
    """

    @property
    def skips(self) -> bool:
        """Whether it goes on past anything."""
        ...

    def stale(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Called when all parts were read, again and again until it returns none: which have to be read once more.

        A part is, where something in it had to be given up as a whole after a piece of it was read.

        Raises:
            SourceChanged: Something that spans several parts changed while it was read.
        """
        ...


@runtime_checkable
class Stoppable(Protocol):
    """A view that may read for long without anybody to hear of it."""

    def stop(self) -> None:
        """Called when the backup is given up, from any thread: what is being read ends soon, with an error."""
        ...


@runtime_checkable
class Releasing(Protocol):
    """A view for whose backup the source keeps something back until the backup is there."""

    def committed(self) -> None:
        """Called when a backup was committed that can be the base of an incremental.

        Raises:
            SourceUnavailable: What is kept could not be let go; the next backup does that.
        """
        ...
