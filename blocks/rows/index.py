"""What a chain holds of one part: the indexes of its backups, laid over each other.

An index table has the columns `_key` (large_binary), `_digest` (uint64) and `_deleted` (bool): one row for each upsert
and for each tombstone (`_deleted`, with the digest 0) of a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import DIGEST, KEY, escape, first_not_below, is_sorted, newest, one_chunk, to_canonical
from blocks.rows.digest import RowDigest
from blocks.rows.keys import beneath_folders, encode_keys, no_keys, under_parents
from blocks.rows.overlay import DELETED, laid_over

INDEX_ROW_BYTES = 8
"""Least that a stored index takes for a record: its digest, which does not compress."""

_BLOCK_KEYS = 1 << 18
"""Ascending keys that are looked for at once."""

_MANY = 4
"""How many times more keys there have to be on one side for the other to be taken for few."""


class PartIndex:
    """The keys and digests of the records of one part as a chain holds them, without those that were deleted.

    The tables of a chain are merged when all keys are asked for. `find` looks into each of them instead: the lowest
    has a row for every record, and to merge a few changes into it takes longer than to look for some keys.

    Args:
        layers: Index tables, the oldest first.
        rows: How many records there are, if the caller knows; else they are counted when `len` is asked for.
    """

    def __init__(self, layers: Sequence[pa.Table], rows: int | None = None) -> None:
        bottom, *self._upper = [*layers] or [_index_table(no_keys())]
        self._bottom, self._rows = bottom.combine_chunks(), rows

    @classmethod
    def of(cls, keys: pa.LargeBinaryArray, digests: pa.UInt64Array) -> PartIndex:
        """Build an index of one layer.

        Args:
            keys: Encoded keys, no two of them the same.
            digests: The digest of each, in the same order.
        """
        return cls([_index_table(keys, digests)], len(keys))

    def __len__(self) -> int:
        """How many records there are."""
        return len(self.keys) if self._rows is None else self._rows

    @property
    def keys(self) -> pa.LargeBinaryArray:
        """The keys of all records; ascending where those of the full are."""
        return one_chunk(self._merged.column(KEY))

    @property
    def digests(self) -> pa.UInt64Array:
        """The digests of all records, in the order of `keys`."""
        return one_chunk(self._merged.column(DIGEST))

    def prepare(self) -> None:
        """Compute ahead what the first `find` needs."""
        _ = self._ascending, self._over

    def find(self, keys: pa.LargeBinaryArray) -> pa.UInt64Array:
        """Look for records.

        Args:
            keys: Encoded keys, no two of them the same.

        Returns:
            The digest of each, in the same order; NULL where there is no such record.
        """
        found = _digests_at(self._bottom, self._places(keys))
        if (over := self._over) is None:
            return found
        places = positions(keys, over.column(KEY).combine_chunks())
        return pc.if_else(places.is_valid(), _digests_at(over, places), found)

    def _places(self, keys: pa.LargeBinaryArray) -> pa.Int32Array:
        """Return where each key stands in the lowest layer, NULL where it does not."""
        few = len(keys) * _MANY < self._bottom.num_rows
        words = _words(keys) if few and self._ascending is not None else None
        if words is None or self._ascending is None or words.dtype != self._ascending.dtype:
            return positions(keys, one_chunk(self._bottom.column(KEY)))
        places = np.minimum(np.searchsorted(self._ascending, words), len(self._ascending) - 1).astype(np.int32)
        return pa.array(places, mask=self._ascending[places] != words)

    @cached_property
    def _ascending(self) -> npt.NDArray[np.bytes_] | None:
        """The keys of the lowest layer where all have the same length, as those of numbers have, and are in order."""
        words = _words(one_chunk(self._bottom.column(KEY)))
        return words if words is not None and bool((words[1:] > words[:-1]).all()) else None

    @cached_property
    def _over(self) -> pa.Table | None:
        """What lies over the lowest layer: of each key the newest entry."""
        if not self._upper:
            return None
        over = pa.concat_tables(self._upper[::-1]).combine_chunks()
        return over.take(pa.array(newest(over.column(KEY).combine_chunks())))

    @cached_property
    def _merged(self) -> pa.Table:
        merged = self._bottom
        if (over := self._over) is not None:
            if not pc.any(merged.column(DELETED)).as_py() and is_sorted(one_chunk(merged.column(KEY))):
                over = over.take(pc.sort_indices(one_chunk(over.column(KEY))))
                return laid_over(merged, over).combine_chunks()
            hidden = pc.is_in(merged.column(KEY), over.column(KEY))
            merged = pa.concat_tables([over, merged.filter(pc.invert(hidden))])
        if not pc.any(merged.column(DELETED)).as_py():
            return merged.combine_chunks()
        return merged.filter(pc.invert(merged.column(DELETED))).combine_chunks()


def _index_table(keys: pa.LargeBinaryArray, digests: pa.UInt64Array | None = None) -> pa.Table:
    deleted = pa.repeat(pa.scalar(False), len(keys))
    return pa.table({KEY: keys, DIGEST: pa.nulls(0, pa.uint64()) if digests is None else digests, DELETED: deleted})


def _digests_at(layer: pa.Table, places: pa.Int32Array) -> pa.UInt64Array:
    """Return the digests that one layer has in some places; NULL for none, and where it has a tombstone."""
    found = layer.select([DIGEST, DELETED]).take(places).combine_chunks()
    gone = pc.fill_null(found.column(DELETED), True)
    return pc.if_else(gone, pa.scalar(None, pa.uint64()), found.column(DIGEST)).combine_chunks()


def _words(keys: pa.LargeBinaryArray) -> npt.NDArray[np.bytes_] | None:
    """Look at keys as bytes of one length, without a copy; None where they differ in length."""
    offsets = np.frombuffer(keys.buffers()[1], np.int64)[keys.offset : keys.offset + len(keys) + 1]
    width = int(offsets[-1] - offsets[0]) // len(keys) if len(keys) else 0
    if not width or keys.null_count or not np.array_equal(offsets, np.arange(len(offsets)) * width + offsets[0]):
        return None
    data = np.frombuffer(keys.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return data.view(f"S{width}")


def positions(keys: pa.LargeBinaryArray, among: pa.LargeBinaryArray) -> pa.Int32Array:
    """Return for each key where it stands among others, NULL where it does not; no key comes twice on either side.

    Args:
        keys: `_key`s to look for; large_binary.
        among: `_key`s to look in; large_binary.
    """
    if len(keys) * _MANY >= len(among):
        if len(among) > _BLOCK_KEYS and is_sorted(keys) and is_sorted(among):
            return _positions_in_order(keys, among)
        return pc.index_in(keys, among)
    # a table of hashes is made of the few, and the many are only looked up in it
    places = np.flatnonzero(pc.is_in(among, keys).to_numpy(zero_copy_only=False)).astype(np.int32)
    return pa.array(places).take(pc.index_in(keys, among.take(pa.array(places))))


def _positions_in_order(keys: pa.LargeBinaryArray, among: pa.LargeBinaryArray) -> pa.Int32Array:
    """Do what `positions` does where both sides ascend: some at a time, so that no table of all hashes is made."""
    found, low = [], 0
    for start in range(0, len(among), _BLOCK_KEYS):
        block = among.slice(start, _BLOCK_KEYS)
        end = start + len(block)
        high = len(keys) if end == len(among) else first_not_below(keys, among[end].as_py(), low)
        places = pc.index_in(keys.slice(low, high - low), block)
        found.append(pc.add(places, pa.scalar(start, pa.int32())))
        low = high
    return pa.concat_arrays(found)


class PartLookup:
    """What the base holds of one part, as `View.read` is given it; `BaseLookup` describes the methods.

    Args:
        index: Returns the base's index of the part; called each time that a method needs it.
        rows: How many records the base holds of the part.
        key: Names of the collection's key columns.
        digest: Computes the digest of a row, as in the index.
        token: The token of the base's view; None if it had none.
    """

    def __init__(
        self,
        index: Callable[[], PartIndex],
        rows: int,
        key: Sequence[str],
        digest: RowDigest,
        token: str | None = None,
    ) -> None:
        self._read_index, self._key, self._digest = index, tuple(escape(name) for name in key), digest
        self.rows, self.token = rows, token

    @property
    def _index(self) -> PartIndex:
        return self._read_index()

    def prepare(self) -> None:
        """Load the base's index."""
        self._index.prepare()

    def encode(self, keys: pa.Table) -> pa.LargeBinaryArray:
        """Return the encoded key of each row of key columns.

        Args:
            keys: The key columns of the collection, as its source reads them; others may be there too.
        """
        return encode_keys(to_canonical(keys), self._key)

    def holds(self, keys: pa.Table) -> pa.BooleanArray:
        """Return for each row of key columns whether the base holds a record with that key.

        Args:
            keys: The key columns of the collection, as its source reads them; others may be there too.
        """
        return self._index.find(self.encode(keys)).is_valid()

    def same(self, rows: pa.Table) -> pa.BooleanArray:
        """Return for each row whether the base holds it with the same key and the same content.

        Args:
            rows: All columns of the collection, as its source reads them.
        """
        canonical = to_canonical(rows)
        held = self._index.find(encode_keys(canonical, self._key))
        return pc.fill_null(pc.equal(held, self._digest(canonical)), False)

    def under(self, parents: pa.Array) -> pa.LargeBinaryArray:
        """Return the encoded keys of the base whose first key column (text or binary) is one of `parents`.

        Args:
            parents: Values of the first key column: large_string or large_binary.
        """
        keys = self._index.keys
        return keys.filter(under_parents(keys, parents))

    def beneath(self, folders: pa.Array) -> pa.LargeBinaryArray:
        """Return the encoded keys of the base whose first key column is one of some paths, or lies beneath it.

        Args:
            folders: Paths of the first key column: large_string or large_binary, none of them beneath another one.
        """
        keys = self._index.keys
        return keys.filter(beneath_folders(keys, folders))
