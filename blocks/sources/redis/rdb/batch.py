"""The rows of some thousand keys that stand in an RDB one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.cursor import Cursor
from blocks.sources.redis.rdb.items import Items
from blocks.sources.redis.rdb.layout import COMPRESSED, ONE_STRING, PACKED, PADDING, TYPES, Kind, damaged, milliseconds
from blocks.sources.redis.rdb.listpacks import intset_items, listpack_items
from blocks.sources.redis.rdb.narrow import canonical, few_bytes, few_elements, values
from blocks.sources.redis.rdb.objects import ObjectReader
from blocks.sources.redis.rdb.records import Records, records_at
from blocks.sources.redis.rdb.scan import Found
from blocks.sources.redis.rdb.strings import strings_at, texts_of
from blocks.sources.redis.rdb.tables import TableReader, packed_items
from blocks.sources.redis.read.grouping import MOST_OWNERS, Bytes, Ints, Mask
from blocks.sources.redis.rows import RowBuilder, byte_strings

_MOST_RECORDS = MOST_OWNERS
_MAY_BE_LARGE = np.array(sorted(ONE_STRING), np.uint8)
_MOST_BYTES = 32 * 1024 * 1024
"""How large the rows of a batch become at most, but for a single value: what is compressed may be larger by far."""

Wanted = Callable[[Sequence[bytes]], list[bool]]
"""Returns which keys are to be read, by their names."""


class BatchReader:
    """Reads records.

    Args:
        moment_ms: What expired before is left out, in milliseconds since 1970.
        wanted: Which keys are to be read; all of them where it is None.
    """

    def __init__(self, moment_ms: int, wanted: Wanted | None) -> None:
        self._moment, self._wanted = moment_ms, wanted

    def tables(self, data: bytes, found: Found) -> Iterator[pa.Table]:
        """Yield the rows of records; data that is not of them may follow.

        Raises:
            SourceUnavailable: A record is damaged.
        """
        array = np.frombuffer(data + PADDING, np.uint8)
        steps = -(-len(found.starts) // _MOST_RECORDS)
        for some in np.array_split(np.array(found.starts, np.int64), steps):
            with values_are_sound():
                records = self._chosen(array, records_at(array, some))
                parts = list(_parted(array, records))
            for part in parts:
                with values_are_sound():
                    table = _Batch(data, array, found.ends, self._moment).table(part)
                yield table

    def _chosen(self, data: Bytes, records: Records) -> Records:
        records = records.some(~records.expiring | (records.expiries >= self._moment))
        if self._wanted is None:
            return records
        return records.some(np.array(self._wanted(byte_strings(texts_of(data, records.keys))), np.bool_))


@contextmanager
def values_are_sound() -> Iterator[None]:
    """Translate what a value leads to that no server would have written: a score that is no number, say."""
    try:
        yield
    except (ArithmeticError, LookupError, ValueError, pa.ArrowException) as exc:
        raise damaged(f"a value cannot be read ({exc})") from exc


def _parted(data: Bytes, records: Records) -> Iterator[Records]:
    """Part records so that each part's values are not too large: those that are compressed may be."""
    packed = np.flatnonzero(np.isin(records.kinds, _MAY_BE_LARGE) & (data[records.values] == COMPRESSED))
    sizes = np.zeros(len(records.kinds), np.int64)
    sizes[packed] = strings_at(data, records.values[packed]).texts
    if sizes.sum() <= _MOST_BYTES:
        yield records
        return
    parts = np.cumsum(sizes) // _MOST_BYTES
    for part in np.unique(parts):
        yield records.some(parts == part)


