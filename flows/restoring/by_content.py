"""Rows whose key is no identity, compared by what they hold: how often each content is there, and what goes beyond."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from blocks.rows.canonical import to_canonical
from blocks.rows.digest import RowDigest
from blocks.sources.collection import CollectionSpec


class Contents:
    """Counts the contents of rows, without the columns of their key.

    Args:
        spec: The collection that the rows are of.
        digest: Digests rows under the repository's key.
        tables: The rows that are there: the collection's columns.
    """

    def __init__(self, spec: CollectionSpec, digest: RowDigest, tables: Iterable[pa.Table]) -> None:
        self._key, self._digest = set(spec.key), digest
        self._left: Counter[int] = Counter()
        for rows in tables:
            self._left.update(self._contents(rows))

    def beyond(self, rows: pa.Table) -> pa.Table:
        """Return the rows for which no row of the same content is left; each of the others uses one up.

        Args:
            rows: The collection's columns, in any order.
        """
        return rows.filter(pa.array([not self._use_up(content) for content in self._contents(rows)], pa.bool_()))

    @property
    def left(self) -> int:
        """How many rows were not used up."""
        return self._left.total()

    def _use_up(self, content: int) -> bool:
        there = self._left[content] > 0
        if there:
            self._left[content] -= 1
        return there

    def _contents(self, rows: pa.Table) -> list[int]:
        names = sorted(set(rows.column_names) - self._key)
        if not names:
            return [0] * rows.num_rows
        digests: list[int] = np.asarray(self._digest(to_canonical(rows.select(names)))).tolist()
        return digests
