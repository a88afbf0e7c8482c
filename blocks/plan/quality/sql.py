"""Rules that are SQL: one query that reads restored rows, of any collection, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blocks.errors import ConfigurationError
from blocks.plan.quality.column_types import key_text

if TYPE_CHECKING:
    import duckdb

BATCH = "{batch}"
"""What stands in a query for the table of its suite, as Great Expectations has it."""
SUITES = "suites"
"""The schema of tables that suites make of keys or files (`"suites"."NAME"`)."""
_TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"})
"""Table functions that a query may use: they make rows of values. Others read settings and files."""
_HINT = 'It is one SELECT of DuckDB\'s SQL over {batch} and tables like "source"."collection".'


class QueryTimeout(Exception):
    """A query ran longer than its suite gives it."""


def tables_in(where: str, query: str) -> set[tuple[str, str]]:
    """Return schema and name of all tables that a query reads, names of its own (WITH) left out.

    Raises:
        ConfigurationError: It is no SELECT, or cannot be parsed.
    """
    # importing it takes a while, and most suites have no SQL
    import duckdb

    query = _with_batch(query, _ITSELF)
    with duckdb.connect(":memory:") as connection:
        # as it stands, and as it is run
        parsed, run = (_parsed(connection, text) for text in (query, f"SELECT count(*) FROM ({query}\n)"))
    for one in (parsed, run):
        if one.get("error"):
            raise ConfigurationError(f"{where}: {one.get('error_message', 'no query')}", hint=_HINT)
        if len(one["statements"]) != 1:
            raise ConfigurationError(f"{where}: there is more than one statement", hint=_HINT)
    if others := sorted({*_table_functions(parsed)} - _TABLE_FUNCTIONS):
        known = ", ".join(sorted(_TABLE_FUNCTIONS))
        raise ConfigurationError(
            f"{where}: {', '.join(others)} is no table of restored rows",
            hint=f"{_HINT} Of table functions there are {known}.",
        )
    return {(each["schema_name"], each["table_name"]) for each in _base_tables(parsed) if each["schema_name"]}


def _parsed(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    said = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchone()
    found: dict[str, Any] = json.loads(str(said[0])) if said else {"error": True}
    return found


_ITSELF = '"itself"'


def check_query(where: str, query: str) -> None:
    """Refuse what is not one SELECT.

    Raises:
        ConfigurationError: It is something else, or cannot be parsed.
    """
    tables_in(where, query)


def counted(connection: duckdb.DuckDBPyConnection, query: str, batch: str, seconds: float) -> int:
    """Run a query and return how many rows it has.

    Args:
        connection: Reads restored rows, and nothing else.
        query: The query.
        batch: The table of the suite, quoted.
        seconds: How long it may take.

    Raises:
        duckdb.Error: It cannot be evaluated.
        QueryTimeout: It took too long.
    """
    return _one(connection, f"SELECT count(*) FROM ({_with_batch(query, batch)}\n)", seconds)


def differing(
    connection: duckdb.DuckDBPyConnection, queries: tuple[str, str], batch: str, seconds: float
) -> tuple[int, int, bool]:
    """Compare the rows of two queries, in whatever order.

    Returns how many do not match, how many there are, and whether there is any value among them.

    The larger of both counts, as Great Expectations has it: a row that is there twice has to match twice.
    Columns are compared by their place.
    """
    one, other = (f"({_with_batch(query, batch)}\n)" for query in queries)
    ones, others = counted(connection, queries[0], batch, seconds), counted(connection, queries[1], batch, seconds)
    lacking = _one(connection, f"SELECT count(*) FROM ({one} EXCEPT ALL {other})", seconds)
    values = sum(
        _one(connection, f"SELECT list_sum([*COLUMNS(*)]) FROM (SELECT count(COLUMNS(*)) FROM {each})", seconds)
        for each in (one, other)
    )
    return max(ones, others) - (ones - lacking), max(ones, others), bool(values)


def keys_of(
    connection: duckdb.DuckDBPyConnection, query: str, batch: str, seconds: float, key: tuple[str, ...], limit: int
) -> tuple[str, ...]:
    """Return keys of some rows that a query finds, where it has the columns of the key; else none."""
    with connection.cursor() as cursor, _limited(cursor, seconds):
        inner = f"({_with_batch(query, batch)}\n)"
        described = {str(row[0]) for row in cursor.execute(f"DESCRIBE {inner}").fetchall()}
        if not key or not {*key} <= described:
            return ()
        rows = cursor.execute(f"SELECT {key_text(key)} FROM {inner} LIMIT {limit}").fetchall()
    return tuple(str(row[0]) for row in rows)


def _one(connection: duckdb.DuckDBPyConnection, query: str, seconds: float) -> int:
    with connection.cursor() as cursor, _limited(cursor, seconds):
        row = cursor.execute(query).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def _limited(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    import duckdb

    late = threading.Event()

    def interrupt() -> None:
        late.set()
        cursor.interrupt()

    timer = threading.Timer(seconds, interrupt)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as exc:
        if not late.is_set():
            raise
        raise QueryTimeout(f"{seconds:g} s were not enough") from exc
    finally:
        timer.cancel()


def _with_batch(query: str, batch: str) -> str:
    return query.strip().rstrip(";").replace(BATCH, batch)


def _table_functions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"]["function_name"])
        for inner in node.values():
            yield from _table_functions(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _table_functions(inner)


def _base_tables(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield node
        for inner in node.values():
            yield from _base_tables(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _base_tables(inner)
