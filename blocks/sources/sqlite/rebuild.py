"""What one restore makes of a backup's schema and rows, and what of them it leaves out where it keeps going.

What no empty database takes is known before the first write (`survey.py`). What only the rows show is known when they
are written: an edited schema (`PRAGMA writable_schema`) may say NOT NULL or UNIQUE of rows that are not.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.rows.selection import has_label, label_text, printed
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.creating import create
from blocks.sources.sqlite.schema import SchemaObject, in_building_order
from blocks.sources.sqlite.survey import KEEP_GOING_HINT, Survey, survey
from blocks.sources.target import NotRebuilt

_KEYS_NAMED = 5
_SAVEPOINT = "lastgood_rows"


@dataclass
class _LeftRows:
    """Rows of one table that were left out for one reason."""

    labels: list[bytes] = field(default_factory=list)

    def told(self, table: str, reason: str) -> NotRebuilt:
        count = len(self.labels)
        keys = ", ".join(printed(os.fsdecode(label)) for label in self.labels[:_KEYS_NAMED])
        more = f" and {count - _KEYS_NAMED:,} more" if count > _KEYS_NAMED else ""
        what, which = ("1 row", "the key") if count == 1 else (f"{count:,} rows", "the keys")
        return NotRebuilt(f"{what} of table {table!r}", f"{reason} ({which} {keys}{more})", faulty=True, plain=reason)


class Rebuild:
    """The objects and rows of one restore.

    Args:
        place: What is restored to; for messages.
        keep_going: Whether what cannot be rebuilt is left out.
    """

    def __init__(self, place: object, *, keep_going: bool) -> None:
        self._place, self.keep_going = place, keep_going
        self.survey = Survey((), ())
        self._left: list[NotRebuilt] = []
        self._rows: dict[tuple[str, str], _LeftRows] = {}

    @property
    def not_rebuilt(self) -> list[NotRebuilt]:
        """What is not as it was in the backup."""
        rows = [left.told(table, reason) for (table, reason), left in self._rows.items()]
        return [*self._left, *self.survey.told, *rows]

    @property
    def absent_tables(self) -> set[str]:
        """The tables that cannot be created at all."""
        return self.survey.absent_tables

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows of a table were left out: all where the table itself is."""
        if collection.name in self.absent_tables:
            return pa.array([True] * rows.num_rows, pa.bool_())
        found = [label for (table, _), left in self._rows.items() if table == collection.name for label in left.labels]
        return has_label(rows, collection.label, pa.array(found, pa.large_binary()))

    def look_at(self, objects: Iterable[SchemaObject]) -> None:
        """Find out which objects an empty database does not take.

        Raises:
            RestoreRefused: There are some, and they are not to be left out.
        """
        self.survey = survey(objects).accepted(self._place, keep_going=self.keep_going)

    def leave(self, left: NotRebuilt) -> None:
        """Leave something out."""
        self._left.append(left)

    def buildable(self, objects: Iterable[SchemaObject]) -> list[SchemaObject]:
        """Return what can be built of some objects, in the order in which it is."""
        return in_building_order(self.survey.without_absent(objects))

    def create_tables(self, connection: sqlite3.Connection, objects: Iterable[SchemaObject]) -> None:
        """Create the ordinary tables among some objects, which rows are to be put into."""
        for thing in objects:
            if thing.type == "table" and not thing.virtual:
                create(connection, thing)

    def create_rest(self, connection: sqlite3.Connection, objects: Iterable[SchemaObject]) -> None:
        """Create all else of some objects, when the rows are there.

        Raises:
            RestoreRefused: The rows contradict one (a UNIQUE index), and it is not to be left out.
        """
        for thing in objects:
            if thing.type == "table" and not thing.virtual:
                continue
            try:
                create(connection, thing)
            except RestoreRefused as exc:
                if (reason := _broken(exc)) is None:
                    raise
                self._check_keeps_going(exc)
                self.leave(NotRebuilt(str(thing), reason, f"{thing.sql};", faulty=True))

    def write(
        self,
        connection: sqlite3.Connection,
        collection: CollectionSpec,
        rows: pa.Table,
        put: Callable[[pa.Table], int],
    ) -> tuple[int, int]:
        """Write rows of a table; return by how many it has grown, and how many were left out.

        Args:
            connection: A connection with a write transaction open, which has a journal where rows may be left out.
            collection: The table.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
            put: Writes some of them, all or none where that is in a savepoint, and returns by how many it has grown.

        Raises:
            RestoreRefused: The table does not take some of them, and they are not to be left out.
        """
        if not self.keep_going:
            try:
                return put(rows), 0
            except RestoreRefused as exc:
                if _broken(exc) is not None:
                    self._check_keeps_going(exc)
                raise
        connection.execute(f"SAVEPOINT {_SAVEPOINT}")
        try:
            grown = put(rows)
        except RestoreRefused as exc:
            connection.execute(f"ROLLBACK TO {_SAVEPOINT}")
            connection.execute(f"RELEASE {_SAVEPOINT}")
            if (reason := _broken(exc)) is None:
                raise
            if rows.num_rows == 1:
                self._leave_row(collection, rows, reason)
                return 0, 1
            half = rows.num_rows // 2  # a table that takes most of them is asked a few times for each that it does not
            some, other = (self.write(connection, collection, part, put) for part in (rows[:half], rows[half:]))
            return some[0] + other[0], some[1] + other[1]
        connection.execute(f"RELEASE {_SAVEPOINT}")
        return grown, 0

    def _leave_row(self, collection: CollectionSpec, rows: pa.Table, reason: str) -> None:
        [label] = label_text(rows, collection.label).to_pylist()
        left = self._rows.setdefault((collection.name, reason), _LeftRows())
        left.labels.append(label if isinstance(label, bytes) else label.encode())

    def _check_keeps_going(self, error: RestoreRefused) -> None:
        if not self.keep_going:
            hint = f"{error.hint} {KEEP_GOING_HINT}".strip()
            raise RestoreRefused(f"{self._place}: {error.message}", hint=hint) from error


def _broken(error: RestoreRefused) -> str | None:
    """Say which rule rows or an index break; None where an error is another one."""
    cause = error.__cause__
    return str(cause) if isinstance(cause, sqlite3.IntegrityError) else None
