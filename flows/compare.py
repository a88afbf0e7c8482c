"""What changed between two backups, down to the field.

Indexes tell which keys were added, removed or changed; rows are read only of parts that hold such keys. Where both
backups share their part boundaries, part is compared with part. Elsewhere a row may have moved to another part, so each
part is compared with all parts whose keys can overlap its own, one at a time: memory holds a few parts, however many
there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from blocks.canonical import KEY, PartIndex, merge_indexes
from blocks.manifest import Collection
from blocks.selection import Selection, label_text
from blocks.variant import Scalar, decode_variant, is_variant
from flows.chain import Chain
from flows.parcel import RestorePart
from flows.stages.compress import from_parquet
from flows.stages.diff import merged
from flows.stages.encrypt import open_piece
from flows.stages.normalize import from_normal

INDEXES_KEPT = 6
"""Indexes of parts that are held while their neighbours are compared."""


class ChangeKind(StrEnum):
    """What happened to a row from the first backup to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Absent:
    """Stands for the value of a field where the row, or the column, is not there; NULL is a value."""


ABSENT = Absent()

Value = object
"""A value as Arrow gives it to Python, or ABSENT."""


@dataclass(frozen=True)
class FieldChange:
    """One field of one row, before and after."""

    name: str
    old: Value
    new: Value


@dataclass(frozen=True)
class RowChange:
    """One row that is not the same in both backups; the label is its key as a person types it."""

    kind: ChangeKind
    label: str
    key: dict[str, Value]
    fields: tuple[FieldChange, ...]


