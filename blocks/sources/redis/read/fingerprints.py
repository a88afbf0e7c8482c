"""What a view has read, remembered as fingerprints: a restore compares them with what is there when it writes.

A fingerprint is of all that stays of a key, or of one field that goes by itself. So a key that expired differs from
one that was written.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.digest import RowDigest
from blocks.sources.redis.net.wire import unpacked
from blocks.sources.redis.read.keys import position_of, positions_of
from blocks.sources.redis.rows import Content, RowBuilder, hash_elements
from blocks.sources.runs import Allowance, Spool

_MEMORY_BYTES = 64 * 1024 * 1024
_SKEW_MS = 5_000
"""By how much the clock of a server may be ahead of ours."""
_SCHEMA = pa.schema([("key", pa.large_binary()), ("digest", pa.uint64()), ("expires_ms", pa.int64())])

Words = npt.NDArray[np.uint64]
Times = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@runtime_checkable
class Witness(Protocol):
    """A view that remembers what it reads."""

    def remember(self, seen: Seen) -> None:
        """Put fingerprints of all that is read from now on into `seen`."""
        ...


class Fingerprints:
    """Makes fingerprints, under a key of its own."""

    def __init__(self) -> None:
        self._digest = RowDigest(secrets.token_bytes(32))

    def of(self, rows: pa.Table) -> pa.Table:
        """Return the fingerprints of whole keys, given in the form of rows.SCHEMA."""
        if not rows.num_rows:
            return _SCHEMA.empty_table()
        encoded = rows.column("key").combine_chunks().dictionary_encode()
        keys, of_key = encoded.dictionary, encoded.indices.to_numpy()
        digests = self._digest(rows).to_numpy()
        inner = _mask(rows.column("element").is_valid())
        goes = inner & _mask(rows.column("expires_ms").is_valid())
        sums = np.zeros(len(keys), np.uint64)
        np.add.at(sums, of_key[~goes], digests[~goes])
        times = pc.fill_null(rows.column("expires_ms"), -1).to_numpy()
        until = np.full(len(keys), -1, np.int64)
        until[of_key[~inner]] = times[~inner]
        if goes.any():
            _shorten(until, of_key, inner, goes, times)
        whole = _table(keys, sums, until)
        return pa.concat_tables([whole, _table(keys.take(pa.array(of_key[goes])), digests[goes], times[goes])])

    def differing(self, seen: pa.Table, rows: pa.Table, at_ms: int) -> list[bytes]:
        """Name the keys that were written since they were seen; what expired was not.

        Args:
            seen: Fingerprints with `key` (large_binary), `digest` (uint64) and `expires_ms` (int64).
            rows: The present rows of those keys, with the columns and types of rows.SCHEMA.
            at_ms: The time, in milliseconds since 1970.
        """
        differing = _differing(seen, self.of(rows), at_ms)
        if not differing or not rows.num_rows:
            return differing
        # a hash looks otherwise when the last of its fields that expire has gone
        names = pa.array(differing, pa.large_binary())
        some = _wide(rows.filter(pc.is_in(rows.column("key"), names)))
        return _differing(seen.filter(pc.is_in(seen.column("key"), names)), self.of(some), at_ms)


class Seen:
    """Fingerprints of what a view has read, by database, and of which ranges of positions. For several threads.

    Args:
        folder: Where goes what does not fit into memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._room, self._lock = folder, Allowance(_MEMORY_BYTES), Lock()
        self._spools: dict[int, Spool] = {}
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self._held: Collection[int] | None = None
        self.fingerprints = Fingerprints()

    def __len__(self) -> int:
        return sum(map(len, self._spools.values()))

    def begin(self, databases: Collection[int], *, whole: bool) -> None:
        """Say which databases a view reads, and whether there were no others."""
        self._held = list(databases) if whole else None

    def add(self, database: int, rows: pa.Table, start: int, end: int) -> None:
        """Take all rows that a database has in a range of positions."""
        found = self.fingerprints.of(rows)
        positions = positions_of(found.column("key").combine_chunks())
        with self._lock:
            self._ranges.setdefault(database, []).append((start, end))
            self._spools.setdefault(database, Spool(self._folder, self._room)).put(found, positions)

    def end(self) -> None:
        """Say that all was read."""
        for spool in self._spools.values():
            spool.end()

    def covers(self, database: int, start: int, end: int) -> bool:
        """Whether a range of positions was read as a whole, or was empty."""
        if self._held is not None and database not in self._held:
            return True
        for first, last in sorted(self._ranges.get(database, [])):
            if first > start:
                return False
            start = max(start, last)
            if start >= end:
                return True
        return False

    def covers_key(self, database: int, key: bytes) -> bool:
        """Whether a key was read, or was not there."""
        position = position_of(key)
        return self.covers(database, position, position + 1)

    def between(self, database: int, start: int, end: int) -> pa.Table:
        """Return the fingerprints of keys from one position up to before another."""
        spool = self._spools.get(database)
        slices = spool.slices(start, end) if spool is not None else []
        return pa.concat_tables(slices).combine_chunks() if slices else _SCHEMA.empty_table()

    def of(self, database: int, keys: Sequence[bytes]) -> pa.Table:
        """Return the fingerprints of some keys."""
        names = pa.array(keys, pa.large_binary())
        if not len(names):
            return _SCHEMA.empty_table()
        positions = positions_of(names)
        found = self.between(database, int(positions.min()), int(positions.max()) + 1)
        return found.filter(pc.is_in(found.column("key"), names))


