"""Numbers about the rows of one collection, which later verifications compare theirs with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from pydantic import JsonValue

from blocks.plan.expression import Value
from blocks.verification import CollectionProfile, ColumnProfile

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_COLUMNS = 50
"""Columns of a collection whose numbers are kept, the first ones: some KB with each verification."""

EXACT_ROWS = 200_000
"""Up to how many rows distinct values are counted exactly; of more they are estimated, within some percent."""


class Kind(Enum):
    """What can be said of the values of a column."""

    NUMBER = "number"
    """Integers and decimals: least, greatest, mean."""
    FLOAT = "float"
    """Likewise, of those that are finite; NaN counts as NULL."""
    TIME = "time"
    """Moments with a zone, in UTC: least and greatest."""
    LOCAL_TIME = "local time"
    """Moments without a zone: least and greatest."""
    DATE = "date"
    """Days: least and greatest."""
    TIME_OF_DAY = "time of day"
    """Least and greatest."""
    TEXT = "text"
    """Nothing of the values themselves: they may not be shown."""
    OTHER = "other"
    """Likewise: bytes, truth values, lists."""


@dataclass(frozen=True)
class Column:
    """A column of a view.

    Attributes:
        name: Its name.
        type: Its type, in the words of DuckDB.
    """

    name: str
    type: str

    @property
    def kind(self) -> Kind:
        """What can be said of its values."""
        base = self.type.partition("(")[0]
        if base.endswith("]"):
            return Kind.OTHER
        return _KINDS.get(base, Kind.OTHER)

    @property
    def quoted(self) -> str:
        """Its name, as SQL has it."""
        return quoted(self.name)

    @property
    def value(self) -> str:
        """Its values in SQL; NaN is NULL."""
        return f"nullif({self.quoted}, 'nan')" if self.kind is Kind.FLOAT else self.quoted


_KINDS = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DECIMAL"), Kind.NUMBER),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT", "BIGNUM", "VARINT"), Kind.NUMBER),
    **dict.fromkeys(("FLOAT", "DOUBLE"), Kind.FLOAT),
    "TIMESTAMP WITH TIME ZONE": Kind.TIME,
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"), Kind.LOCAL_TIME),
    "DATE": Kind.DATE,
    "TIME": Kind.TIME_OF_DAY,
    **dict.fromkeys(("VARCHAR", "UUID", "ENUM"), Kind.TEXT),
}


def quoted(name: str) -> str:
    """Write a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def columns_of(connection: DuckDBPyConnection, view: str) -> list[Column]:
    """Return the columns of a view, in order."""
    described = connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {quoted(view)})").fetchall()
    return [Column(name, kind) for name, kind in described]


def profile(connection: DuckDBPyConnection, view: str, max_columns: int = MAX_COLUMNS) -> CollectionProfile:
    """Compute numbers about the rows of a view, in one pass over them.

    Args:
        connection: Where the view is.
        view: Its name.
        max_columns: How many columns to look at, from the first.
    """
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {quoted(view)}").fetchall()
    columns = columns_of(connection, view)[:max_columns]
    if not columns:
        return CollectionProfile(rows=rows)
    asked = [part for column in columns for part in _aggregates(column, rows <= EXACT_ROWS)]
    (found,) = connection.execute(f"SELECT {', '.join(asked)} FROM {quoted(view)}").fetchall()
    width = len(found) // len(columns)
    each = [found[n * width : (n + 1) * width] for n in range(len(columns))]
    return CollectionProfile(
        rows=rows, columns={column.name: _numbers(column, rows, one) for column, one in zip(columns, each, strict=True)}
    )


def _aggregates(column: Column, exact: bool) -> list[str]:
    """Return what is computed of a column: values that are not NULL, distinct ones, least, greatest, mean."""
    value = column.value
    distinct = f"count(DISTINCT {value})" if exact else f"approx_count_distinct({value})"
    return [f"count({value})", distinct, *_range(column)]


def _range(column: Column) -> tuple[str, str, str]:
    """Return the SQL of least, greatest and mean value; text of times is made here, where no zone of a session is."""
    value = column.quoted
    finite = f"FILTER (isfinite({value}))"
    match column.kind:
        case Kind.NUMBER:
            return f"min({value})", f"max({value})", f"favg(CAST({value} AS DOUBLE))"
        case Kind.FLOAT:
            return f"min({value}) {finite}", f"max({value}) {finite}", f"favg({value}) {finite}"
        case Kind.TIME | Kind.LOCAL_TIME:
            return f"epoch_us(min({value}) {finite})", f"epoch_us(max({value}) {finite})", "NULL"
        case Kind.DATE:
            return f"CAST(min({value}) {finite} AS VARCHAR)", f"CAST(max({value}) {finite} AS VARCHAR)", "NULL"
        case Kind.TIME_OF_DAY:
            return f"CAST(min({value}) AS VARCHAR)", f"CAST(max({value}) AS VARCHAR)", "NULL"
    return "NULL", "NULL", "NULL"


def _numbers(column: Column, rows: int, found: Sequence[object]) -> ColumnProfile:
    present, distinct, least, greatest, mean = found
    assert isinstance(present, int)
    assert isinstance(distinct, int)
    return ColumnProfile(
        nulls=rows - present,
        distinct=min(distinct, present),
        minimum=_json(column, least),
        maximum=_json(column, greatest),
        mean=float(mean) if isinstance(mean, int | float | Decimal) else None,
    )


def _json(column: Column, value: object) -> JsonValue:
    """Write a value as JSON: decimals and times as text."""
    if isinstance(value, int) and column.kind in (Kind.TIME, Kind.LOCAL_TIME):
        return _moment(value, column.kind is Kind.TIME)
    if isinstance(value, Decimal):
        return format(value, "f")
    return value if isinstance(value, int | float | str) else None


def _moment(microseconds: int, zoned: bool) -> str | None:
    """Write a moment as ISO 8601; None for one that Python has no form for."""
    seconds, rest = divmod(microseconds, 1_000_000)
    try:
        moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    except (OverflowError, ValueError, OSError):
        return None
    return (moment if zoned else moment.replace(tzinfo=None)).isoformat()


def read_value(value: JsonValue) -> Value | None:
    """Read the least or greatest value of a profile as what it stands for; None where there is none to compute with.

    A time of day has no date, so it is none either.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return value
    for read in (_decimal, date.fromisoformat, datetime.fromisoformat):
        try:
            return read(value)
        except (ValueError, ArithmeticError):
            continue
    return None


def _decimal(text: str) -> Decimal:
    found = Decimal(text)
    if not found.is_finite():
        raise ValueError("no number")
    return found
