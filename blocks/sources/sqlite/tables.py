"""What a table is as a collection: its key, the order it is stored in, and the virtual table it may belong to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blocks.errors import UnsupportedState
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite.rows import quoted
from blocks.sources.sqlite.schema import SchemaObject, TableShape


@dataclass(frozen=True)
class _Table:
    """What the database says of one table."""

    columns: tuple[tuple[str, str], ...]
    primary: tuple[str, ...]
    nullable: tuple[str, ...]
    """Columns of the primary key that may hold NULL."""
    alias: bool
    """Whether the primary key is the rowid."""
    without_rowid: bool


def _inspect(connection: sqlite3.Connection, name: str) -> _Table:
    info = connection.execute(
        'SELECT name, type, pk, "notnull" FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY cid', (name,)
    ).fetchall()
    keys = sorted((row for row in info if row[2]), key=lambda row: int(row[2]))
    (without_rowid,) = connection.execute(
        "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)
    ).fetchone()
    indexed = connection.execute("SELECT 1 FROM pragma_index_list(?) WHERE origin = 'pk'", (name,)).fetchone()
    return _Table(
        columns=tuple((row[0], row[1]) for row in info),
        primary=tuple(row[0] for row in keys),
        nullable=tuple(row[0] for row in keys if not row[3]),
        alias=not without_rowid and len(keys) == 1 and indexed is None,
        without_rowid=bool(without_rowid),
    )


def primary_key(connection: sqlite3.Connection, name: str) -> tuple[str, ...]:
    """Return the columns of a table's primary key, in its order; none where it has none."""
    return _inspect(connection, name).primary


def table_spec(
    connection: sqlite3.Connection,
    name: str,
    has_null: Callable[[sqlite3.Connection, str, tuple[str, ...]], bool] | None = None,
) -> CollectionSpec:
    """Describe a table as a collection.

    The key is the primary key, or the rowid where there is none or where it holds a NULL. A rowid that is no
    column of its own is carried as an extra one, so that restored rows keep it.

    Args:
        connection: A connection with a read transaction open.
        name: Name of the table.
        has_null: Returns whether a row has a NULL in one of some columns; an ordinary look by default.

    Raises:
        UnsupportedState: The table's columns hide its rowid.
    """
    table = _inspect(connection, name)
    if table.alias or table.without_rowid:
        return _spec(name, table, key=table.primary, locator=table.primary, rowid=None)
    taken = {column.lower() for column, _ in table.columns}
    rowid = next((word for word in ("rowid", "_rowid_", "oid") if word not in taken), None)
    if rowid is None:
        raise UnsupportedState(
            f"table {name!r} has columns named rowid, _rowid_ and oid, so that its rowids cannot be read",
            hint="Rename one of the columns, or leave the table out with `exclude` or `on_unsupported: skip`.",
        )
    keyed = bool(table.primary) and not (has_null or holds_null)(connection, name, table.nullable)
    return _spec(name, table, key=table.primary if keyed else (rowid,), locator=(rowid,), rowid=rowid)


def _spec(
    name: str, table: _Table, key: tuple[str, ...], locator: tuple[str, ...], rowid: str | None
) -> CollectionSpec:
    extra = ((rowid, "INTEGER"),) if rowid else ()
    shape = TableShape(locator=locator, rowid=rowid, without_rowid=table.without_rowid)
    return CollectionSpec(name, key, key, table.columns + extra, shape.to_manifest())


def holds_null(connection: sqlite3.Connection, name: str, columns: tuple[str, ...], *, by_index: bool = True) -> bool:
    """Whether a table has a row with a NULL in one of some columns."""
    if not columns:
        return False
    test = " OR ".join(f"{quoted(column)} IS NULL" for column in columns)
    table = quoted(name) if by_index else f"{quoted(name)} NOT INDEXED"
    return connection.execute(f"SELECT 1 FROM {table} WHERE {test} LIMIT 1").fetchone() is not None


def shadow_tables(
    connection: sqlite3.Connection, objects: Iterable[SchemaObject]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Find the shadow tables of each virtual table, and the virtual tables whose module is not here."""
    objects = list(objects)
    virtual = sorted((thing.name for thing in objects if thing.virtual), key=len, reverse=True)
    unknown = [name for name in virtual if not _opens(connection, name)]
    kinds = dict(connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'"))
    shadows: dict[str, list[str]] = {name: [] for name in virtual}
    for thing in objects:
        owner = next((name for name in virtual if thing.name.startswith(f"{name}_")), None)
        # without its module SQLite does not know a shadow table for one, and only the name shows it
        if owner and thing.type == "table" and (kinds.get(thing.name) == "shadow" or owner in unknown):
            shadows[owner].append(thing.name)
    return {name: tuple(tables) for name, tables in shadows.items()}, unknown


_SHADOWS = {
    "_data": (("id", "block"),),
    "_idx": (("segid", "term", "pgno"),),
    "_docsize": (("id", "sz"), ("docid", "size")),
    "_config": (("k", "v"),),
    "_content": (("id",), ("docid",)),
    "_segments": (("blockid", "block"),),
    "_segdir": (("level", "idx", "start_block"),),
    "_stat": (("id", "value"),),
    "_node": (("nodeno", "data"),),
    "_parent": (("nodeno", "parentnode"),),
    "_rowid": (("rowid", "nodeno"),),
}
"""How the shadow tables of FTS3, FTS4, FTS5 and R*Tree end, and how their columns begin."""


def virtual_owner(collection: CollectionSpec) -> str | None:
    """Name the virtual table that a table is a shadow of if it is one, by its name and columns alone."""
    names = tuple(name for name, _ in collection.columns)
    for suffix, shapes in _SHADOWS.items():
        if collection.name.endswith(suffix) and any(names[: len(shape)] == shape for shape in shapes):
            return collection.name.removesuffix(suffix)
    return None


def _opens(connection: sqlite3.Connection, name: str) -> bool:
    try:
        connection.execute(f"SELECT * FROM {quoted(name)} LIMIT 0")
    except sqlite3.DatabaseError:  # no module, or an index that is damaged: its shadow tables are rows all the same
        return False
    return True


def shape_of(collection: CollectionSpec) -> TableShape:
    """Read a table's shape from its collection.

    Raises:
        CorruptionDetected: The manifest does not describe a table of SQLite.
    """
    return TableShape.from_manifest(collection.definition)
