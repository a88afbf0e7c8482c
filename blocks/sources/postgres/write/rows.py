"""Rows and large objects, written inside the transaction of a restore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.read.parts import row_hash
from blocks.sources.postgres.schema.entries import Entry
from blocks.sources.postgres.schema.live import Aside, equality, identity, put_aside
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, Column, TableShape
from blocks.sources.postgres.write.aside import copy_aside
from blocks.sources.postgres.write.copy import check_count, copy_rows
from blocks.sources.target import RestoreMode, RestoreScope

_LOOKED_AT = 1 << 15
"""Live rows whose keys are compared with a selection at a time."""


class RowWriter:
    """Writes rows into tables: new ones, emptied ones, or in the place of rows with the same key.

    Args:
        session: A session with the restore's transaction open.
        scope: The collections, rows and mode of the restore.
        made: The collections whose tables were created in this transaction.
        copied: Whether rows that go are kept in tables beside theirs.
        sparing: Whether the server has few locks: to truncate a table takes two more than to delete its rows.
    """

    def __init__(
        self,
        session: Session,
        scope: RestoreScope,
        made: Collection[str],
        copied: bool = False,
        sparing: bool = False,
    ) -> None:
        self._session, self._scope, self._made, self._copied = session, scope, made, copied
        self._empty = "DELETE FROM ONLY" if sparing else "TRUNCATE ONLY"
        self._aside: Aside | None = None
        self._staged: dict[str, str] = {}
        self._given: dict[str, int] = {spec.name: 0 for spec, _ in scope.collections if self._counted(spec)}

    def put_aside(self, also: Sequence[str] = ()) -> None:
        """Put triggers and foreign keys aside.

        Args:
            also: Other tables, quoted, of which rows will be removed.
        """
        self._aside = put_aside(self._session, [*(TableShape.of(spec).quoted for spec in self._there()), *also])

    def _there(self) -> list[CollectionSpec]:
        kept = {LARGE_OBJECTS, *self._made}
        return [spec for spec, _ in self._scope.collections if spec.name not in kept]

    def clear(self) -> list[str]:
        """Delete what an exact restore replaces; say what is kept where."""
        notes = []
        for spec in self._there():
            shape = TableShape.of(spec)
            if self._copied and self._holds_rows(shape):
                notes.append(copy_aside(self._session, shape.schema, shape.table))
            if self._emptied(spec):
                self._session.execute(f"{self._empty} {shape.quoted}".encode())
            elif self._scope.mode is RestoreMode.EXACT:
                self._clear_selected(spec, self._scope.selection_of(spec.name))
        return notes

    def _holds_rows(self, shape: TableShape) -> bool:
        row = self._session.execute(f"SELECT EXISTS (SELECT FROM ONLY {shape.quoted})".encode()).fetchone()
        return row == (True,)

    def _counted(self, spec: CollectionSpec) -> bool:
        """Whether the table holds nothing in the end but what it is given."""
        return spec.name != LARGE_OBJECTS and (spec.name in self._made or self._emptied(spec))

    def _emptied(self, spec: CollectionSpec) -> bool:
        return self._scope.mode is RestoreMode.EXACT and not self._scope.selection_of(spec.name).narrows_keys

    def write(self, spec: CollectionSpec, rows: pa.Table, *, freeze: bool) -> None:
        """Write the rows of one part.

        Args:
            spec: The table.
            rows: The rows to write, with the table's columns as text or native Arrow types.
            freeze: Whether those of a table of this transaction are written as frozen ones; not within a savepoint.
        """
        shape = TableShape.of(spec)
        names = [column.name for column in shape.columns]
        if self._counted(spec):
            copy_rows(self._session, shape.quoted, shape.columns, rows, freeze=freeze and spec.name in self._made)
            self._given[spec.name] += rows.num_rows
            return
        if not names:
            self._complete(shape, rows.num_rows)
            return
        stage = self._stage(spec, shape)
        copy_rows(self._session, stage, [*shape.columns, *_row_columns(shape)], rows)
        if shape.row is None:
            # a row of another key that is equal to a selected one was not selected, and no backup may have it
            self._delete(shape, stage, identical=self._scope.selection_of(spec.name).narrows_keys)
        self._insert(shape, stage, names)

    def _insert(self, shape: TableShape, stage: str, names: Sequence[str]) -> None:
        """Insert what a stage holds; of rows without a key, what is not there yet."""
        columns = ", ".join(map(identifier, names))
        lacking = ""
        if shape.row is not None:
            row, number = map(identifier, shape.row)
            lacking = f"WHERE ({row}, {number}) NOT IN (SELECT {row}, {number} FROM ({_numbered(shape)}) live)"
        wanted = self._session.execute(f"SELECT pg_catalog.count(*) FROM {stage} {lacking}".encode()).fetchone()
        put = self._session.execute(
            f"INSERT INTO {shape.quoted} ({columns}) OVERRIDING SYSTEM VALUE"
            f" SELECT {columns} FROM {stage} {lacking}".encode()
        )
        assert wanted is not None
        check_count(shape.quoted, int(str(wanted[0])), put.rowcount)

    def remove(self, spec: CollectionSpec, keys: pa.Table) -> int:
        """Delete the rows with some keys; return how many there were.

        Args:
            spec: The table.
            keys: One row per record to delete, with at least the collection's key columns.
        """
        shape = TableShape.of(spec)
        if not shape.columns:
            return self._remove_blank(shape, keys.num_rows)
        columns = _row_columns(shape) or [shape.column(name) for name in shape.key]
        stage = self._stage(spec, shape)
        copy_rows(self._session, stage, columns, keys)
        if shape.row is None:
            return self._delete(shape, stage, identical=True)
        row, number = map(identifier, shape.row)
        doomed = f"SELECT lastgood_place FROM ({_numbered(shape)}) r WHERE ({row}, {number}) IN"
        return self._session.execute(
            f"DELETE FROM ONLY {shape.quoted} WHERE ctid IN ({doomed} (SELECT {row}, {number} FROM {stage}))".encode()
        ).rowcount

    def _remove_blank(self, shape: TableShape, count: int) -> int:
        """Delete some of the rows of a table without columns, which are all equal."""
        some = f"SELECT ctid FROM ONLY {shape.quoted} LIMIT {count}"
        return self._session.execute(f"DELETE FROM ONLY {shape.quoted} WHERE ctid IN ({some})".encode()).rowcount

    def _complete(self, shape: TableShape, rows: int) -> None:
        """Add the rows that a table without columns lacks; all its rows are equal, and so in one part."""
        self._session.execute(
            f"INSERT INTO {shape.quoted} SELECT FROM pg_catalog.generate_series(1, {rows}"
            f" - (SELECT pg_catalog.count(*) FROM ONLY {shape.quoted}))".encode()
        )

    def _stage(self, spec: CollectionSpec, shape: TableShape) -> str:
        """Return an empty temporary table with the columns of a table."""
        stage = self._staged.setdefault(spec.name, identifier("pg_temp", f"lastgood_stage_{len(self._staged)}"))
        # what fails after it was made takes it back
        if self._session.execute("SELECT pg_catalog.to_regclass(%s)", (stage,)).fetchone() != (None,):
            self._session.execute(f"TRUNCATE {stage}".encode())
            return stage
        columns = ", ".join(identifier(column.name) for column in shape.columns)
        if shape.row is not None:
            columns += f", ''::text AS {identifier(shape.row[0])}, 0::int8 AS {identifier(shape.row[1])}"
        self._session.execute(
            f"CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS"
            f" SELECT {columns} FROM ONLY {shape.quoted} WITH NO DATA".encode()
        )
        return stage

    def _delete(self, shape: TableShape, stage: str, *, identical: bool) -> int:
        same = equality(self._session, shape.quoted, shape.key, "live", "stage")
        if identical:
            same += f" AND {identity(shape.key, 'live', 'stage')}"
        query = f"DELETE FROM ONLY {shape.quoted} live USING {stage} stage WHERE {same}"
        return self._session.execute(query.encode()).rowcount

    def _clear_selected(self, spec: CollectionSpec, selection: Selection) -> None:
        """Delete the live rows whose keys are selected; those that the backup holds come again."""
        shape = TableShape.of(spec)
        names = ["lastgood_place", *spec.key]
        if shape.row is None:
            keys = ", ".join(f"{shape.column(n).read} AS {identifier(n)}" for n in shape.key)
            query = f"SELECT ctid::text AS lastgood_place, {keys} FROM ONLY {shape.quoted}"
        else:
            query = f"SELECT lastgood_place::text, {', '.join(map(identifier, shape.row))} FROM ({_numbered(shape)}) r"
        doomed: list[str] = []
        with self._session.cursor() as cursor:
            cursor.execute(query.encode())
            while found := cursor.fetchmany(_LOOKED_AT):
                columns = [pa.array(list(values)) for values in zip(*found, strict=True)]
                rows = pa.Table.from_arrays(columns, names=names)
                doomed += selection.rows(rows, spec.label).column(0).to_pylist()
        self._session.execute(
            f"DELETE FROM ONLY {shape.quoted} WHERE ctid = ANY (%s::pg_catalog.tid[])".encode(), (doomed,)
        )

    def finish(self) -> list[Entry]:
        """Return what brings triggers and foreign keys back."""
        for stage in self._staged.values():  # whose columns are of types that may have to go
            self._session.execute(f"DROP TABLE IF EXISTS {stage}".encode())
        self._staged.clear()
        if self._aside is None:
            return []
        # what is checked at the end of a transaction otherwise: a table that waits for that cannot be altered
        self._session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        return self._aside.entries()

    def check_counts(self, lost: Callable[[str], bool], *, made: bool) -> None:
        """Count what is in the tables that hold nothing but what they were given.

        Args:
            lost: Whether rows of a collection were left out.
            made: Whether those are counted that were created in this transaction, or the others.

        Raises:
            RestoreRefused: It is not as much.
        """
        for spec, _ in self._scope.collections:
            if spec.name in self._given and not lost(spec.name) and (spec.name in self._made) is made:
                quoted = TableShape.of(spec).quoted
                found = self._session.execute(f"SELECT pg_catalog.count(*) FROM ONLY {quoted}".encode()).fetchone()
                assert found is not None
                check_count(quoted, self._given[spec.name], int(str(found[0])))


def _row_columns(shape: TableShape) -> Sequence[Column]:
    """Return the columns of a stage that distinguish the rows of a table without a key."""
    if shape.row is None:
        return ()
    row, number = shape.row
    return Column(row, "text", identifier(row)), Column(number, "bigint", identifier(number))


def _numbered(shape: TableShape) -> str:
    """Write the query that gives each row of a table without a key its hash and its number among equal rows."""
    assert shape.row is not None
    row, number = map(identifier, shape.row)
    own = ", ".join(["ctid AS lastgood_place", *(identifier(column.name) for column in shape.columns)])
    inner = f"SELECT {own}, {row_hash(shape)} AS {row} FROM ONLY {shape.quoted}"
    return (
        f"SELECT lastgood_place, {row}, pg_catalog.row_number() OVER (PARTITION BY {row}) AS {number} FROM ({inner}) i"
    )