@dataclass
class CollectionDiff:
    """How one collection differs; the counts are of all rows, the changes are the first ones.

    Attributes:
        only_in: The id of the backup that alone has the collection, or None.
    """

    collection: str
    only_in: str | None
    counts: dict[ChangeKind, int] = field(default_factory=lambda: dict.fromkeys(ChangeKind, 0))
    changes: list[RowChange] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Rows that are not the same."""
        return sum(self.counts.values())


def compare_backups(
    before: Chain, after: Chain, selection: Selection, limit: int | None = None
) -> Iterator[CollectionDiff]:
    """Compare the selected collections of two backups of one repository.

    Args:
        before: The first backup.
        after: The second backup.
        selection: Collections and keys to look at.
        limit: How many changed rows to bring along for each collection; None for all.

    Raises:
        CorruptionDetected: An object of one of the backups is damaged.
        WrongKey: Rows are asked for with a writer's credential.
    """
    old = {c.name: c for c in before.target.collections if selection.has_collection(c.name)}
    new = {c.name: c for c in after.target.collections if selection.has_collection(c.name)}
    for name in dict.fromkeys([*old, *new]):
        sides = (_Side(before, old.get(name)), _Side(after, new.get(name)))
        only_in = None if name in old and name in new else (before if name in old else after).target.backup_id
        yield _Comparison(name, *sides, selection, limit, only_in).run()


class _Side:
    """One collection in one of the two backups; without parts where the backup lacks the collection."""

    def __init__(self, chain: Chain, collection: Collection | None) -> None:
        self.chain = chain
        self.collection = collection
        self.parts = [RestorePart(chain, collection, p, None) for p in collection.parts] if collection else []
        self.index = lru_cache(INDEXES_KEPT)(self._index)

    def _index(self, number: int) -> PartIndex:
        assert self.collection is not None
        return self.chain.index(self.collection.name, self.parts[number].part.number)

    def stored(self, number: int) -> list[str]:
        """Name the objects a part is made of: equal lists mean equal rows."""
        part = self.parts[number]
        found = self.chain.segments(part.collection.name, part.part.number)
        return [f"{backup.backup_id}/{segment.data.name}" for backup, _, segment in found]

    def range(self, number: int) -> tuple[bytes, bytes] | None:
        """Return the least and the greatest key of a part; None where it is empty."""
        keys = self.index(number).keys
        if not len(keys):
            return None
        bounds = pc.min_max(keys)
        return bounds["min"].as_py(), bounds["max"].as_py()

    def rows(self, number: int, keys: pa.Array) -> pa.Table:
        """Read the rows of a part that have one of the keys, with `_key` in front, sorted by it."""
        part = self.parts[number]
        tables = [from_parquet(open_piece(piece), piece.name) for piece in self.chain.pieces(part)]
        rows = merged(tables, part.spec.key)
        return rows.filter(pc.is_in(rows.column(KEY), keys)) if rows.num_columns else rows


class _Comparison:
    """The comparison of one collection."""

    def __init__(
        self, name: str, old: _Side, new: _Side, selection: Selection, limit: int | None, only_in: str | None
    ) -> None:
        self._old, self._new, self._limit = old, new, limit
        self._keys = Selection(keys=selection.keys)
        self._result = CollectionDiff(name, only_in)
        known = new.collection or old.collection
        assert known is not None
        self._key, self._label, self._tracking = known.key, known.label, set(known.tracking)

    def run(self) -> CollectionDiff:
        """Compare."""
        if self._same_parts():
            for number in range(len(self._old.parts)):
                if self._old.stored(number) != self._new.stored(number):
                    self._compare([number], [number])
        else:
            self._compare(range(len(self._old.parts)), range(len(self._new.parts)))
        return self._result

    def _same_parts(self) -> bool:
        old, new = ([(p.part.number, p.part.bounds) for p in side.parts] for side in (self._old, self._new))
        return old == new

    def _compare(self, olds: Sequence[int], news: Sequence[int]) -> None:
        """Compare some parts of both sides; every key of one side is looked for in all of the other's that overlap."""
        together = len(olds) == len(news) == 1
        old_ranges = {n: None if together else self._old.range(n) for n in olds}
        new_ranges = {n: None if together else self._new.range(n) for n in news}
        for n in olds:
            near = [m for m in news if together or _overlap(old_ranges[n], new_ranges[m])]
            gone = self._old.index(n).keys
            for m in near:
                before, after = self._old.index(n), self._new.index(m)
                found = pc.index_in(before.keys, after.keys)
                different = pc.fill_null(pc.not_equal(before.digests, after.digests.take(found)), False)
                self._changed(n, m, before.keys.filter(different))
                gone = gone.filter(pc.invert(pc.is_in(gone, after.keys)))
            self._one_sided(ChangeKind.REMOVED, self._old, n, gone)
        for m in news:
            fresh = self._new.index(m).keys
            for n in olds:
                if together or _overlap(old_ranges[n], new_ranges[m]):
                    fresh = fresh.filter(pc.invert(pc.is_in(fresh, self._old.index(n).keys)))
            self._one_sided(ChangeKind.ADDED, self._new, m, fresh)

    def _one_sided(self, kind: ChangeKind, side: _Side, number: int, keys: pa.Array) -> None:
        if not len(keys):
            return
        if not self._wants_rows():
            self._result.counts[kind] += len(keys)
            return
        rows = self._selected(side.rows(number, keys))
        self._result.counts[kind] += rows.num_rows
        for record in self._records(rows.slice(0, self._room())):
            sides = [(record.get(name, ABSENT), ABSENT) for name in record]
            fields = (
                FieldChange(name, *(pair if kind is ChangeKind.REMOVED else pair[::-1]))
                for name, pair in zip(record, sides, strict=True)
                if name not in self._tracking and name != KEY and name != _LABEL
            )
            self._keep(kind, record, tuple(fields))

    def _changed(self, n: int, m: int, keys: pa.Array) -> None:
        if not len(keys):
            return
        # a column that only tracks changes may differ where nothing did that a person would call a change
        if not self._tracking and not self._wants_rows():
            self._result.counts[ChangeKind.CHANGED] += len(keys)
            return
        after = self._selected(self._new.rows(m, keys))
        before = self._old.rows(n, after.column(KEY)) if after.num_rows else after
        for old, new in zip(_batches(before), _batches(after), strict=True):
            for was, now in zip(self._records(old), self._records(new), strict=True):
                self._compare_records(was, now)

    def _compare_records(self, was: dict[str, Value], now: dict[str, Value]) -> None:
        names = [name for name in dict.fromkeys([*now, *was]) if name not in self._tracking | {KEY, _LABEL}]
        pairs = ((name, was.get(name, ABSENT), now.get(name, ABSENT)) for name in names)
        fields = tuple(FieldChange(*pair) for pair in pairs if not _same(pair[1], pair[2]))
        if fields:
            self._result.counts[ChangeKind.CHANGED] += 1
            if self._room():
                self._keep(ChangeKind.CHANGED, now, fields)

    def _wants_rows(self) -> bool:
        return bool(self._keys.keys) or self._room() != 0

    def _room(self) -> int | None:
        return None if self._limit is None else max(self._limit - len(self._result.changes), 0)

    def _selected(self, rows: pa.Table) -> pa.Table:
        return self._keys.rows(rows, self._label) if rows.num_columns else rows

    def _records(self, rows: pa.Table) -> Iterator[dict[str, Value]]:
        if not rows.num_rows:
            return
        plain = from_normal(rows)
        columns = {name: _values(plain, name) for name in plain.column_names}
        columns[_LABEL] = [_text(value) for value in label_text(plain, self._label).to_pylist()]
        for row in range(plain.num_rows):
            yield {name: values[row] for name, values in columns.items()}

    def _keep(self, kind: ChangeKind, record: dict[str, Value], fields: tuple[FieldChange, ...]) -> None:
        key = {name: record.get(name, ABSENT) for name in self._key}
        self._result.changes.append(RowChange(kind, str(record[_LABEL]), key, fields))


_LABEL = "\0label"
"""Beside the columns of a record; no column of a database has a NUL in its name."""


def _batches(rows: pa.Table) -> Iterator[pa.Table]:
    # rows become Python objects only some at a time
    for start in range(0, rows.num_rows, 1000):
        yield rows.slice(start, 1000)


def _overlap(one: tuple[bytes, bytes] | None, other: tuple[bytes, bytes] | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def _values(rows: pa.Table, name: str) -> list[Scalar]:
    column = rows.column(name)
    return decode_variant(column) if is_variant(rows.schema.field(name)) else column.to_pylist()


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)  # noqa: PLR0124  NaN is the same as NaN
    return type(one) is type(other) and one == other


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")
