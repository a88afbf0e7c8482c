"""RestoredTables: restored rows as tables that rules, profiles and SQL read, kept in files of a scratch folder.

A collection `source/name` is the view `"source"."name"` (so `books/public.orders` is `"books"."public.orders"`); names
that differ in the case of letters only get a number behind them, since SQL does not tell them apart. Memory is bounded
by a part and by what DuckDB may take; the rest is on disk.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from blocks.host.leftovers import scratch_folder
from blocks.plan.quality.column_types import (
    FREE_DECIMAL,
    common_type,
    decimal_type,
    key_text,
    postgres_type,
    quoted,
    sqlite_type,
    text,
)
from blocks.plan.quality.table import CheckedColumn, CheckedTable
from blocks.records import Collection
from flows.reading.typed_parts import EXAMPLES, PartShape, TypedPart, write_part

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "400MB"
"""What DuckDB may take; what needs more goes to the scratch folder."""
CONTENT = "data"
"""The column that holds the content of files, which no table has: `flows.proving.fields` reads it."""
_FITTING = {"BIGINT": ("int",), "DOUBLE": ("int", "float"), "VARCHAR": ("text",), "BLOB": ("bytes",)}
"""Kinds of values that a column of a type holds."""
_KINDS = {"BIGINT": "int", "DOUBLE": "float", "VARCHAR": "text", "BLOB": "bytes"}


@dataclass
class _Kept:
    """What is kept of one collection."""

    collection: Collection
    shape: PartShape
    kind: str
    view: str
    parts: list[TypedPart] = field(default_factory=list)


class RestoredTables:
    """Keeps restored rows of some collections as typed tables.

    Args:
        plan: Name of the plan, for the name of the scratch folder.
        collections: Those whose rows are kept; rows of others are not.
        kinds: The type of each source (`postgres`), by its name.
    """

    def __init__(
        self,
        plan: str,
        collections: Iterable[Collection],
        kinds: Mapping[str, str],
    ) -> None:
        self._scratch = scratch_folder("quality", plan)
        self.folder: Path = self._scratch.__enter__()
        self._guard = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        views = set[str]()
        for collection in collections:
            kind = kinds.get(collection.source, "")
            source, _, name = collection.name.partition("/")
            view = f"{quoted(source)}.{quoted(name)}"
            while view.casefold() in views:
                view = view[:-1] + '_2"'
            views.add(view.casefold())
            self._kept[collection.name] = _Kept(collection, _shape(collection, kind), kind, view)
        self.connection = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove all that is kept."""
        self.connection.close()
        self._scratch.__exit__(None, None, None)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        # importing it takes a while, and most commands never need it
        import duckdb

        folder = f"{self.folder}/"
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 2,
                "temp_directory": f"{folder}duckdb",
                "python_enable_replacements": "false",  # no query reads a variable of ours
                "autoload_known_extensions": "false",
                "autoinstall_known_extensions": "false",
            },
        )
        # nothing of the machine can be reached but what was put into the folder
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_directories = [{text(folder)}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def add(self, collection: str, rows: pa.Table, part: int = 0) -> None:
        """Keep restored rows of a collection, where they are wanted; thread-safe.

        Args:
            collection: Its full name.
            rows: Restored rows, with the columns of the collection.
            part: Number of the part, which says where the rows stand among the others.
        """
        kept = self._kept.get(collection)
        if kept is None or not rows.num_columns or not rows.num_rows:
            return
        with self._guard:
            number = len(kept.parts)
            kept.parts.append(TypedPart(part, self.folder / f"{kept.collection.number}-{number}.parquet", 0))
        with self.connection.cursor() as cursor:
            made = write_part(cursor, rows, kept.shape, part, kept.parts[number].path)
        with self._guard:
            kept.parts[number] = made

    def table(self, collection: str) -> CheckedTable:
        """Return a collection as a table, after all of its rows were added; its view is made anew.

        Args:
            collection: Its full name, which has to be one of those that are kept.
        """
        kept = self._kept[collection]
        parts = sorted((part for part in kept.parts if part.rows), key=lambda part: part.number)
        columns = {name: _column(name, kept, parts) for name in kept.shape.names}
        with self.connection.cursor() as cursor:
            for name, column in columns.items():
                if column.wrong and not column.keys:
                    columns[name] = replace(column, keys=_wrong_keys(cursor, column, kept, parts))
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(kept.collection.source)}")
            cursor.execute(f"CREATE OR REPLACE VIEW {kept.view} AS {_select(columns, parts)}")
        rows = sum(part.rows for part in parts)
        return CheckedTable(self.connection, kept.view, columns, rows, key=kept.collection.label)

    def tables(self) -> dict[str, CheckedTable]:
        """Return all collections as tables, by full name."""
        return {name: self.table(name) for name in self._kept}


def _shape(collection: Collection, kind: str) -> PartShape:
    names: dict[str, str] = {}
    for name, _ in collection.columns:
        if kind == "files" and name == CONTENT:
            continue
        names[name] = sql_name = name
        while sum(taken.casefold() == sql_name.casefold() for taken in names.values()) > 1:
            names[name] = sql_name = f"{sql_name}_2"
    targets = {
        name: target
        for name, declared in collection.columns
        if kind == "postgres" and (target := postgres_type(declared)) is not None
    }
    binary_texts = {"redis": ("key", "element", "value"), "files": ("path", "target")}.get(kind, ())
    return PartShape(names, targets, frozenset(binary_texts), collection.label)