def _differing(seen: pa.Table, now: pa.Table, at_ms: int) -> list[bytes]:
    before, after = _joined(seen), _joined(now)
    gone = pc.and_(
        pc.invert(pc.is_in(before, after)),
        pc.invert(pc.fill_null(pc.less_equal(seen.column("expires_ms"), at_ms + _SKEW_MS), False)),
    )
    came = pc.invert(pc.is_in(after, before))
    names = [seen.column("key").filter(gone), now.column("key").filter(came)]
    return sorted({key for column in names for key in column.to_pylist()})


def _joined(fingerprints: pa.Table) -> pa.Array:
    """Write a key and its digest as one value."""
    digests = fingerprints.column("digest").cast(pa.large_string()).cast(pa.large_binary())
    parts = [digests.combine_chunks(), fingerprints.column("key").combine_chunks()]
    return pc.binary_join_element_wise(*parts, pa.scalar(b":", pa.large_binary()))


def _shorten(until: Times, of_key: npt.NDArray[np.int32], inner: Bools, goes: Bools, times: Times) -> None:
    """Let a hash go with the last of its fields, where all of them go by themselves."""
    stays = np.zeros(len(until), np.bool_)
    stays[of_key[inner & ~goes]] = True
    last = np.full(len(until), -1, np.int64)
    np.maximum.at(last, of_key[goes], times[goes])
    alone = ~stays & (last >= 0)
    until[alone] = np.where(until[alone] < 0, last[alone], np.minimum(until[alone], last[alone]))


def _wide(rows: pa.Table) -> pa.Table:
    """Write hashes that are narrow with a row for each field."""
    narrow = pc.and_(pc.equal(rows.column("type"), "hash"), rows.column("value").is_valid())
    narrow = pc.and_(narrow, rows.column("element").is_null())
    builder = RowBuilder()
    for row in rows.filter(narrow).to_pylist():
        elements = hash_elements(unpacked(row["value"]))
        builder.add(row["key"], Content("hash", row["expires_ms"], elements))
    return pa.concat_tables([rows.filter(pc.invert(narrow)), builder.table()])


def _table(keys: pa.Array, digests: Words, until: Times) -> pa.Table:
    return pa.Table.from_arrays([keys, pa.array(digests, pa.uint64()), pa.array(until, mask=until < 0)], _SCHEMA.names)


def _mask(column: pa.ChunkedArray) -> Bools:
    return np.asarray(column.to_numpy())
