"""Values that one backup stores once: names of one file have one content, in whichever parts they lie.

Down, `StoredOnce` puts references in the place of values that the backup holds elsewhere. Up, `filled` brings them back
before anything else sees the rows. What a reference says, and why it stays true, is described in blocks/rows/same.py.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from blocks.errors import CorruptionDetected
from blocks.records import Segment
from blocks.rows.canonical import KEY, escape, one_chunk
from blocks.rows.changes import Changes
from blocks.rows.same import (
    VALUE,
    candidates,
    fingerprints,
    references,
    told_apart,
    with_references,
    with_values,
    without_references,
)
from blocks.rows.wanted import WantedKeys
from blocks.sources.collection import CollectionSpec
from blocks.sources.reading import FullRead, Reading
from flows.pipeline.chain_segments import ChainSegments
from flows.pipeline.lookup import rows_in

_BATCH_BYTES = 16 * 1024 * 1024
"""About what is read at once of what references name."""

_Place = tuple[int, bytes]
"""Number of a part of a collection, and the `_key` of a row in it."""


class StoredOnce:
    """What one attempt at a backup holds of the values that may be there several times. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holders: dict[str, dict[bytes, _Place]] = {}
        self._followers: dict[str, dict[int, set[int]]] = {}

    def referring(self, collection: str, part: int, spec: CollectionSpec, now: Reading, changes: Changes) -> Changes:
        """Leave out the values that the backup holds elsewhere already, and remember those that it holds here.

        Args:
            collection: Full name of the collection.
            part: Number of the part.
            spec: The collection.
            now: What was read of the part, normalised.
            changes: What is stored of it.
        """
        if not isinstance(now, FullRead) or now.twins is None or not len(now.twins):
            return changes
        first = escape(spec.key[0])
        read = candidates(now.rows, now.twins, first)
        prints = fingerprints(now.rows, read)
        keys: list[bytes] = one_chunk(now.rows.column(KEY)).take(pa.array(read, pa.int64())).to_pylist()
        stored = candidates(changes.rows, now.twins, first)
        stored_keys: list[bytes] = changes.index.column(KEY).take(pa.array(stored, pa.int64())).to_pylist()
        found = self._found(collection, part, dict(zip(keys, prints, strict=True)), stored_keys)
        if not found:
            return changes
        places = {at: found[key] for at, key in zip(stored, stored_keys, strict=True) if key in found}
        rows = with_references(changes.rows, places)
        return replace(changes, rows=rows, elsewhere_bytes=max(changes.rows.nbytes - rows.nbytes, 0))

    def _found(
        self, collection: str, part: int, prints: dict[bytes, bytes], stored: Sequence[bytes]
    ) -> dict[bytes, _Place]:
        """Return by `_key` where the values of stored rows are; remember the others."""
        found: dict[bytes, _Place] = {}
        with self._guard:
            holders = self._holders.setdefault(collection, {})
            # those that are as the base has them first: it holds their values
            for key in [*(prints.keys() - set(stored)), *stored]:
                place = holders.setdefault(prints[key], (part, key))
                if place != (part, key):
                    found[key] = place
            found = {key: found[key] for key in stored if key in found}
            followers = self._followers.setdefault(collection, {})
            for number, _ in found.values():
                followers.setdefault(number, set()).add(part)
        return found

    def forget(self, collection: str, parts: Collection[int]) -> set[int]:
        """Forget what parts hold that are going to be read again; return these, and those that refer to them.

        Args:
            collection: Full name of the collection.
            parts: Their numbers.
        """
        with self._guard:
            followers, left = self._followers.get(collection, {}), list(parts)
            gone: set[int] = set()
            while left:
                number = left.pop()
                if number not in gone:
                    gone.add(number)
                    left += followers.pop(number, ())
            holders = self._holders.get(collection, {})
            for value in [value for value, (number, _) in holders.items() if number in gone]:
                del holders[value]
        return gone