class _Batch:
    def __init__(self, data: bytes, array: Bytes, ends: dict[int, int], moment_ms: int) -> None:
        self._data, self._array, self._ends = data, array, ends
        self._rows = RowBuilder()
        self._objects = ObjectReader(self._rows, moment_ms)
        self._tables = TableReader(data, array)

    def table(self, records: Records) -> pa.Table:
        readers: dict[Kind, Callable[[Kind, Records], None]] = {
            Kind.STRING: self._strings,
            Kind.HASH_LISTPACK: self._listpacks,
            Kind.ZSET_LISTPACK: self._listpacks,
            Kind.SET_LISTPACK: self._listpacks,
            Kind.SET_INTS: self._intsets,
            Kind.LIST: self._lists,
            Kind.HASH: self._strings_of,
            Kind.SET: self._strings_of,
            Kind.ZSET: self._scored,
            Kind.HASH_LISTPACK_EXPIRING: self._timed,
            Kind.HASH_EXPIRING: self._one_by_one,
            Kind.STREAM_2: self._one_by_one,
            Kind.STREAM_3: self._one_by_one,
        }
        for kind in np.unique(records.kinds).tolist():
            readers[Kind(kind)](Kind(kind), records.some(records.kinds == kind))
        return self._rows.table()

    def _strings(self, kind: Kind, records: Records) -> None:
        texts = texts_of(self._array, strings_at(self._array, records.values))
        self._rows.columns(texts_of(self._array, records.keys), TYPES[kind], texts, records.expires_ms())

    def _listpacks(self, kind: Kind, records: Records) -> None:
        strings = strings_at(self._array, records.values)
        self._containers(TYPES[kind], records, packed_items(self._array, strings, listpack_items))

    def _intsets(self, kind: Kind, records: Records) -> None:
        strings = strings_at(self._array, records.values)
        self._containers(TYPES[kind], records, packed_items(self._array, strings, intset_items))

    def _lists(self, kind: Kind, records: Records) -> None:
        single = _single_nodes(self._array, records.values)
        some, others = records.some(single), records.some(~single)
        if len(some.kinds):
            strings = strings_at(self._array, some.values + 2)
            self._containers(TYPES[kind], some, packed_items(self._array, strings, listpack_items))
        if len(others.kinds):
            self._containers(TYPES[kind], others, self._tables.lists(others.values, self._ends_of(others)))

    def _strings_of(self, kind: Kind, records: Records) -> None:
        width = 2 if kind == Kind.HASH else 1
        self._containers(TYPES[kind], records, self._tables.strings(records.values, self._ends_of(records), width))

    def _scored(self, kind: Kind, records: Records) -> None:
        self._containers(TYPES[kind], records, self._tables.scored(records.values, self._ends_of(records)))

    def _timed(self, kind: Kind, records: Records) -> None:
        # before the listpack stands the first of the times that are in it
        strings = strings_at(self._array, records.values + milliseconds.size)
        items = packed_items(self._array, strings, listpack_items)
        for n, key in enumerate(self._keys(records)):
            self._objects.add_timed(key, records.expiry(n), items.of(n))

    def _one_by_one(self, kind: Kind, records: Records) -> None:
        for n, (key, at) in enumerate(zip(self._keys(records), records.values.tolist(), strict=True)):
            self._objects.read(key, kind, records.expiry(n), Cursor(self._data, at))

    def _ends_of(self, records: Records) -> Ints:
        return np.array([self._ends[start] for start in records.starts.tolist()], np.int64)

    def _keys(self, records: Records) -> list[bytes]:
        return byte_strings(texts_of(self._array, records.keys))

    def _containers(self, kind: str, records: Records, items: Items) -> None:
        """Add the rows of containers: of narrow ones at once, of wide ones one by one; empty ones are none."""
        few = few_elements(items, kind) & (items.counts > 0)
        self._wide(kind, records, items, ~few)
        records, items = records.some(few), canonical(items.some(few), kind)
        small = few_bytes(items)
        self._wide(kind, records, items, ~small)
        records, items = records.some(small), items.some(small)
        if len(records.kinds):
            keys = texts_of(self._array, records.keys)
            self._rows.columns(keys, kind, values(items), records.expires_ms())

    def _wide(self, kind: str, records: Records, items: Items, chosen: Mask) -> None:
        if not chosen.any():
            return
        some = records.some(chosen)
        for n, (key, number) in enumerate(zip(self._keys(some), np.flatnonzero(chosen).tolist(), strict=True)):
            self._objects.add(key, kind, some.expiry(n), items.of(number), {})


def _single_nodes(data: Bytes, values: Ints) -> Mask:
    """Return which lists are one listpack."""
    found: Mask = (data[values] == 1) & (data[values + 1] == PACKED)
    return found
