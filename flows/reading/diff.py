"""What changed between two backups, down to the field.

Indexes show which keys were added, removed or changed; rows are read only of parts that hold such keys. Where both
backups share their part boundaries, part is compared with part. Elsewhere a row may have moved to another part, so each
part is compared with all parts whose keys overlap its own, one at a time: memory holds a few parts, however many there
are.

Where a few keys are asked for, and a lookup finds each of them on both sides, only their rows are read, and no index.
What a lookup does not find may be there all the same, so that indexes say then what is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from blocks.records import Collection
from blocks.rows.selection import Selection, is_tree
from flows.pipeline.chain import Chain
from flows.reading.diff_rows import ChangeKind, Record, Side, Value, same_value
from flows.reading.file_changes import FileChanges


class Absent:
    """Stands for the value of a field where the row or the column is not there; NULL is a value."""


ABSENT = Absent()


@dataclass(frozen=True)
class FieldChange:
    """One field of one row, before and after; ABSENT on the side that lacks it."""

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
        collection: Full name of the collection: `source/collection`.
        only_in: The id of the backup that alone has the collection, or None.
        files: Of a tree, what changed by file, of which several rows may have; None of others.
    """

    collection: str
    only_in: str | None
    files: FileChanges | None = None
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
        before: The chain of the first backup.
        after: The chain of the second backup.
        selection: Collections and keys to look at.
        limit: How many changed rows to bring along for each collection; None for all.

    Raises:
        CorruptionDetected: An object of one of the backups is damaged.
        WrongKey: The credential is a writer's, and rows have to be read.
    """
    old = {c.name: c for c in before.target.collections if selection.has_collection(c.name)}
    new = {c.name: c for c in after.target.collections if selection.has_collection(c.name)}
    for name in dict.fromkeys([*old, *new]):
        known = [c for c in (new.get(name), old.get(name)) if c is not None]
        only_in = None if len(known) == 2 else (before if name in old else after).target.backup_id
        result = CollectionDiff(name, only_in)
        sides = Side(before, old.get(name)), Side(after, new.get(name))
        _Comparison(known[0], *sides, selection.keys, limit, result).run()
        yield result


class _Comparison:
    """The comparison of one collection, which fills in its result."""

    def __init__(
        self,
        known: Collection,
        old: Side,
        new: Side,
        keys: tuple[str, ...],
        limit: int | None,
        result: CollectionDiff,
    ) -> None:
        self._collection, self._old, self._new = known, old, new
        self._keys, self._limit, self._result = keys, limit, result
        self._selection = Selection(keys=keys).meant_for(known.key, known.label)
        self._is_tree = is_tree(self._collection.key, self._collection.label)
        if self._is_tree:
            result.files = FileChanges(limit)

    def run(self) -> None:
        """Compare."""
        different = self._different_parts()
        if different and self._keys:
            sides = [side.looking_up(self._selection) for side in (self._old, self._new)]
            if all(side.finds(self._keys) for side in sides):
                self._old, self._new = sides
        for olds, news in different:
            self._compare(olds, news)

    def _different_parts(self) -> list[tuple[Sequence[int], Sequence[int]]]:
        olds, news = range(len(self._old.parts)), range(len(self._new.parts))
        if not self._same_parts():
            return [(olds, news)]
        return [([n], [n]) for n in olds if self._old.objects(n) != self._new.objects(n)]

    def _same_parts(self) -> bool:
        old, new = ([(p.part.number, p.part.bounds) for p in side.parts] for side in (self._old, self._new))
        return old == new

    def _compare(self, olds: Sequence[int], news: Sequence[int]) -> None:
        pairs = [(n, m) for n in olds for m in news]
        if len(pairs) > 1:
            ranges = {n: self._old.key_range(n) for n in olds}, {m: self._new.key_range(m) for m in news}
            pairs = [(n, m) for n, m in pairs if _overlap(ranges[0][n], ranges[1][m])]
        for n in olds:
            self._compare_part(n, [m for one, m in pairs if one == n])
        for m in news:
            near = [n for n, one in pairs if one == m]
            fresh = _without(self._new.index(m).keys, (self._old.index(n).keys for n in near))
            self._one_sided(ChangeKind.ADDED, self._new, m, fresh)

    def _compare_part(self, n: int, near: Sequence[int]) -> None:
        """Look for every key of an old part in the new parts that can hold it."""
        before = self._old.index(n)
        for m in near:
            after = self._new.index(m)
            found = pc.index_in(before.keys, after.keys)
            different = pc.fill_null(
                pc.not_equal(self._stored(before.digests), self._stored(after.digests.take(found))), False
            )
            self._changed(n, m, before.keys.filter(different))
        gone = _without(before.keys, (self._new.index(m).keys for m in near))
        self._one_sided(ChangeKind.REMOVED, self._old, n, gone)

    def _stored(self, digests: pa.UInt64Array) -> pa.UInt64Array:
        """Keep of digests what indexes of both backups have."""
        versions = {side.chain.target.format_version for side in (self._old, self._new)}
        return digests if len(versions) == 1 else pc.bit_wise_and(digests, pa.scalar(0xFFFFFFFF << 32, pa.uint64()))

    def _one_sided(self, kind: ChangeKind, side: Side, number: int, keys: pa.Array) -> None:
        if not len(keys):
            return
        if not self._needs_rows():
            self._result.counts[kind] += len(keys)
            if self._result.files is not None:
                self._result.files.count(kind, keys)
            return
        rows = side.rows(number, keys).selected(self._selection, self._collection.label)
        if self._result.files is not None and rows.table.num_columns:
            self._result.files.one_sided(kind, rows.table)
        self._result.counts[kind] += len(rows.keys)
        removed = kind is ChangeKind.REMOVED
        for record in rows.first(self._room()).records(self._collection.label):
            values = self._visible(record)
            pairs = ((name, v, ABSENT) if removed else (name, ABSENT, v) for name, v in values.items())
            self._keep(kind, record, tuple(FieldChange(*pair) for pair in pairs))

    def _changed(self, n: int, m: int, keys: pa.Array) -> None:
        if not len(keys):
            return
        # columns that only track changes may differ where nothing did that a person would call a change
        if not self._collection.tracking and not self._needs_rows():
            self._result.counts[ChangeKind.CHANGED] += len(keys)
            return
        label = self._collection.label
        after = self._new.rows(m, keys).selected(self._selection, label)
        before = self._old.rows(n, after.keys)
        for was, now in zip(before.records(label), after.records(label), strict=True):
            if self._compare_records(self._visible(was), self._visible(now), now) and self._result.files is not None:
                self._result.files.changed(was.values, now.values)

    def _compare_records(self, was: dict[str, Value], now: dict[str, Value], record: Record) -> bool:
        """Note what differs in a row; return whether anything does."""
        names = dict.fromkeys([*now, *was])
        pairs = ((name, was.get(name, ABSENT), now.get(name, ABSENT)) for name in names)
        fields = tuple(FieldChange(*pair) for pair in pairs if not self._same(pair[1], pair[2]))
        if not fields:
            return False
        self._result.counts[ChangeKind.CHANGED] += 1
        if self._room() != 0:
            self._keep(ChangeKind.CHANGED, record, fields)
        return True

    def _same(self, was: Value, now: Value) -> bool:
        # a tree has columns that earlier versions did not know, and entries that fill few of them
        if self._is_tree and (was is ABSENT or now is ABSENT):
            return was in (ABSENT, None) and now in (ABSENT, None)
        return same_value(was, now)

    def _visible(self, record: Record) -> dict[str, Value]:
        return {name: value for name, value in record.values.items() if name not in self._collection.tracking}

    def _needs_rows(self) -> bool:
        files = self._result.files
        return bool(self._selection.keys) or self._room() != 0 or (files is not None and files.room)

    def _room(self) -> int | None:
        return None if self._limit is None else max(self._limit - len(self._result.changes), 0)

    def _keep(self, kind: ChangeKind, record: Record, fields: tuple[FieldChange, ...]) -> None:
        key = {name: record.values.get(name, ABSENT) for name in self._collection.key}
        self._result.changes.append(RowChange(kind, record.label, key, fields))


def _without(keys: pa.Array, others: Iterator[pa.Array]) -> pa.Array:
    for other in others:
        keys = keys.filter(pc.invert(pc.is_in(keys, other)))
    return keys


def _overlap(one: tuple[bytes, bytes] | None, other: tuple[bytes, bytes] | None) -> bool:
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]
