"""SQL over the collections of a backup, in DuckDB. Nothing is restored, and nothing else of the machine can be reached.

Each collection is the view `"source"."collection"`; only those that a query names are read, into files of a private
folder for temporary data, which goes with the query.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from blocks.errors import ConfigurationError
from blocks.plan.quality.column_types import quoted
from blocks.plan.quality.table import CheckedColumn
from blocks.records import Collection
from flows.pipeline.hints import nearest
from flows.reading.contents import Contents
from flows.reading.readable import columns_of, tables
from flows.reading.tables import RestoredTables

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 2_048
"""Rows of a result that are in memory at once."""
_PLAIN_KINDS = frozenset({"postgres", "sqlite"})
"""Sources whose tables are queried as they are; rows of others have been given another form."""
_EXAMPLE = 'Name collections as "source"."collection": SELECT * FROM "ledger"."orders" LIMIT 10'


@dataclass(frozen=True)
class Answer:
    """What a query gives.

    Attributes:
        columns: Name and SQL type of each column.
        rows: The rows, some at a time, with Arrow types; read inside of `answer` only.
        notes: What is to be known of the tables that were read, each a sentence.
    """

    columns: tuple[tuple[str, str], ...]
    rows: Iterator[pa.Table]
    notes: tuple[str, ...]


@contextmanager
def answer(contents: Contents, sql: str, seconds: float) -> Iterator[Answer]:
    """Run one SELECT statement.

    Args:
        contents: The backup.
        sql: The statement.
        seconds: How long it may take, from when its tables are read.

    Raises:
        ConfigurationError: The statement is wrong, is more than a SELECT, or took too long; says what DuckDB says.
        CorruptionDetected: What is stored is damaged.
        WrongKey: The credential is a writer's.
    """
    named = _named(contents, sql)
    contents.chain.open_data({})
    # importing it takes a while, and most commands never need it
    import duckdb

    kinds = {one.source: contents.kind(one) for one in named if contents.kind(one) in _PLAIN_KINDS}
    shaped = [_shaped(one, contents.kind(one)) for one in named]
    with RestoredTables(contents.backup.plan, shaped, kinds) as restored, _in_words(duckdb, seconds):
        for collection in named:
            for number, rows in enumerate(tables(contents, collection)):
                restored.add(collection.name, rows, number)
        made = restored.tables()
        cursor = restored.connection.cursor()
        notes = tuple(note for name, table in made.items() for note in _notes(name, table.columns))
        with _limited(cursor, seconds):
            relation = cursor.sql(sql)
            if relation is None:
                raise ConfigurationError("the query gives no rows", hint=_EXAMPLE)
            names = _distinct(relation.columns)
            columns = tuple(zip(names, map(str, relation.types), strict=True))
            yield Answer(columns, _rows(relation, names), notes)


def _rows(relation: duckdb.DuckDBPyRelation, names: Sequence[str]) -> Iterator[pa.Table]:
    for batch in relation.to_arrow_reader(BATCH_ROWS):
        yield pa.Table.from_batches([batch]).rename_columns(list(names))


def _named(contents: Contents, sql: str) -> list[Collection]:
    """Return the collections that a statement names.

    Raises:
        ConfigurationError: It is no single SELECT statement, or names what is not there.
    """
    import duckdb

    with duckdb.connect(":memory:", config={"enable_external_access": "false"}) as parser:
        row = parser.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    parsed: dict[str, Any] = json.loads(row[0]) if row else {}
    if parsed.get("error"):
        said = parsed.get("error_message", "it is not understood")
        if parsed.get("error_type") == "not implemented":
            said = "a query is a SELECT statement, which reads and changes nothing"
        raise ConfigurationError(f"the query cannot be run: {said}", hint=_EXAMPLE)
    if len(parsed.get("statements", [])) != 1:
        raise ConfigurationError("a query is one statement", hint=_EXAMPLE)
    known = {one.name.casefold(): one for one in contents.backup.collections}
    alike = {one.name: one for one in contents.backup.collections}
    local = {str(name).casefold() for name in _local_names(parsed)}
    found: dict[str, Collection] = {}
    for schema, table in _tables(parsed):
        name = f"{schema}/{table}"
        if not schema and table.casefold() in local:
            continue
        collection = alike.get(name) or known.get(name.casefold())
        if collection is None:
            raise _no_table(contents, schema, table)
        # names that differ in the case of letters only are views beside each other
        found |= {one.name: one for one in alike.values() if one.name.casefold() == collection.name.casefold()}
    return list(found.values())


def _no_table(contents: Contents, schema: str, table: str) -> ConfigurationError:
    names = {one.name: ".".join(map(quoted, one.name.split("/", 1))) for one in contents.backup.collections}
    near = nearest(f"{schema}/{table}" if schema else table, list(names))
    for name, written in names.items():
        near = near.replace(f"{name}?", f"{written}?") if near.endswith(f" {name}?") else near
    shown = f"{schema}.{table}" if schema else table
    return ConfigurationError(
        f"backup {contents.backup.backup_id} has no collection {shown!r} for the query{near}", hint=_EXAMPLE
    )


def _tables(node: object) -> Iterator[tuple[str, str]]:
    """Yield schema and name of each table in a parsed statement; what stands before the schema belongs to it."""
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            schema, table = str(node.get("schema_name", "")), str(node.get("table_name", ""))
            catalog = str(node.get("catalog_name", ""))
            yield (catalog, f"{schema}.{table}") if catalog else (schema, table)
        for inner in node.values():
            yield from _tables(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _tables(inner)


def _local_names(node: object) -> Iterator[str]:
    """Yield the names that a parsed statement gives to queries of its own (`WITH name AS`)."""
    if isinstance(node, dict):
        for entry in node.get("cte_map", {}).get("map", []):
            yield entry["key"]
        for inner in node.values():
            yield from _local_names(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _local_names(inner)


def _shaped(collection: Collection, kind: str) -> Collection:
    """Return a collection with the columns that people read."""
    columns = columns_of(collection, kind)
    names = {name for name, _ in columns}
    label = tuple(name for name in collection.label if name in names)
    return collection.model_copy(update={"columns": columns, "key": label, "label": label})


def _notes(name: str, columns: Mapping[str, CheckedColumn]) -> Iterator[str]:
    """Say what a query does not see as it is in the backup."""
    for column, told in columns.items():
        if told.wrong:
            yield f"{name}, column {column!r}: {told.wrong:,} values are not of type {told.type}, and NULL in the query"
        if told.nans:
            yield f"{name}, column {column!r}: {told.nans:,} values are NaN, and NULL in the query"
        if told.inexact:
            yield f"{name}, column {column!r}: too many digits for one decimal type, so the query sees doubles"


def _distinct(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        number, one = 1, name
        while one in found:
            number += 1
            one = f"{name}_{number}"
        found.append(one)
    return found


@contextmanager
def _limited(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _in_words(duckdb: Any, seconds: float) -> Iterator[None]:
    """Translate what DuckDB says.

    Raises:
        ConfigurationError: The statement is wrong, or took too long.
    """
    try:
        yield
    except duckdb.InterruptException as exc:
        raise ConfigurationError(
            f"the query took longer than {seconds:g} s", hint="Ask for less, or give it more time with --timeout."
        ) from exc
    except duckdb.Error as exc:
        raise ConfigurationError(f"the query cannot be run: {exc}", hint=_EXAMPLE) from exc
