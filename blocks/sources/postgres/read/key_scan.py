"""Reading a table part by part: each is a range of the key that an index finds, or all there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from blocks.sources.collection import Bounds
from blocks.sources.postgres.read.parts import select, select_keys, within
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.read.xmin_tracking import FEW, written_since
from blocks.sources.postgres.schema.tables import Table


@dataclass(frozen=True)
class ChangeCount:
    """What of one part may have changed.

    Attributes:
        total: How many rows there are.
        count: How many of them may be newer than the older snapshot.
        places: Where these are, as an array of `ctid`s is written; None where they are too many to be read by place.
    """

    total: int
    count: int
    places: str | None


class PartReads(Protocol):
    """How the parts of one table are read. Several threads may ask."""

    def count_changes(self, bounds: Bounds, oldest: int, upcoming: int) -> ChangeCount:
        """Count what of one part may be newer than a snapshot; numbers as for `written_since`."""
        ...

    def rows(self, bounds: Bounds) -> pa.Table:
        """Return the rows of one part."""
        ...

    def rows_of_many(self, bounds: Bounds) -> pa.Table:
        """Return the rows of a part for which `count_changes` gives no places, because they are too many."""
        ...

    def keys(self, bounds: Bounds) -> pa.Table:
        """Return the keys of one part's rows, with `xmin` and `ctid`."""
        ...


class PartByPart:
    """Each part with queries of its own.

    Args:
        table: The table that is read.
        readers: Connections that see the same snapshot.
    """

    def __init__(self, table: Table, readers: Readers) -> None:
        self._table, self._readers = table, readers

    def count_changes(self, bounds: Bounds, oldest: int, upcoming: int) -> ChangeCount:
        """Count what of one part may be newer than a snapshot; numbers as for `written_since`."""
        shape = self._table.shape
        found = self._fetch(written_since(f"ONLY {shape.quoted} {within(shape, bounds)}", oldest, upcoming))
        total, count, places = (found.column(n)[0].as_py() for n in range(3))
        return ChangeCount(total, count, places if count <= FEW * total else None)

    def rows(self, bounds: Bounds) -> pa.Table:
        """Return the rows of one part."""
        return self._fetch(select(self._table.shape, bounds))

    rows_of_many = rows

    def keys(self, bounds: Bounds) -> pa.Table:
        """Return the keys of one part's rows, with `xmin` and `ctid`."""
        return self._fetch(select_keys(self._table.shape, within(self._table.shape, bounds)))

    def _fetch(self, query: str) -> pa.Table:
        return self._readers.fetch(query, self._table.doing)
