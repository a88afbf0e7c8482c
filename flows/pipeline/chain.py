"""A chain of backups opened for reading: the full at its bottom, the wanted backup on top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from blocks.host.memory import KEPT_BYTES, give_back
from blocks.records import BackupMetadata, Collection, Part
from blocks.repository.block import Repository
from blocks.rows.canonical import KEY
from blocks.rows.key_range import check_range
from blocks.rows.merge import merged
from blocks.rows.normalize import from_normal
from blocks.rows.row_groups import checked_order
from blocks.rows.same import SAME_KEY, told_apart, without_references
from blocks.rows.selection import Selection
from blocks.rows.wanted import WantedKeys
from blocks.sources.source import StateSource
from flows.pipeline.chain_segments import ChainSegments, StoredSegment
from flows.pipeline.lookup import rows_of, wanted_keys
from flows.pipeline.messages import AnyPiece, FoundRows, Opened, spec_of
from flows.pipeline.stored_once import filled

_PLACE = "#"
"""Numbers rows while they are narrowed; no column of a collection that has references."""

HELD_BYTES = 16 * 1024 * 1024
"""Arrow bytes of rows that were looked up and are held: who looks whether they are there reads them again soon."""

_LARGE_BYTES = 128 * 1024 * 1024
"""Rows of a part that is larger than parts are made: one wide key of Redis, one large row."""


class Chain(ChainSegments):
    """A backup and those it depends on, taken apart into the parts that a restore, a verification or a look brings up.

    Arguments, attributes and errors are those of `ChainSegments`.
    """

    def __init__(self, repository: Repository, target: BackupMetadata, copies: bool = False) -> None:
        super().__init__(repository, target, copies)
        self._held, self._room = dict[tuple[str, int, WantedKeys], list[pa.Table]](), HELD_BYTES

    def look_up(self, collection: Collection, part: int, wanted: WantedKeys) -> list[pa.Table]:
        """Read the rows and tombstones of some keys, a table for each segment that has some, as `rows_of` does."""
        place = collection.name, part, wanted
        if (held := self._held.get(place)) is not None:
            return held
        found = rows_of(self, collection.name, part, wanted, spec_of(collection))
        if (size := sum(rows.nbytes for rows in found)) <= self._room:
            self._held[place] = found
            self._room -= size
        return found

    def parts(self, selection: Selection, sources: Mapping[str, StateSource] | None = None) -> Iterator[RestorePart]:
        """Yield the parts of the selected collections.

        Args:
            selection: Which collections and keys.
            sources: Those of the plan, where rows that it does not cover are left out.
        """
        for collection in self.target.collections:
            if selection.has_collection(collection.name):
                yield from self.parts_of(collection, selection, sources)

    def parts_of(
        self, collection: Collection, selection: Selection, sources: Mapping[str, StateSource] | None = None
    ) -> Iterator[RestorePart]:
        """Yield the parts of one collection.

        Args:
            collection: One of the backup on top.
            selection: Which keys.
            sources: Those of the plan, where rows that it does not cover are left out.
        """
        keys = Selection(keys=selection.keys, within=collection.selected_keys)
        keys = keys.meant_for(collection.key, collection.label)
        narrowed = keys if keys.narrows_keys else None
        for part in collection.parts:
            yield RestorePart(self, collection, part, narrowed, (sources or {}).get(collection.source))


class RestorePart:
    """One part of one backup that passes the restore stages, with the segments of its chain, oldest first."""

    def __init__(
        self,
        chain: Chain,
        collection: Collection,
        part: Part,
        selection: Selection | None,
        source: StateSource | None = None,
    ) -> None:
        self.chain, self.collection, self.part, self.selection = chain, collection, part, selection
        self._source = source
        self.spec = spec_of(collection)

    def stored(self) -> Sequence[StoredSegment]:
        """Return the segments that are read for the part, oldest first: all that the chain has of it."""
        return self.chain.segments(self.collection.name, self.part.number)

    def pieces(self) -> list[AnyPiece]:
        """Fetch the sealed data of the part, oldest first; where keys are written out, the rows of these."""
        if self.wanted is None:
            return [
                self.chain.piece(backup, held, self.part.number, segment) for backup, held, segment in self.stored()
            ]
        return [FoundRows(rows) for rows in self.chain.look_up(self.collection, self.part.number, self.wanted)]

    def check_lookups(self, opened: Sequence[Opened], tables: Sequence[pa.Table]) -> None:
        """Check what a lookup of single records believes of the part's segments.

        Args:
            opened: The data of each segment, oldest first.
            tables: The rows of each: `_key` (large_binary; set for tombstones only) and the canonical columns.

        Raises:
            CorruptionDetected: A segment holds rows that a lookup would not find.
        """
        stored = self.stored()
        kept_bytes = 0 if sum(rows.nbytes for rows in tables) > _LARGE_BYTES else KEPT_BYTES
        give_back(kept_bytes)  # what reading the rows left, before their keys come
        for (_, _, segment), one, rows in zip(stored, opened, tables, strict=True):
            if segment.key_range is not None and rows.num_rows:
                whole = one.data if one.place is None else None
                keys = checked_order(whole, rows, self.spec.key, one.name)
                check_range(segment.key_range, keys, rows, self.spec.key, self.chain.digest, one.name)
                del keys
        give_back(kept_bytes)  # and that, before the index comes

    def tables(self, opened: Sequence[Opened | FoundRows]) -> list[pa.Table]:
        """Return the rows of each segment: `_key` (large_binary; set for tombstones only) and the canonical columns.

        Where they refer to others, they say as of which backup, for `filled`.

        Args:
            opened: The data of each segment, oldest first.
        """
        if self.wanted is not None:
            return [one.rows() for one in opened]
        both = zip(opened, self.stored(), strict=True)
        return [told_apart(one.rows(), self.chain.position(backup)) for one, (backup, _, _) in both]

    def filled(self, rows: pa.Table) -> pa.Table:
        """Put values in the place of references; where rows are going to be narrowed, only in those that stay.

        Args:
            rows: The merged rows of `tables`.

        Raises:
            CorruptionDetected: A reference leads nowhere.
        """
        only = None
        if SAME_KEY in rows.column_names and not self.chain.proving and (self.selection or self._source):
            referring = pc.indices_nonzero(rows.column(SAME_KEY).is_valid())
            some = from_normal(without_references(rows.take(referring))).append_column(_PLACE, referring)
            only = self.narrowed(some).column(_PLACE)
        return filled(self.chain, self.collection.name, self.part.number, self.spec, rows, only)

    def merged(self, keys: pa.Array | None = None) -> pa.Table:
        """Fetch the segments and lay them over each other, all stages in one call, for what compares and reads.

        Args:
            keys: `_key`s of the rows that are wanted; None for all.

        Returns:
            `_key` (large_binary) and the canonical columns, sorted by `_key`; no columns where there never was a row.
        """
        rows = merged(self.tables([piece.open() for piece in self.pieces()]), self.spec.key)
        if keys is not None and rows.num_columns:
            rows = rows.filter(pc.is_in(rows.column(KEY), keys))
        return self.filled(rows)

    def load(self) -> pa.Table:
        """Return the rows that were asked for as their source knows them: the collection's columns.

        Where keys are written out, only what can hold them is read.
        """
        return self.narrowed(from_normal(self.merged()))

    @cached_property
    def wanted(self) -> WantedKeys | None:
        """The `_key`s that the rows which were asked for can have; None where all rows have to be looked at."""
        if self.selection is None or not self.selection.keys:
            return None
        segments = self.chain.segments(self.collection.name, self.part.number)
        return wanted_keys(self.selection, self.spec, [segment for _, _, segment in segments])

    def whole(self) -> RestorePart:
        """Return the same part, of which all rows are read whatever was asked for."""
        part = RestorePart(self.chain, self.collection, self.part, self.selection, self._source)
        part.__dict__["wanted"] = None
        return part

    def matches(self, key: str, rows: pa.Table) -> bool:
        """Tell whether a key glob, as a person types it, is meant for one of some rows.

        Args:
            key: The glob.
            rows: Rows as their source knows them: the collection's columns.
        """
        meant = Selection(keys=(key,)).meant_for(self.spec.key, self.spec.label)
        return bool(rows.num_rows and meant.rows(rows, self.spec.label).num_rows)

    def narrowed(self, rows: pa.Table) -> pa.Table:
        """Keep the rows that were asked for and that the plan covers; rows without columns are none.

        Args:
            rows: Rows as their source knows them: the collection's columns.
        """
        if not rows.num_columns:
            return rows
        if self.selection is not None:
            rows = self.selection.rows(rows, self.spec.label)
        covered = self._source.covered(self.spec, rows) if self._source is not None else None
        return rows if covered is None else rows.filter(covered)

    def __str__(self) -> str:
        """Name the part as people see it in the UI and in errors."""
        return f"{self.collection.name}#{self.part.number}"
