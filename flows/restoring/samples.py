"""A few of the records that a restore changes, field by field, for a person who decides whether it may."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.index import PartIndex
from blocks.rows.selection import Selection, label_text
from blocks.rows.variant import decode_variant, is_variant
from flows.pipeline.results import FieldSample, RecordSample

MOST_RECORDS = 5
"""How many records of each kind of a collection a person sees who is asked."""
MOST_CHARACTERS = 120
"""How much of a value or a key is shown."""

_Fields = dict[str, str]


@dataclass(frozen=True)
class Sampling:
    """How many records a preview shows, and how much of them.

    Attributes:
        records: Of each kind (added, changed, removed) of a collection, at most.
        values: Globs over collections whose values are shown; of others only keys and names of fields.
    """

    records: int = 0
    values: tuple[str, ...] = ()

    def shows_values(self, collection: str) -> bool:
        """Return whether the values of a collection are shown."""
        return bool(self.values) and Selection(self.values).has_collection(collection)


NO_SAMPLES = Sampling()


@dataclass
class _Seen:
    """A record before and after the restore; None where it is not there."""

    label: str
    before: _Fields | None = None
    after: _Fields | None = None


@dataclass
class Samples:
    """Takes samples while a collection is compared, part by part.

    Args:
        sampling: How many.
        values: Whether values are kept.
        label: Names of the columns that a person knows a record by.
    """

    sampling: Sampling
    values: bool
    label: tuple[str, ...]
    _seen: dict[bytes, _Seen] = field(default_factory=dict)

    def take(
        self, before: tuple[pa.Array, pa.Table], after: tuple[pa.Array, pa.Table], wanted: tuple[pa.Array, ...]
    ) -> None:
        """Remember the first records of each kind.

        Args:
            before: `_key`s (large_binary) and rows of what is there now, as their source knows them.
            after: The same of what is restored.
            wanted: `_key`s of the records of each kind.
        """
        for keys in wanted:
            some = keys.slice(0, self.sampling.records)
            for key, label, fields in self._records(*before, some):
                self._seen.setdefault(key, _Seen(label)).before = fields
            for key, label, fields in self._records(*after, some):
                self._seen.setdefault(key, _Seen(label)).after = fields

    def of(self, kind: str, keys: pa.Array) -> list[RecordSample]:
        """Return the samples of one kind: those of these keys, the first of them."""
        if not self._seen:
            return []
        known = set(keys.filter(pc.is_in(keys, pa.array(list(self._seen), keys.type))).to_pylist())
        seen = [one for key, one in sorted(self._seen.items()) if key in known]
        return [self._sample(kind, one) for one in seen[: self.sampling.records]]

    def _records(self, keys: pa.Array, rows: pa.Table, wanted: pa.Array) -> Iterator[tuple[bytes, str, _Fields]]:
        if not rows.num_columns or not len(wanted):
            return
        chosen = pc.is_in(keys, wanted)
        keys, rows = keys.filter(chosen), rows.filter(chosen)
        columns = {name: _texts(rows, name) for name in rows.column_names}
        for n, (key, label) in enumerate(zip(keys.to_pylist(), label_text(rows, self.label).to_pylist(), strict=True)):
            yield key, _shown(label), {name: texts[n] for name, texts in columns.items()}

    def _sample(self, kind: str, one: _Seen) -> RecordSample:
        before, after = one.before or {}, one.after or {}
        names = [name for name in dict.fromkeys([*after, *before]) if before.get(name) != after.get(name)]
        fields = [
            FieldSample(
                name=name,
                before=_cut(before.get(name)) if self.values else None,
                after=_cut(after.get(name)) if self.values else None,
            )
            for name in names
        ]
        return RecordSample(kind=kind, key=_cut(one.label) or "", fields=fields)


class LiveState:
    """What was looked at of a collection's live state, as a number: another one, and it was written to since."""

    def __init__(self) -> None:
        self._rows = self._sum = 0

    def take(self, index: PartIndex) -> None:
        """Add a part."""
        self._rows += len(index)
        # the order of rows means nothing; the sum wraps around
        self._sum += pc.sum(index.digests).as_py() or 0

    def digest(self) -> str:
        """Return what stands for all parts so far."""
        return f"{self._rows}:{self._sum % 2**64:016x}"


def _texts(rows: pa.Table, name: str) -> list[str]:
    column = rows.column(name)
    values = decode_variant(column) if is_variant(rows.schema.field(name)) else column.to_pylist()
    return [_shown(value) for value in values]


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"{len(value):,} bytes, SHA-256 {hashlib.sha256(value).hexdigest()[:16]}…"
    return "NULL" if value is None else str(value)


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
