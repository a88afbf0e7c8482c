"""Numbers about the rows of one collection, which later verifications compare theirs with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum

from pydantic import JsonValue

from blocks.plan.expression import Value
from blocks.plan.quality.table import CheckedTable
from blocks.verification import CollectionProfile, ColumnProfile

MAX_COLUMNS = 50
"""Columns of a collection whose numbers are kept, the first ones: some KB with each verification."""

EXACT_ROWS = 200_000
"""Up to how many rows distinct values are counted exactly; of more they are estimated, within some percent."""


class Kind(Enum):
    """What can be said of the values of a column."""

    NUMBER = "number"
    """Integers and decimals: least, greatest, mean."""
    FLOAT = "float"
    """Likewise, of those that are finite."""
    TIME = "time"
    """Moments with a zone, in UTC: least and greatest."""
    LOCAL_TIME = "local time"
    """Moments without a zone: least and greatest."""
    DATE = "date"
    """Days: least and greatest."""
    TEXT = "text"
    """Nothing of the values themselves: they may not be shown."""
    OTHER = "other"
    """Likewise: bytes, truth values, lists."""


_KINDS = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DECIMAL"), Kind.NUMBER),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"), Kind.NUMBER),
    **dict.fromkeys(("FLOAT", "DOUBLE"), Kind.FLOAT),
    **dict.fromkeys(("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"), Kind.TIME),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"), Kind.LOCAL_TIME),
    "DATE": Kind.DATE,
    "VARCHAR": Kind.TEXT,
}


def kind_of(sql_type: str) -> Kind:
    """Return what can be said of values of a type, in the words of DuckDB."""
    return Kind.OTHER if sql_type.endswith("]") else _KINDS.get(sql_type.partition("(")[0], Kind.OTHER)


def profile(table: CheckedTable, max_columns: int = MAX_COLUMNS) -> CollectionProfile:
    """Compute numbers about the rows of a table, in one pass over them.

    Args:
        table: The restored rows.
        max_columns: How many columns to look at, from the first.
    """
    names = list(table.columns)[:max_columns]
    asked = [part for name in names for part in _aggregates(table, name)]
    if not asked:
        return CollectionProfile(rows=table.rows)
    with table.connection.cursor() as cursor:
        found = cursor.execute(f"SELECT {', '.join(asked)} FROM {table.name}").fetchone()
    assert found is not None
    width = len(found) // len(names)
    each = {name: found[n * width : (n + 1) * width] for n, name in enumerate(names)}
    columns = {name: _numbers(table, name, one) for name, one in each.items()}
    return CollectionProfile(rows=table.rows, columns=columns)


def _aggregates(table: CheckedTable, name: str) -> list[str]:
    """Return what is computed of a column: values that are not NULL, distinct ones, least, greatest, mean."""
    value = table.sql(name)
    # hashes of long texts take less room than they, and differ as they do
    distinct = f"approx_count_distinct({value})"
    if table.rows <= EXACT_ROWS:
        distinct = f"count(DISTINCT hash({value})) FILTER ({value} IS NOT NULL)"
    return [f"count({value})", distinct, *_range(value, kind_of(table.columns[name].type))]


def _range(value: str, kind: Kind) -> tuple[str, str, str]:
    """Return the SQL of least, greatest and mean value; times as microseconds, which no zone of a session changes."""
    finite = f"FILTER (isfinite({value}))"
    match kind:
        case Kind.NUMBER:
            return f"min({value})", f"max({value})", f"favg(CAST({value} AS DOUBLE))"
        case Kind.FLOAT:
            return f"min({value}) {finite}", f"max({value}) {finite}", f"favg({value}) {finite}"
        case Kind.TIME | Kind.LOCAL_TIME:
            return f"epoch_us(min({value}) {finite})", f"epoch_us(max({value}) {finite})", "NULL"
        case Kind.DATE:
            return f"CAST(min({value}) {finite} AS VARCHAR)", f"CAST(max({value}) {finite} AS VARCHAR)", "NULL"
    return "NULL", "NULL", "NULL"


def _numbers(table: CheckedTable, name: str, found: Sequence[object]) -> ColumnProfile:
    present, distinct, least, greatest, mean = found
    assert isinstance(present, int)
    assert isinstance(distinct, int)
    column = table.columns[name]
    kind = kind_of(column.type)
    return ColumnProfile(
        nulls=table.rows - present - column.wrong,
        distinct=min(distinct, present),
        minimum=_json(kind, least),
        maximum=_json(kind, greatest),
        mean=float(mean) if isinstance(mean, int | float | Decimal) else None,
    )


def _json(kind: Kind, value: object) -> JsonValue:
    """Write a value as JSON: decimals and times as text."""
    if isinstance(value, int) and kind in (Kind.TIME, Kind.LOCAL_TIME):
        return _moment(value, kind is Kind.TIME)
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
    """Read the least or greatest value of a profile as what it stands for; None where there is none to compute with."""
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