def _column(name: str, kept: _Kept, parts: list[TypedPart]) -> CheckedColumn:
    """Settle the type of a column over all parts."""
    sql_name, target = kept.shape.names[name], kept.shape.targets.get(name)
    found = {part.types[sql_name] for part in parts if sql_name in part.types}
    wrong, nans = sum(part.wrong.get(name, 0) for part in parts), sum(part.nans.get(name, 0) for part in parts)
    keys = tuple(key for part in parts for key in part.keys.get(name, ()))[:EXAMPLES]
    if not found:
        return CheckedColumn(
            decimal_type(1, 0) if target == FREE_DECIMAL else target or "VARCHAR", sql_name, wrong, nans
        )
    counts = sum((Counter(part.counts.get(name, {})) for part in parts), Counter[str]())
    declared = sqlite_type(dict(kept.collection.columns).get(name, "")) if kept.kind == "sqlite" else None
    if "typed" in counts or (len(counts) == 1 and declared is None):
        one = common_type(found)
        return CheckedColumn(one, sql_name, wrong, nans, keys, one == "DOUBLE" and bool(target))
    one = _common_kind(counts, declared)
    wrong = sum(count for kind, count in counts.items() if kind not in _FITTING[one])
    return CheckedColumn(one, sql_name, wrong, nans)


def _wrong_keys(
    cursor: duckdb.DuckDBPyConnection, column: CheckedColumn, kept: _Kept, parts: list[TypedPart]
) -> tuple[str, ...]:
    """Return keys of some rows whose values are of another type than the column's."""
    keys = list[str]()
    key = key_text(tuple(kept.shape.names[name] for name in kept.shape.key))
    for part in parts:
        if len(keys) < EXAMPLES and kept.shape.key and column.sql_name in part.types:
            condition = _misfit(column, part.types[column.sql_name])
            query = f"SELECT {key} FROM read_parquet({text(str(part.path))}) WHERE {condition} LIMIT {EXAMPLES}"
            keys += [str(row[0]) for row in cursor.execute(query).fetchall()]
    return tuple(keys[:EXAMPLES])


def _common_kind(counts: Mapping[str, int], declared: str | None) -> str:
    """Return the SQL type of a column with values of several kinds: the declared one, or that of the most."""
    numbers = counts.get("int", 0) + counts.get("float", 0)
    if declared is None:
        most = max(("text", "bytes"), key=lambda kind: counts.get(kind, 0))
        declared = "number" if numbers >= counts.get(most, 0) else most
    if declared == "number":
        return "DOUBLE" if counts.get("float") else "BIGINT"
    return "VARCHAR" if declared == "text" else "BLOB"


def _select(columns: Mapping[str, CheckedColumn], parts: list[TypedPart]) -> str:
    """Return the query that reads the files of a collection as one table."""
    alike: list[tuple[dict[str, str], list[str]]] = []
    for part in parts:
        if part.types and alike and alike[-1][0] == part.types:
            alike[-1][1].append(text(str(part.path)))
        elif part.types:
            alike.append((part.types, [text(str(part.path))]))
    if not alike:
        return f"SELECT {', '.join(_read(column, None) for column in columns.values()) or '1 AS nothing'} WHERE false"
    return " UNION ALL ".join(
        f"SELECT {', '.join(_read(column, types.get(column.sql_name)) for column in columns.values())} "
        f"FROM read_parquet([{', '.join(paths)}])"
        for types, paths in alike
    )


def _read(column: CheckedColumn, stored: str | None) -> str:
    """Return the expression that reads a column from a file in which it is stored as some type."""
    name = quoted(column.sql_name)
    if stored is None:
        return f"CAST(NULL AS {column.type}) AS {name}"
    if stored == column.type:
        return name
    if stored.startswith("STRUCT"):
        fields = {"BIGINT": f"{name}.int", "DOUBLE": f"coalesce({name}.float, CAST({name}.int AS DOUBLE))"}
        return f"{fields.get(column.type, f'{name}.{_KINDS[column.type]}')} AS {name}"
    if stored.startswith("DECIMAL") or (stored == "BIGINT" and column.type == "DOUBLE"):
        return f"CAST({name} AS {column.type}) AS {name}"
    return f"CAST(NULL AS {column.type}) AS {name}"


def _misfit(column: CheckedColumn, stored: str | None) -> str:
    """Return the condition that a row of a file holds a value that the column's type does not."""
    name = quoted(column.sql_name)
    if stored is None:
        return "false"
    if stored.startswith("STRUCT"):
        kinds = [kind for kind in _KINDS.values() if kind not in _FITTING[column.type]]
        return " OR ".join(f"{name}.{kind} IS NOT NULL" for kind in kinds)
    return f"{name} IS NOT NULL" if _KINDS.get(stored) not in _FITTING[column.type] else "false"
