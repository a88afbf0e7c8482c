"""Rows and large objects, written inside the transaction of a restore."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa

from blocks.selection import Selection
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.copy import copy_rows
from blocks.sources.postgres.live import Aside, equality, put_aside
from blocks.sources.postgres.parts import row_hash
from blocks.sources.postgres.tables import LARGE_OBJECTS, Column, TableShape

_LOOKED_AT = 1 << 15
"""Live rows whose keys are compared with a selection at a time."""


class RowWriter:
    """Writes rows into tables: new ones, emptied ones, or in the place of rows with the same key.

    Args:
        session: With the transaction open.
        scope: What is restored.
        made: The collections whose tables were created in this transaction.
    """

    def __init__(self, session: Session, scope: RestoreScope, made: Collection[str]) -> None:
        self._session, self._scope, self._made = session, scope, made
        self._aside: Aside | None = None
        self._staged: dict[str, str] = {}

    def clear(self) -> None:
        """Put triggers and foreign keys aside, and delete what an exact restore replaces."""
        kept = {LARGE_OBJECTS, *self._made}
        specs = [spec for spec, _ in self._scope.collections if spec.name not in kept]
        self._aside = put_aside(self._session, [TableShape.of(spec).quoted for spec in specs])
        if self._scope.mode is RestoreMode.EXACT:
            for spec in specs:
                if self._emptied(spec):
                    self._session.execute(f"TRUNCATE ONLY {TableShape.of(spec).quoted}".encode())
                else:
                    self._clear_selected(spec, self._scope.selection_of(spec.name))

    def _emptied(self, spec: CollectionSpec) -> bool:
        return self._scope.mode is RestoreMode.EXACT and not self._scope.selection_of(spec.name).narrows_keys

    def write(self, spec: CollectionSpec, rows: pa.Table) -> None:
        """Write the rows of one part."""
        shape = TableShape.of(spec)
        names = [column.name for column in shape.columns]
        if spec.name in self._made or self._emptied(spec):
            copy_rows(self._session, shape.quoted, shape.columns, rows, freeze=spec.name in self._made)
            return
        if not names:
            self._complete(shape, rows.num_rows)
            return
        stage = self._stage(spec, shape)
        copy_rows(self._session, stage, [*shape.columns, *_row_columns(shape)], rows)
        columns = ", ".join(map(identifier, names))
        lacking = ""
        if shape.row is None:
            self._delete(shape, stage)
        else:
            row, number = map(identifier, shape.row)
            lacking = f"WHERE ({row}, {number}) NOT IN (SELECT {row}, {number} FROM ({_numbered(shape)}) live)"
        self._session.execute(
            f"INSERT INTO {shape.quoted} ({columns}) OVERRIDING SYSTEM VALUE"
            f" SELECT {columns} FROM {stage} {lacking}".encode()
        )

    def _complete(self, shape: TableShape, rows: int) -> None:
        """Add the rows that a table without columns lacks; all its rows are equal, and so in one part."""
        self._session.execute(
            f"INSERT INTO {shape.quoted} SELECT FROM pg_catalog.generate_series(1, {rows}"
            f" - (SELECT pg_catalog.count(*) FROM ONLY {shape.quoted}))".encode()
        )

    def _stage(self, spec: CollectionSpec, shape: TableShape) -> str:
        """Return an empty temporary table with the columns of a table."""
        if spec.name in self._staged:
            self._session.execute(f"TRUNCATE {self._staged[spec.name]}".encode())
            return self._staged[spec.name]
        stage = identifier("pg_temp", f"lastgood_stage_{len(self._staged)}")
        columns = ", ".join(identifier(column.name) for column in shape.columns)
        if shape.row is not None:
            columns += f", ''::text AS {identifier(shape.row[0])}, 0::int8 AS {identifier(shape.row[1])}"
        self._session.execute(
            f"CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS"
            f" SELECT {columns} FROM ONLY {shape.quoted} WITH NO DATA".encode()
        )
        self._staged[spec.name] = stage
        return stage

    def _delete(self, shape: TableShape, stage: str) -> None:
        same = equality(self._session, shape.quoted, shape.key, "live", "stage")
        self._session.execute(f"DELETE FROM ONLY {shape.quoted} live USING {stage} stage WHERE {same}".encode())

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

    def finish(self) -> None:
        """Bring triggers and foreign keys back."""
        if self._aside is not None:
            self._aside.bring_back(self._session)


def _row_columns(shape: TableShape) -> Sequence[Column]:
    """Return the columns of a stage that tell the rows of a table without a key apart."""
    if shape.row is None:
        return ()
    row, number = shape.row
    return Column(row, "text", identifier(row)), Column(number, "bigint", identifier(number))


def _numbered(shape: TableShape) -> str:
    """Write the query that gives each row of a table without a key its hash and its number among equal rows."""
    assert shape.row is not None
    row, number = map(identifier, shape.row)
    own = ", ".join(identifier(column.name) for column in shape.columns)
    inner = f"SELECT ctid AS lastgood_place, {own}, {row_hash(shape)} AS {row} FROM ONLY {shape.quoted}"
    return (
        f"SELECT lastgood_place, {row}, pg_catalog.row_number() OVER (PARTITION BY {row}) AS {number} FROM ({inner}) i"
    )


_CREATED = re.compile(r"^SELECT pg_catalog\.lo_create\('(\d+)'\);$", re.MULTILINE)
_PAGE_BYTES = 2048
_PAGES = (Column("loid", "bigint", "loid"), Column("pageno", "bigint", "pageno"), Column("data", "bytea", "data"))


class LargeObjects:
    """Writes the pages of large objects.

    Args:
        session: With the transaction open.
        scope: What is restored.
        before: Definitions of the backup, which create all its large objects.
        fresh: Whether these definitions were run in this transaction.
    """

    def __init__(self, session: Session, scope: RestoreScope, before: str, fresh: bool) -> None:
        self._session, self._scope, self._fresh = session, scope, fresh
        self._all = {int(number) for number in _CREATED.findall(before)}
        self._ready: set[int] = set()
        self._staged = False

    def write(self, rows: pa.Table) -> None:
        """Write the pages of one part."""
        if not self._fresh:
            self._make_ready(set(rows.column("loid").to_pylist()) - self._ready)
        if self._staged:
            self._session.execute("TRUNCATE pg_temp.lastgood_pages")
        else:
            self._session.execute(
                "CREATE TEMPORARY TABLE pg_temp.lastgood_pages (loid int8, pageno int8, data bytea) ON COMMIT DROP"
            )
            self._staged = True
        copy_rows(self._session, "pg_temp.lastgood_pages", _PAGES, rows)
        self._session.execute(
            f"SELECT count(pg_catalog.lo_put(loid::oid, pageno * {_PAGE_BYTES}, data))"
            " FROM pg_temp.lastgood_pages".encode()
        )

    def _make_ready(self, wanted: Iterable[int]) -> None:
        """Create large objects that are missing, and empty those that are there."""
        for number in sorted(wanted):
            found = self._session.execute(
                "SELECT FROM pg_catalog.pg_largeobject_metadata WHERE oid = %s", (number,)
            ).fetchone()
            if found is None:
                self._session.execute("SELECT pg_catalog.lo_create(%s)", (number,))
            else:
                self._session.execute(
                    "SELECT pg_catalog.lo_truncate64(fd, 0), pg_catalog.lo_close(fd)"
                    " FROM pg_catalog.lo_open(%s, x'20000'::int4) fd",
                    (number,),
                )
            self._ready.add(number)

    def finish(self) -> None:
        """Empty what has no page in the backup; in an exact restore, remove what it does not know."""
        if self._fresh or not any(spec.name == LARGE_OBJECTS for spec, _ in self._scope.collections):
            return
        selection = self._scope.selection_of(LARGE_OBJECTS)
        live = {
            int(str(n)) for (n,) in self._session.execute("SELECT oid::int8 FROM pg_catalog.pg_largeobject_metadata")
        }
        chosen = _selected(selection, self._all | live)
        self._make_ready((self._all & chosen) - self._ready)
        if self._scope.mode is RestoreMode.EXACT:
            for number in sorted((live & chosen) - self._all):
                self._session.execute("SELECT pg_catalog.lo_unlink(%s)", (number,))


def _selected(selection: Selection, numbers: set[int]) -> set[int]:
    rows = pa.table({"loid": pa.array(sorted(numbers), pa.int64())})
    return set(selection.rows(rows, ("loid",)).column(0).to_pylist())
