"""Rows that the server does not take: found by halving what it has refused, left out one by one, and named.

Where code is at fault rather than a value, or nothing of a table is taken for long, its other rows are not tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

import psycopg
import pyarrow as pa

from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import told_with_detail
from blocks.sources.target import NotRebuilt

_OF_CODE = ("0A", "2F", "3F", "42", "54")
"""Classes of states that speak of a statement, whatever its values are."""
_TRIED, _TRIED_OF_CODE = 100_000, 1_000
"""Rows of a table that are tried singly as long as none is taken."""


@dataclass
class _Refused:
    """What was refused of one table; `first` says which row was the first, and why."""

    first: str
    rows: int = 0
    keys: set[tuple[object, ...]] = field(default_factory=set)


class RefusedRows:
    """The rows of one restore that were left out; several threads may write."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tables: dict[str, _Refused] = {}
        self._taken = set[str]()

    @property
    def not_rebuilt(self) -> list[NotRebuilt]:
        """What was left out, a table each."""
        with self._lock:
            return [
                NotRebuilt(f"rows of table {name}", f"{found.rows:,} left out, the first with {found.first}")
                for name, found in self._tables.items()
            ]

    def salvage(
        self,
        spec: CollectionSpec,
        rows: pa.Table,
        error: psycopg.Error,
        put: Callable[[pa.Table], psycopg.Error | None],
    ) -> int:
        """Write what the server takes of rows that it has refused together; return how many that are.

        Args:
            spec: The table.
            rows: The rows.
            error: Why they were refused.
            put: Writes some of them, all or none; returns why it cannot.
        """
        if rows.num_rows == 1 or self._is_hopeless(spec.name, error):
            self._leave_out(spec, rows, error)
            return 0
        taken, middle = 0, rows.num_rows // 2
        for half in (rows.slice(0, middle), rows.slice(middle)):
            if (again := put(half)) is not None:
                taken += self.salvage(spec, half, again, put)
                continue
            taken += half.num_rows
            self._taken.add(spec.name)
        return taken

    def _is_hopeless(self, name: str, error: psycopg.Error) -> bool:
        found = self._tables.get(name)
        most = _TRIED_OF_CODE if (error.sqlstate or "").startswith(_OF_CODE) else _TRIED
        return found is not None and found.rows >= most and name not in self._taken

    def _leave_out(self, spec: CollectionSpec, rows: pa.Table, error: psycopg.Error) -> None:
        keys = list(zip(*(rows.column(name).to_pylist() for name in spec.key), strict=True))
        with self._lock:
            if (found := self._tables.get(spec.name)) is None:
                key = ", ".join(f"{name} {value}" for name, value in zip(spec.label, keys[0], strict=False))
                found = self._tables[spec.name] = _Refused(f"{key}: {told_with_detail(error)}")
            found.rows += rows.num_rows
            found.keys.update(keys)

    def of(self, spec: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows were left out.

        Args:
            spec: The table.
            rows: Rows of it, with at least its key columns.
        """
        found = self._tables.get(spec.name)
        if found is None:
            return pa.array([False] * rows.num_rows, pa.bool_())
        keys = zip(*(rows.column(name).to_pylist() for name in spec.key), strict=True)
        return pa.array([key in found.keys for key in keys], pa.bool_())
