"""A chain of backups opened for reading: the full at its bottom, the wanted backup on top."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import pyarrow as pa

from blocks.host.memory import KEPT_BYTES, give_back
from blocks.records import Collection, Part
from blocks.rows.key_range import check_range
from blocks.rows.merge import merged
from blocks.rows.normalize import from_normal
from blocks.rows.row_groups import checked_order
from blocks.rows.selection import Selection
from blocks.sources.source import StateSource
from flows.pipeline.chain_segments import ChainSegments
from flows.pipeline.lookup import rows_of, wanted_keys
from flows.pipeline.messages import AnyPiece, FoundRows, Opened, spec_of

_LARGE_BYTES = 128 * 1024 * 1024
"""Rows of a part that is larger than parts are made: one wide key of Redis, one large row."""


class Chain(ChainSegments):
    """A backup and those it depends on, taken apart into the parts that a restore, a verification or a look brings up.

    Arguments, attributes and errors are those of `ChainSegments`.
    """

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

    def pieces(self) -> list[AnyPiece]:
        """Fetch the sealed data of the part, oldest first; where keys are written out, the rows of these."""
        if self.wanted is None:
            return [*self.chain.pieces(self.collection.name, self.part.number)]
        found = rows_of(self.chain, self.collection.name, self.part.number, self.wanted, self.spec)
        return [FoundRows(rows) for rows in found]

    def check_lookups(self, opened: Sequence[Opened], tables: Sequence[pa.Table]) -> None:
        """Check what a lookup of single records believes of the part's segments.

        Args:
            opened: The data of each segment, oldest first.
            tables: The rows of each: `_key` (large_binary; set for tombstones only) and the canonical columns.

        Raises:
            CorruptionDetected: A segment holds rows that a lookup would not find.
        """
        stored = self.chain.segments(self.collection.name, self.part.number)
        kept_bytes = 0 if sum(rows.nbytes for rows in tables) > _LARGE_BYTES else KEPT_BYTES
        give_back(kept_bytes)  # what reading the rows left, before their keys come
        for (_, _, segment), one, rows in zip(stored, opened, tables, strict=True):
            if segment.key_range is not None and rows.num_rows:
                whole = one.data if one.place is None else None
                keys = checked_order(whole, rows, self.spec.key, one.name)
                check_range(segment.key_range, keys, rows, self.spec.key, self.chain.digest, one.name)
                del keys
        give_back(kept_bytes)  # and that, before the index comes

    def merged(self) -> pa.Table:
        """Fetch the segments and lay them over each other, all stages in one call, for what compares and reads.

        Returns:
            `_key` (large_binary) and the canonical columns, sorted by `_key`; no columns where there never was a row.
        """
        return merged([piece.open().rows() for piece in self.pieces()], self.spec.key)

    def load(self) -> pa.Table:
        """Return the rows that were asked for as their source knows them: the collection's columns.

        Where keys are written out, only what can hold them is read.
        """
        return self.narrowed(from_normal(self.merged()))

    @cached_property
    def wanted(self) -> list[bytes] | None:
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
