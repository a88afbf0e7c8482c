"""Merging rows into a table without a primary key: whole rows are compared, since a rowid may be another row's by now.

SQLite gives the rowid of a deleted row to a later one, and VACUUM numbers rows anew. So within one database, and from
one moment to the next, a rowid finds a row; over time it is the identity of none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from threading import RLock

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.rows import Row, Rows, arrow_table, placeholder, quoted, quoted_list, scalar_rows, write_rows
from blocks.sources.sqlite.tables import primary_key, shape_of
from blocks.sources.sqlite.write import add_rows, delete_rows

_DIGEST_BYTES = 16


def is_unkeyed(collection: CollectionSpec) -> bool:
    """Whether the rows of a table are told apart by rowids that are no column of theirs."""
    rowid = shape_of(collection).rowid
    return rowid is not None and collection.key == (rowid,)


class UnkeyedRows:
    """The live rows of one table that no row of the backup was found to be yet.

    Rows whose primary key has no NULL, which is one then, still replace the live row of the same key.

    Args:
        connection: A connection with a write transaction open.
        collection: A table that is unkeyed.
    """

    def __init__(self, connection: sqlite3.Connection, collection: CollectionSpec) -> None:
        rowid = shape_of(collection).rowid
        assert rowid is not None
        self._connection, self._collection, self._rowid = connection, collection, rowid
        self._names = [name for name, _ in collection.columns if name != rowid]
        self._primary = primary_key(connection, collection.name)
        self._unclaimed = f"temp.{quoted(f'lastgood_unclaimed_{collection.name}')}"
        connection.execute(f"CREATE TABLE {self._unclaimed} (at INTEGER PRIMARY KEY, digest BLOB NOT NULL)")
        sql = f"SELECT {quoted_list([*self._names, rowid])} FROM {quoted(collection.name)} ORDER BY {quoted(rowid)}"
        for batch in Rows(connection, RLock(), sql).batches():
            live = [(row[-1], _digest(row[:-1])) for row in batch]
            connection.executemany(f"INSERT INTO {self._unclaimed} VALUES (?, ?)", live)
        index = f"temp.{quoted(f'lastgood_digests_{collection.name}')}"
        connection.execute(f"CREATE INDEX {index} ON {self._unclaimed.removeprefix('temp.')} (digest)")

    def put(self, rows: pa.Table) -> int:
        """Add the rows that the table does not hold; return by how many it has grown.

        Args:
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.

        Raises:
            sqlite3.IntegrityError: A live row excludes one of them.
        """
        missing = rows.filter(pa.array([at is None for at in self._claimed(rows)], pa.bool_()))
        gone = self._delete_replaced(missing)
        add_rows(self._connection, self._collection, missing)
        return int(missing.num_rows) - gone

    def remove(self, rows: pa.Table) -> int:
        """Delete one live row for each given row of the same content; return how many were there.

        Args:
            rows: The rows to delete, with the collection's columns in any order.
        """
        found = [(at,) for at in self._claimed(rows) if at is not None]
        table, rowid = quoted(self._collection.name), quoted(self._rowid)
        self._connection.executemany(f"DELETE FROM {table} WHERE {rowid} = ?", found)
        return len(found)

    def beside(self, selection: Selection) -> int:
        """Count the live rows of chosen rowids that no row of the backup was found to be."""
        (rowid,) = self._collection.key
        batches = Rows(self._connection, RLock(), f"SELECT at FROM {self._unclaimed} ORDER BY at").batches()
        tables = (arrow_table([rowid], [batch]) for batch in batches)
        return sum(selection.rows(rowids, self._collection.label).num_rows for rowids in tables)

    def _claimed(self, rows: pa.Table) -> list[int | None]:
        """Take for each row a live one of the same content, best that of the same rowid; None where none is left."""
        return [
            self._claim(_digest(row[:-1]), row[-1])
            for batch in scalar_rows(rows.select([*self._names, self._rowid]))
            for row in batch
        ]

    def _claim(self, digest: bytes, rowid: object) -> int | None:
        found = self._connection.execute(
            f"SELECT at FROM {self._unclaimed} WHERE digest = ? ORDER BY at != ?, at LIMIT 1", (digest, rowid)
        ).fetchone()
        if found is None:
            return None
        self._connection.execute(f"DELETE FROM {self._unclaimed} WHERE at = ?", found)
        return int(found[0])

    def _delete_replaced(self, rows: pa.Table) -> int:
        if not self._primary:
            return 0
        keys = rows.select(list(self._primary))
        for name in self._primary:
            keys = keys.filter(pc.is_valid(keys.column(name)))
        write_rows(self._connection, self._forget_statement(), keys)
        return delete_rows(self._connection, replace(self._collection, key=self._primary), keys, identical=False)

    def _forget_statement(self) -> Callable[[frozenset[int]], str]:
        table, rowid = quoted(self._collection.name), quoted(self._rowid)

        def statement(as_text: frozenset[int]) -> str:
            tests = (f"{quoted(name)} = {placeholder(i + 1, i in as_text)}" for i, name in enumerate(self._primary))
            same = f"SELECT {rowid} FROM {table} WHERE {' AND '.join(tests)}"
            return f"DELETE FROM {self._unclaimed} WHERE at IN ({same})"

        return statement


def _digest(values: Row) -> bytes:
    """Digest a row's values with their storage classes, which Python's own types and notation tell apart."""
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
