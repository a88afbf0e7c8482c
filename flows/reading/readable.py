"""The rows of each kind of source as tables that people read.

SQLite and PostgreSQL have tables, which stay as they are; a Python object has a row for each key, with its value as
JSON; a tree has a row for each file, folder and link; a database of Redis has one for each element of each key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from blocks.records import Collection
from flows.pipeline.chain import RestorePart
from flows.reading.contents import Contents, loaded

Columns = tuple[tuple[str, str], ...]
"""Name and declared type of each column, in order."""


def columns_of(collection: Collection, kind: str) -> Columns:
    """Return the columns of a collection as people read it.

    Args:
        collection: One of a backup.
        kind: The type of its source.
    """
    if kind == "files":
        from blocks.sources.files import readable as files  # each kind is imported only where it is read

        return files.COLUMNS
    if kind == "redis":
        from blocks.sources.redis import readable as redis

        return redis.COLUMNS
    hidden = _made_up(collection)
    return tuple(column for column in collection.columns if column[0] not in hidden)


def readable(rows: pa.Table, collection: Collection, kind: str) -> pa.Table:
    """Return rows as people read them, with the columns of `columns_of`; NULL where a column was not backed up.

    Args:
        rows: Rows as their source knows them: the collection's columns, or no columns where there are no rows.
        collection: The collection that they are of.
        kind: The type of its source.
    """
    if kind == "files":
        from blocks.sources.files import readable as files

        return files.entries(rows)
    if kind == "redis":
        from blocks.sources.redis import readable as redis

        return redis.element_rows(rows)
    names = [name for name, _ in columns_of(collection, kind)]
    for name in names:
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows))
    return rows.select(names)


def tables(contents: Contents, collection: Collection, keys: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Yield the rows of a collection as people read them, a table for each part that has any.

    Args:
        contents: The backup.
        collection: One of its collections.
        keys: Globs over keys; none for all.

    Raises:
        CorruptionDetected: What is stored is damaged.
        WrongKey: The credential is a writer's.
    """
    yield from readable_parts(contents.parts(collection, keys), contents.kind(collection))


def readable_parts(parts: Sequence[RestorePart], kind: str) -> Iterator[pa.Table]:
    """Yield the rows of some parts of one collection as people read them, a table for each that has any.

    Args:
        parts: The parts.
        kind: The type of their source.
    """
    for part in parts:
        for rows in loaded([part]):
            table = readable(rows, part.collection, kind)
            if table.num_rows:
                yield table


def _made_up(collection: Collection) -> frozenset[str]:
    """Return the columns that lastgood added: hash and number of a row of PostgreSQL that has no key."""
    match collection.definition.get("row"):
        case [str(digest), str(number)]:
            return frozenset((digest, number))
    return frozenset()