def filled(
    chain: ChainSegments, collection: str, part: int, spec: CollectionSpec, rows: pa.Table, only: pa.Array | None = None
) -> pa.Table:
    """Put values in the place of references.

    Args:
        chain: The chain, opened for reading.
        collection: Full name of the collection.
        part: Number of the part that the rows are of.
        spec: The collection.
        rows: Rows that were merged out of segments with `_as_of`.
        only: Positions of the rows whose values are wanted; None for all. Others have NULL.

    Raises:
        CorruptionDetected: A reference leads nowhere.
    """
    named = references(rows)
    rows = without_references(rows)
    if only is not None and named:
        wanted = set(only.to_pylist())
        named = [one for one in named if one[0] in wanted]
    if not named:
        return rows
    found = _Values(chain, collection, spec).find(named)
    size = sum(values[at].as_buffer().size for values, at in found.values())
    if size > sum(segment.size_bytes for _, _, segment in chain.segments(collection, part)):
        raise CorruptionDetected(f"{collection}#{part}: its rows take more than the manifest says", hint=_HINT)
    return with_values(rows, found)


class _Values:
    """Looks for the values that references name."""

    def __init__(self, chain: ChainSegments, collection: str, spec: CollectionSpec) -> None:
        self._chain, self._collection, self._spec = chain, collection, spec
        self._found: dict[int, tuple[pa.Array, int]] = {}
        self._wanted: dict[tuple[int, int], dict[bytes, list[int]]] = {}

    def find(self, named: Sequence[tuple[int, int, int, bytes]]) -> dict[int, tuple[pa.Array, int]]:
        """Find by position the array that holds the value, and its place there."""
        for position, as_of, part, key in named:
            self._want(as_of, part, key, [position])
        while self._wanted:  # what is found may refer to what an earlier backup holds, and so comes to an end
            place = max(self._wanted)
            self._look(*place, self._wanted.pop(place))
        return self._found

    def _want(self, as_of: int, part: int, key: bytes, positions: list[int]) -> None:
        self._wanted.setdefault((as_of, part), {}).setdefault(key, []).extend(positions)

    def _look(self, as_of: int, part: int, wanted: dict[bytes, list[int]]) -> None:
        """Look for rows of one part as they were in one backup, in its segment and those below."""
        left = set(wanted)
        for stored in reversed(self._chain.segments(self._collection, part)):
            level = self._chain.position(stored[0])
            for some in _batches(sorted(left), stored[2]) if level <= as_of else ():
                if (found := rows_in(self._chain, stored, part, WantedKeys(frozenset(some)), self._spec)) is not None:
                    rows, keys = told_apart(found[0], level), found[1].to_pylist()
                    self._take(rows, keys, as_of, part, wanted)
                    left.difference_update(keys)
            if not left:
                return
        raise self._wrong(part, "nowhere")

    def _take(
        self, rows: pa.Table, keys: Sequence[bytes], as_of: int, part: int, wanted: dict[bytes, list[int]]
    ) -> None:
        if VALUE not in rows.column_names or rows.column(KEY).null_count < rows.num_rows:
            raise self._wrong(part, "to a row that is gone")
        further = {at: (level, number, key) for at, level, number, key in references(rows)}
        values = one_chunk(rows.column(VALUE)).cast(pa.large_binary())
        for at, key in enumerate(keys):
            if at not in further:
                if not values[at].is_valid:
                    raise self._wrong(part, "to a row without a value")
                self._found |= dict.fromkeys(wanted[key], (values, at))
            elif further[at][0] >= as_of:
                raise self._wrong(part, "to a row that is none itself")
            else:
                self._want(*further[at], wanted[key])

    def _wrong(self, part: int, where: str) -> CorruptionDetected:
        return CorruptionDetected(f"a reference to {self._collection}#{part} leads {where}", hint=_HINT)


def _batches(keys: Sequence[bytes], segment: Segment) -> Iterator[Sequence[bytes]]:
    """Yield so many keys at a time that what is read for them is small beside a part."""
    count = max(_BATCH_BYTES * max(segment.upserts, 1) // max(segment.size_bytes, 1), 1)
    for start in range(0, len(keys), count):
        yield keys[start : start + count]


_HINT = "Restore an earlier backup; `lastgood check --read-data` reports what else is damaged."
