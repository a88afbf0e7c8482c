"""A table that rules are evaluated on: restored rows, typed, in files that DuckDB reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from blocks.plan.quality.column_types import quoted

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS = 250_000
"""Rows that are in memory as Python or pandas values at once."""


@dataclass(frozen=True)
class CheckedColumn:
    """A column, and what of it could not be had as a value of its type.

    Attributes:
        type: Its SQL type.
        sql_name: What SQL calls it: the same, unless the name differs from another one in its letters' case only.
        wrong: Values of another type, or outside of what the type holds; they are NULL in the table.
        nans: Values that are no number (NaN); they are NULL in the table, as in pandas.
        keys: Keys of some rows with wrong values.
        inexact: Whether decimals have too many digits, and are compared as doubles.
    """

    type: str
    sql_name: str
    wrong: int = 0
    nans: int = 0
    keys: tuple[str, ...] = ()
    inexact: bool = False


@dataclass(frozen=True)
class Unparsed:
    """What of a collection is not in the format that it should be in (a JSON text that was cut).

    Attributes:
        what: What they are, in the plural ("JSON texts").
        count: How many do not parse.
        total: How many there are.
        keys: Keys of some of them.
        said: What is said of them.
        severity: As of expectations.
    """

    what: str
    count: int
    total: int
    keys: tuple[str, ...] = ()
    said: str = "do not parse"
    severity: str = "critical"


@dataclass(frozen=True)
class CheckedTable:
    """A table of restored rows.

    Attributes:
        connection: What reads it; each thread needs a cursor of its own.
        name: What SQL calls it, quoted.
        columns: By name, in order.
        rows: How many there are.
        unparsed: What could not be taken into it.
        key: Names of the columns that identify a row.
    """

    connection: duckdb.DuckDBPyConnection
    name: str
    columns: dict[str, CheckedColumn]
    rows: int
    unparsed: tuple[Unparsed, ...] = ()
    key: tuple[str, ...] = field(default=())

    def sql(self, column: str) -> str:
        """Return what SQL calls a column, quoted."""
        return quoted(self.columns[column].sql_name)

    def batches(self, columns: Sequence[str], size: int | None = None) -> Iterator[pa.Table]:
        """Yield rows in their order.

        Args:
            columns: Names of the columns that are wanted; they are the columns of the tables.
            size: Most rows of a table; `BATCH_ROWS` by default.
        """
        size = size or BATCH_ROWS
        wanted = ", ".join(self.sql(column) for column in columns) or "1 AS nothing"
        with self.connection.cursor() as cursor:
            reader = cursor.sql(f"SELECT {wanted} FROM {self.name}").to_arrow_reader(size)
            for batch in reader:
                table = pa.Table.from_batches([batch])
                table = table.rename_columns(list(columns)) if columns else table
                for start in range(0, table.num_rows, size):
                    yield table.slice(start, size)

    def value(self, expression: str, *parameters: object) -> object:
        """Return what an SQL expression comes to over all rows."""
        with self.connection.cursor() as cursor:
            row = cursor.execute(f"SELECT {expression} FROM {self.name}", list(parameters)).fetchone()
        return None if row is None else row[0]
