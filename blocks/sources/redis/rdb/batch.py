"""The rows of some thousand keys that stand in an RDB one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from blocks.sources.redis.grouping import MOST_OWNERS, Bytes, Ints, Mask, offsets
from blocks.sources.redis.rdb.cursor import Cursor
from blocks.sources.redis.rdb.layout import COMPRESSED, ONE_STRING, PACKED, PADDING, TYPES, Kind, damaged
from blocks.sources.redis.rdb.listpacks import Items, intset_items, listpack_items
from blocks.sources.redis.rdb.narrow import canonical, few_bytes, few_elements, values
from blocks.sources.redis.rdb.objects import ObjectReader
from blocks.sources.redis.rdb.records import Records, records_at
from blocks.sources.redis.rdb.strings import Strings, strings_at, texts_of, unpacked_texts
from blocks.sources.redis.rows import RowBuilder, byte_strings

_MOST_RECORDS = MOST_OWNERS
_MAY_BE_LARGE = np.array(sorted(ONE_STRING), np.uint8)
_MOST_BYTES = 32 * 1024 * 1024
"""How large the rows of a batch become at most, but for a single value: what is compressed may be larger by far."""

Wanted = Callable[[Sequence[bytes]], list[bool]]
"""Tells which keys are to be read, by their names."""


class BatchReader:
    """Reads records.

    Args:
        moment_ms: What expired before is left out, in milliseconds since 1970.
        wanted: Which keys are to be read; all of them where it is None.
    """

    def __init__(self, moment_ms: int, wanted: Wanted | None) -> None:
        self._moment, self._wanted = moment_ms, wanted

    def tables(self, data: bytes, starts: list[int]) -> Iterator[pa.Table]:
        """Yield the rows of records; data that is not of them may follow.

        Raises:
            SourceUnavailable: A record is damaged.
        """
        array = np.frombuffer(data + PADDING, np.uint8)
        steps = -(-len(starts) // _MOST_RECORDS)
        for some in np.array_split(np.array(starts, np.int64), steps):
            with _values_are_sound():
                records = self._chosen(array, records_at(array, some))
                parts = list(_parted(array, records))
            for part in parts:
                with _values_are_sound():
                    table = _Batch(data, array, self._moment).table(part)
                yield table

    def _chosen(self, data: Bytes, records: Records) -> Records:
        records = records.some(~records.expiring | (records.expiries >= self._moment))
        if self._wanted is None:
            return records
        return records.some(np.array(self._wanted(byte_strings(texts_of(data, records.keys))), np.bool_))


@contextmanager
def _values_are_sound() -> Iterator[None]:
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
    def __init__(self, data: bytes, array: Bytes, moment_ms: int) -> None:
        self._data, self._array = data, array
        self._rows = RowBuilder()
        self._objects = ObjectReader(self._rows, moment_ms)

    def table(self, records: Records) -> pa.Table:
        left = np.ones(len(records.kinds), np.bool_)
        readers: tuple[tuple[Kind, Callable[[Kind, Records], None]], ...] = (
            (Kind.STRING, self._strings),
            (Kind.HASH_LISTPACK, self._listpacks),
            (Kind.ZSET_LISTPACK, self._listpacks),
            (Kind.SET_LISTPACK, self._listpacks),
            (Kind.SET_INTS, self._intsets),
            (Kind.LIST, self._lists),
        )
        for kind, read in readers:
            chosen = records.kinds == kind
            if kind == Kind.LIST:
                chosen &= _single_nodes(self._array, records.values)
            if chosen.any():
                read(kind, records.some(chosen))
                left &= ~chosen
        if left.any():
            self._others(records.some(left))
        return self._rows.table()

    def _strings(self, kind: Kind, records: Records) -> None:
        texts = texts_of(self._array, strings_at(self._array, records.values))
        self._rows.columns(texts_of(self._array, records.keys), TYPES[kind], texts, records.expires_ms())

    def _listpacks(self, kind: Kind, records: Records) -> None:
        self._packed(kind, records, strings_at(self._array, records.values), listpack_items)

    def _intsets(self, kind: Kind, records: Records) -> None:
        self._packed(kind, records, strings_at(self._array, records.values), intset_items)

    def _lists(self, kind: Kind, records: Records) -> None:
        self._packed(kind, records, strings_at(self._array, records.values + 2), listpack_items)

    def _packed(
        self, kind: Kind, records: Records, strings: Strings, take: Callable[[Bytes, Ints, Ints], Items]
    ) -> None:
        """Read containers each of which is one string."""
        plain = ~strings.compressed
        if plain.any():
            some = strings.some(plain)
            self._containers(TYPES[kind], records.some(plain), take(self._array, some.begins, some.ends))
        if not plain.all():
            texts = unpacked_texts(self._array, strings.some(~plain))
            bounds = offsets(texts)
            data = np.frombuffer(b"".join([memoryview(texts.buffers()[2]), PADDING]), np.uint8)
            self._containers(TYPES[kind], records.some(~plain), take(data, bounds[:-1], bounds[1:]))

    def _containers(self, kind: str, records: Records, items: Items) -> None:
        few = few_elements(items, kind) & (items.counts > 0)
        self._one_by_one(kind, records, items, np.flatnonzero(~few))
        records, items = records.some(few), canonical(items.some(few), kind)
        small = few_bytes(items)
        self._one_by_one(kind, records, items, np.flatnonzero(~small))
        records, items = records.some(small), items.some(small)
        if len(records.kinds):
            keys = texts_of(self._array, records.keys)
            self._rows.columns(keys, kind, values(items), records.expires_ms())

    def _one_by_one(self, kind: str, records: Records, items: Items, which: Ints) -> None:
        keys = byte_strings(texts_of(self._array, records.keys.some(which)))
        for n, key in zip(which.tolist(), keys, strict=True):
            self._objects.add(key, kind, records.expiry(n), items.of(n), {})

    def _others(self, records: Records) -> None:
        keys = byte_strings(texts_of(self._array, records.keys))
        for n, (key, at) in enumerate(zip(keys, records.values.tolist(), strict=True)):
            self._objects.read(key, Kind(records.kinds[n]), records.expiry(n), Cursor(self._data, at))


def _single_nodes(data: Bytes, values: Ints) -> Mask:
    """Tell which lists are one listpack."""
    found: Mask = (data[values] == 1) & (data[values + 1] == PACKED)
    return found
