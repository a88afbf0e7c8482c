"""What every source of state offers, and what a restore asks of it.

    source.view()      one consistent look at live state      -> collections, parts, rows
    source.target(...) a place to write restored state to     -> preflight, begin, apply, commit or abort

A source says what it holds as Arrow tables with declared key columns; everything after that (canonical types,
keys, digests, differences) is the stages' work and the same for all sources.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import JsonValue

from blocks.block import Block

if TYPE_CHECKING:  # a source is made, and may begin to open a view, before Arrow is there
    import pyarrow as pa

    from blocks.selection import Selection

Bounds = dict[str, JsonValue]

PART_SIZE_BYTES = 64 * 1024 * 1024
"""Arrow bytes a part is drawn for."""

OUTGROWN = 4
"""How many times that size a part may reach within a chain."""


@dataclass(frozen=True)
class CollectionSpec:
    """A collection as its source sees it.

    Attributes:
        name: Name within the source, e.g. a table's name.
        key: The columns that identify a row; no two rows share a value of all of them.
        label: The key columns whose text a person's key pattern is matched against.
        columns: Name and declared type of each column, in order; the key columns are among them.
        definition: What a restore needs besides rows (statements that create the table, say).
        tracking: Columns that only tell whether a row changed (an inode, say) and are not restored.
    """

    name: str
    key: tuple[str, ...]
    label: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    definition: dict[str, JsonValue] = field(default_factory=dict)
    tracking: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Changes when rows kept before can no longer stand beside rows read now: then the next backup is a full."""
        shape = [self.name, self.key, self.columns]
        return hashlib.sha256(json.dumps(shape, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


class Known(Protocol):
    """What the base already holds of a part; given to `read` so that a source can leave out what did not change."""

    token: str | None
    """The token of the base's view: what changed since then is what a source has to read."""
    rows: int
    """How many records the base holds of the part."""

    def prepare(self) -> None:
        """Fetch what the methods below look into, if a source has to wait for something anyway."""
        ...

    def holds(self, keys: pa.Table) -> pa.BooleanArray:
        """Tell for each row of key columns whether the base holds a record with that key."""
        ...

    def encode(self, keys: pa.Table) -> pa.LargeBinaryArray:
        """Encode key columns as `_key`s, for `Reading.unchanged`."""
        ...

    def same(self, rows: pa.Table) -> pa.BooleanArray:
        """Tell for each row whether the base holds it with the same key and the same content.

        `rows` has the collection's full set of columns, as `read` would return them.
        """
        ...

    def under(self, parents: pa.Array) -> pa.LargeBinaryArray:
        """Return the base's `_key`s whose first key column (text or binary) is one of `parents`."""
        ...


@dataclass(frozen=True)
class Reading:
    """What was read of a part.

    Attributes:
        rows: Rows with the collection's columns, in any order.
        unchanged: `_key`s (from `Known.under` or `Known.encode`) that are still there and were not read again.
        touched: `_key`s (from `Known.under`) that were read again: those that are not among `rows` are gone. Only
            with `rest_unchanged`.
        rest_unchanged: True where the source knows that every record of the base whose key is neither among `rows`
            nor `touched` is still there, as it was.
        only_replaced: True where the source also knows that the base holds a record for the key of each of `rows`, and
            that none is gone. Only with `rest_unchanged`, and without `touched`.
        whole_part_unchanged: True where the source knows that nothing in the part changed since the base.
        warnings: What a person should know, each a sentence naming the record.
    """

    rows: pa.Table
    unchanged: pa.LargeBinaryArray | None = None
    touched: pa.LargeBinaryArray | None = None
    rest_unchanged: bool = False
    only_replaced: bool = False
    whole_part_unchanged: bool = False
    warnings: tuple[str, ...] = ()


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
        """Equal tokens of two views mean that nothing at all changed between them; None where that cannot be told.

        A backup asks for it before anything is read; who only looks does not, so a source may first have to do
        something to be able to tell what changes from now on.
        """
        ...

    def collections(self) -> Sequence[CollectionSpec]:
        """Return all collections, in a stable order."""
        ...

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw part boundaries of about PART_SIZE_BYTES each. They cover everything, now and for any later row.

        At least one part, also for an empty collection; the first is open downwards, the last open upwards.
        """
        ...

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Whether a part of an older full has grown beyond OUTGROWN times the size parts are drawn for.

        A part is held in memory as a whole, so the chain then ends and the next full draws new boundaries. A source
        that would have to look at all records to tell may leave that to `read`.
        """
        ...

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Read the rows of one part.

        Args:
            collection: One of `collections()`.
            bounds: Drawn by this view or by that of the chain's full.
            known: The base's content of the part where native change tracking may be used, else None: read all.

        Raises:
            SourceUnavailable: The source went away.
            SourceChanged: It kept changing under the reader.
            UnsupportedState: A value cannot be kept exactly; names the record.
            BaseUnusable: The part, as the base drew it, has outgrown its bounds.
        """
        ...

    def finish(self) -> None:
        """Called after all parts were read and before the backup is committed.

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
        """Called when a backup was committed that an incremental may stand on.

        Raises:
            SourceUnavailable: What is kept could not be let go; the next backup does that.
        """
        ...


class RestoreMode(StrEnum):
    """How restored rows meet what is already at the target."""

    PREVIEW = "preview"
    """Write nothing; say what would be done."""
    MERGE = "merge"
    """Put the backup's rows; leave everything else as it is."""
    EXACT = "exact"
    """Afterwards the target holds the backup's rows of the selection, and no others."""


@dataclass(frozen=True)
class RestoreScope:
    """What a restore is going to write to one source.

    Attributes:
        definition: The source's definition from the manifest.
        collections: The collections to restore, as they were backed up, each with its total of rows.
        mode: MERGE or EXACT.
        selection: Which collections and keys; `selection.everything` when nothing was narrowed down.
        size_bytes: Estimate of the Arrow bytes to be written.
        narrowed: Key globs that an emergency backup was narrowed to, by the collection's name: of other keys it
            knows nothing, so an exact restore leaves them alone.
    """

    definition: dict[str, JsonValue]
    collections: tuple[tuple[CollectionSpec, int], ...]
    mode: RestoreMode
    selection: Selection
    size_bytes: int
    narrowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def selection_of(self, collection: str) -> Selection:
        """Return what is restored of one collection."""
        return replace(self.selection, within=self.narrowed.get(collection, ()))


class Target(Protocol):
    """Where restored state is written. `apply` may be called from several threads, part by part, in any order."""

    def preflight(self) -> tuple[str, ...]:
        """Check everything that can be checked before the first write; return sentences worth showing.

        Raises:
            RestoreRefused: The restore would do harm, or cannot succeed.
        """
        ...

    def begin(self) -> None:
        """Called once when nothing stands against writing any more: begin what the first `apply` would wait for.

        That is done beside other work; what fails is met by `apply` or `commit`.
        """
        ...

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part, already narrowed to the selection; return how many."""
        ...

    def commit(self) -> None:
        """Make the restored state live, at once where the target can."""
        ...

    def abort(self) -> None:
        """Leave the target as it was before the first `apply`."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What `commit` found worth telling, each a sentence."""
        ...


class StateSource(Block):
    """Base of all sources: common behaviour only, never saved by itself."""

    _documentation_url = "https://github.com/lastgood/lastgood/blob/main/docs/sources.md"  # type: ignore[assignment]
    _is_anonymous = None

    @property
    def beyond_privileges(self) -> frozenset[str]:
        """Columns that a restore cannot bring back with the privileges of this process."""
        return frozenset()

    def anchored(self, folder: Path) -> StateSource:
        """Return a copy whose relative paths are resolved against `folder` (that of the plan file)."""
        return self

    @abstractmethod
    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one consistent look at live state.

        Args:
            since: The token of the view that the base of an incremental was made from. A source may then prepare for
                being asked only what changed since, but has to be able to give all of it.

        Raises:
            SourceUnavailable: It cannot be reached or read.
        """

    def begin(self, *, incremental: bool) -> None:
        """Begin to open a view that is soon asked for, beside other work; what fails is met by `view`.

        Args:
            incremental: Whether it will be asked what changed since a base.
        """

    @abstractmethod
    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the live place, or another one named by `to` (a path or URL of the source's kind)."""

    @abstractmethod
    def at(self, place: str) -> StateSource:
        """Return this source as it would be at another place; verification reads a scratch restore through it."""

    @abstractmethod
    def scratch(self, folder: Path) -> str:
        """Name a place inside an empty folder to which a verification can really restore."""

    def inside(self, folder: Path) -> str:
        """Name a place inside a folder, for a restore of several sources at once; what is there stays usable."""
        return self.scratch(folder)

    def discard_scratch(self, place: str) -> None:
        """Remove a place that `scratch` named, where it is not inside the folder."""
