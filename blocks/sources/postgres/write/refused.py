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
from blocks.sources.postgres.connect import plainly, told_with_detail
from blocks.sources.postgres.hints import lacks_something
from blocks.sources.target import NotRebuilt

_OF_CODE = ("0A", "2F", "3F", "42", "54")
"""Classes of states that speak of a statement, whatever its values are."""
_TRIED, _TRIED_OF_CODE = 100_000, 1_000
"""Rows of a table that are tried singly as long as none is taken."""
_TOGETHER = 8
"""How often rows that stand in each other's way are tried together."""

_Put = Callable[[pa.Table], psycopg.Error | None]


@dataclass
class _Refused:
    """What was refused of one table; `first` says which row was the first, and why; `why` names no value."""

    first: str
    why: str
    of_place: bool
    rows: int = 0
    keys: set[tuple[object, ...]] = field(default_factory=set)


@dataclass(frozen=True)
class _Some:
    """Rows that were refused together, with the state of the error, and what it says with values and without."""

    rows: pa.Table
    state: str
    said: str
    plain: str

    @classmethod
    def of(cls, rows: pa.Table, error: psycopg.Error) -> _Some:
        """Keep of an error what is needed: there may be many, and each holds on to its connection."""
        return cls(rows, error.sqlstate or "", told_with_detail(error), plainly(error))

    @property
    def conflicts(self) -> bool:
        """Whether another row is in the way, which may be replaced by one that was refused, too."""
        return self.state in ("23505", "23P01")


def _count(found: list[_Some]) -> int:
    return sum(some.rows.num_rows for some in found)


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
                NotRebuilt(
                    f"rows of table {name}",
                    f"{found.rows:,} left out, the first with {found.first}",
                    faulty=not found.of_place,
                    plain=f"{found.rows:,} left out, the first because {found.why}",
                )
                for name, found in self._tables.items()
            ]

    def salvage(self, spec: CollectionSpec, rows: pa.Table, error: psycopg.Error, put: _Put) -> int:
        """Write what the server takes of rows that it has refused together; return how many that are.

        Args:
            spec: The table.
            rows: The rows.
            error: Why they were refused.
            put: Writes some of them, all or none; returns why it cannot.
        """
        refused = self._halved(spec, rows, error, put)
        # rows that exchange what has to be unique stand in each other's way, as long as they are not written together
        for _ in range(_TOGETHER):
            conflicts = [one.rows for one in refused if one.conflicts]
            if not conflicts:
                break
            together = pa.concat_tables(conflicts)
            again = put(together)
            still = [] if again is None else self._halved(spec, together, again, put)
            refused = [*(one for one in refused if not one.conflicts), *still]
            if _count(still) == together.num_rows:
                break
        for one in refused:
            self._leave_out(spec, one)
        return int(rows.num_rows) - _count(refused)

    def _halved(self, spec: CollectionSpec, rows: pa.Table, error: psycopg.Error, put: _Put) -> list[_Some]:
        """Write halves of refused rows, halves of those, and so on; return what is refused in the end, in order."""
        found, tried = list[_Some](), 0
        waiting = [_Some.of(rows, error)]
        while waiting:
            some = waiting.pop()
            if some.rows.num_rows == 1 or self._is_hopeless(spec.name, some.state, tried):
                found.append(some)
                tried += some.rows.num_rows
                continue
            middle, later = some.rows.num_rows // 2, list[_Some]()
            for half in (some.rows.slice(0, middle), some.rows.slice(middle)):
                if (again := put(half)) is None:
                    self._taken.add(spec.name)
                else:
                    later.append(_Some.of(half, again))
            waiting += reversed(later)
        return found

    def _is_hopeless(self, name: str, state: str, more: int) -> bool:
        if name in self._taken:
            return False
        before = self._tables.get(name)
        most = _TRIED_OF_CODE if state.startswith(_OF_CODE) else _TRIED
        return more + (before.rows if before is not None else 0) >= most

    def _leave_out(self, spec: CollectionSpec, some: _Some) -> None:
        keys = list(zip(*(some.rows.column(name).to_pylist() for name in spec.key), strict=True))
        with self._lock:
            if (found := self._tables.get(spec.name)) is None:
                key = ", ".join(f"{name} {value}" for name, value in zip(spec.label, keys[0], strict=False))
                found = self._tables[spec.name] = _Refused(
                    f"{key}: {some.said}", some.plain, lacks_something(some.state)
                )
            found.rows += some.rows.num_rows
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
