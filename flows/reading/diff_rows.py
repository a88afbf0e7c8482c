"""One side of a comparison: a collection in one backup, its indexes, and the rows of a few keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from blocks.records import Blob, Collection
from blocks.rows.canonical import KEY, one_chunk
from blocks.rows.index import PartIndex
from blocks.rows.keys import no_keys
from blocks.rows.normalize import from_normal
from blocks.rows.selection import Selection, label_text
from blocks.rows.variant import Scalar, decode_variant, is_variant
from flows.pipeline.chain import Chain, RestorePart

INDEXES_KEPT = 6
"""Indexes of parts that are held while their neighbours are compared."""

BATCH_BYTES = 8 * 1024 * 1024
"""Arrow bytes of the rows that are Python objects at once."""

Value = object
"""A value of a field as Arrow gives it to Python."""


class ChangeKind(StrEnum):
    """What happened to a row from the first backup to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class Record:
    """One row: its key as a person types it, and its fields."""

    label: str
    values: dict[str, Value]


@dataclass(frozen=True)
class Rows:
    """Rows as their source knows them, with their `_key`s, sorted by these."""

    keys: pa.Array
    table: pa.Table

    def selected(self, selection: Selection, label: tuple[str, ...]) -> Rows:
        """Keep the rows whose label is selected."""
        mask = selection.mask(self.table, label) if self.table.num_columns else None
        if mask is None:
            return self
        flat = mask.combine_chunks() if isinstance(mask, pa.ChunkedArray) else mask
        return Rows(self.keys.filter(flat), self.table.filter(flat))

    def first(self, count: int | None) -> Rows:
        """Keep the first rows; None keeps all."""
        return self if count is None else Rows(self.keys.slice(0, count), self.table.slice(0, count))

    def records(self, label: tuple[str, ...]) -> Iterator[Record]:
        """Yield the rows as Python objects, a batch at a time."""
        table = self.table
        if not len(self.keys):
            return
        step = max(BATCH_BYTES // max(table.nbytes // table.num_rows, 1), 1)
        for start in range(0, table.num_rows, step):
            batch = table.slice(start, step)
            labels = label_text(batch, label).to_pylist()
            columns = [_values(batch, name) for name in batch.column_names]
            for text, *values in zip(labels, *columns, strict=True):
                yield Record(_text(text), dict(zip(batch.column_names, values, strict=True)))


class Side:
    """One collection in one of the two backups; without parts where the backup lacks the collection.

    Args:
        chain: The chain of the backup, opened for reading.
        collection: The collection, as the backup's manifest has it.
        keys: Those of which the rows are looked up, so that nothing is known of others; None for all rows.
    """

    def __init__(self, chain: Chain, collection: Collection | None, keys: Selection | None = None) -> None:
        self.chain, self._collection, self._keys = chain, collection, keys
        self.parts = [RestorePart(chain, collection, p, keys) for p in collection.parts] if collection else []
        self.index = lru_cache(INDEXES_KEPT)(self._index)

    def looking_up(self, keys: Selection) -> Side:
        """Return the same side, of which only the rows of some keys are read."""
        return Side(self.chain, self._collection, keys)

    def finds(self, keys: Sequence[str]) -> bool:
        """Look rows up; return whether that can be done, and whether there are some for each of the keys.

        Args:
            keys: As a person types them.
        """
        if any(part.wanted is None and self.objects(number) for number, part in enumerate(self.parts)):
            return False
        left = [*keys]
        for part in self.parts:
            rows = from_normal(part.merged())
            left = [key for key in left if not part.matches(key, rows)]
        return not left

    def _index(self, number: int) -> PartIndex:
        part = self.parts[number]
        if self._keys is None:
            return self.chain.index(part.collection.name, part.part.number)
        rows = part.merged()
        if not rows.num_columns:
            return PartIndex([])
        return PartIndex.of(one_chunk(rows.column(KEY)), self.chain.digest(rows.drop_columns([KEY])))

    def objects(self, number: int) -> list[str]:
        """Name the objects a part is made of: equal names mean equal rows."""
        part = self.parts[number]
        found = self.chain.segments(part.collection.name, part.part.number)
        return [f"{backup.backup_id}/{_place(segment.data)}" for backup, _, segment in found]

    def key_range(self, number: int) -> tuple[bytes, bytes] | None:
        """Return the least and the greatest key of a part; None where it is empty."""
        keys = self.index(number).keys
        if not len(keys):
            return None
        bounds = pc.min_max(keys)
        return bounds["min"].as_py(), bounds["max"].as_py()

    def rows(self, number: int, keys: pa.Array) -> Rows:
        """Read the rows of a part that have one of the keys."""
        part = self.parts[number]
        wanted = part.merged(keys)
        if not wanted.num_columns:
            return Rows(no_keys(), wanted)
        return Rows(wanted.column(KEY).combine_chunks(), from_normal(wanted))


def _place(blob: Blob) -> str:
    return f"{blob.name} {blob.offset} {blob.shared}"


def same_value(one: Value, other: Value) -> bool:
    """Return whether two values are the same; 1 and 1.0 are not, NaN and NaN are."""
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    return type(one) is type(other) and one == other


def _values(rows: pa.Table, name: str) -> list[Scalar]:
    column = rows.column(name)
    return decode_variant(column) if is_variant(rows.schema.field(name)) else column.to_pylist()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
