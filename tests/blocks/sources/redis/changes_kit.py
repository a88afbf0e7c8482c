"""A chain of backups in memory: what the stages make of each look at a server, part by part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.canonical import DIGEST, KEY
from blocks.rows.digest import RowDigest
from blocks.rows.index import PartIndex, PartLookup
from blocks.rows.normalize import to_normal
from blocks.rows.overlay import DELETED
from blocks.sources.collection import Bounds, CollectionSpec
from blocks.sources.part_changes import changes_since
from blocks.sources.reading import BaseLookup, FullRead, Reading, Unchanged
from blocks.sources.redis import RedisSource
from blocks.sources.view import View

_DIGEST = RowDigest(b"k" * 32)
Rows = list[dict[str, object]]


@dataclass
class KeptPart:
    """One part as the chain holds it: normalised rows."""

    spec: CollectionSpec
    bounds: Bounds
    rows: pa.Table

    def known(self, token: str | None) -> BaseLookup:
        return PartLookup(self._index, self.rows.num_rows, self.spec.key, _DIGEST, token)

    def _index(self) -> PartIndex:
        return PartIndex.of(self.rows.column(KEY).combine_chunks(), self.rows.column(DIGEST).combine_chunks())

    def lay_over(self, reading: Reading) -> None:
        """Bring the part to now, and make sure that its rows are counted right."""
        if isinstance(reading, Unchanged):
            return
        now = to_normal(reading.rows, self.spec.key, _DIGEST)
        changes = changes_since(self._index(), replace(reading, rows=now))
        replaced = pc.is_in(self.rows.column(KEY), changes.index.column(KEY).combine_chunks())
        upserts = changes.index.filter(pc.invert(changes.index.column(DELETED))).column(KEY).combine_chunks()
        fresh = now.filter(pc.is_in(now.column(KEY), upserts))
        self.rows = pa.concat_tables([self.rows.filter(pc.invert(replaced)), fresh]).combine_chunks()
        assert self.rows.num_rows == changes.count


class KeptChain:
    """A full and what came after it.

    Attributes:
        token: Of the newest look.
        readings: What the newest look gave, by part.
    """

    def __init__(self, source: RedisSource) -> None:
        self.source = source
        self.readings: list[Reading] = []
        self.parts: list[KeptPart] = []
        with source.view() as view:
            self.token = view.token
            for spec in view.collections():
                self.parts += [KeptPart(spec, bounds, _read(view, spec, bounds)) for bounds in view.partition(spec)]
            view.finish()

    def incremental(self) -> bool:
        """Take what changed; return whether the server's history was enough for that."""
        with self.source.view(self.token) as view:
            token = view.token
            assert [spec.name for spec in view.collections()] == list(dict.fromkeys(p.spec.name for p in self.parts))
            self.readings = [view.read(part.spec, part.bounds, part.known(self.token)) for part in self.parts]
            view.finish()
        for part, reading in zip(self.parts, self.readings, strict=True):
            part.lay_over(reading)
        self.token = token
        return not any(isinstance(reading, FullRead) for reading in self.readings)

    @property
    def read_rows(self) -> int:
        """How many rows the newest look read."""
        return sum(rows.num_rows for rows in self.rows_read)

    @property
    def rows_read(self) -> list[pa.Table]:
        """The rows that the newest look read, by part."""
        return [reading.rows for reading in self.readings if not isinstance(reading, Unchanged)]

    def rows(self) -> Rows:
        """All rows, with the name of their collection, in one order."""
        return _in_order((part.spec.name, part.rows.drop_columns([KEY, DIGEST])) for part in self.parts)


def all_rows(source: RedisSource) -> Rows:
    """Read everything, without any history, as `KeptChain.rows` gives it."""
    plain = source.model_copy(update={"track_changes": False})
    with plain.view() as view:
        assert view.token is None
        found = [(s.name, view.read(s, b, None).rows) for s in view.collections() for b in view.partition(s)]
    return _in_order(found)


def _read(view: View, spec: CollectionSpec, bounds: Bounds) -> pa.Table:
    return to_normal(view.read(spec, bounds, None).rows, spec.key, _DIGEST)


def _in_order(tables: object) -> Rows:
    rows = [{"collection": name} | row for name, table in tables for row in table.to_pylist()]  # type: ignore[attr-defined]
    return sorted(rows, key=lambda row: (row["collection"], row["key"], row["element"] or b"", row["element"] is None))
