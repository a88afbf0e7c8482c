"""What the values of columns look like, for a suite that is suggested: formats, lengths, few values, order of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

from blocks.plan.quality.column_types import text
from blocks.plan.quality.table import CheckedTable
from blocks.verification import CollectionProfile
from flows.proving.profile import Kind, kind_of

FEW_VALUES = 20
"""Up to how many texts a column may have for a suite to list them."""
ENOUGH_ROWS = 50
"""Of fewer rows nothing is said of what values there can be."""
PAIRED_COLUMNS = 12
"""Of how many columns of one kind the order of pairs is looked at."""

ISO_TIME = "ISO time"
FORMATS: Mapping[str, str] = {
    "UUID": r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    "ISO date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    ISO_TIME: r"^[0-9]{4}(-[0-9]{2}){2}[T ][0-9]{2}(:[0-9]{2}){1,2}([.,][0-9]+)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?$",
    "e-mail": r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
    "whole number": r"^[+-]?[0-9]+$",
    "decimal number": r"^[+-]?[0-9]+(\.[0-9]+)?$",
    "upper case word": r"^[A-Z][A-Z0-9._:/-]*$",
    "lower case word": r"^[a-z][a-z0-9._:/-]*$",
}
"""Formats of text that are obvious, the narrowest first: regular expressions of RE2, which Python reads likewise."""

MOJIBAKE = "Ã[\u0080-\u00bf\u0152-\u2122]|â€|\ufffd"
"""What is left of text that was read in a wrong encoding, or could not be read."""

_FIRST = 2000
"""Rows that a format is tried on before all are looked at."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JSON = r"^\s*[\[{]"


@dataclass(frozen=True)
class TextFacts:
    """What all texts of a column have in common.

    Attributes:
        shortest: Characters of the shortest one.
        longest: Characters of the longest one.
        format: One of `FORMATS`, `JSON`, or None.
        clean: Whether none holds what a wrong encoding leaves.
        times: The first and the last, where each is a time; in UTC, if it says no zone.
        values: All that there are; empty where they are many or may not be shown.
    """

    shortest: int
    longest: int
    format: str | None
    clean: bool = True
    times: tuple[datetime, datetime] | None = None
    values: tuple[str, ...] = ()


def text_facts(table: CheckedTable, profile: CollectionProfile, values: bool) -> dict[str, TextFacts]:
    """Look at the columns of text, in two passes over all rows.

    Args:
        table: The restored rows.
        profile: Their numbers.
        values: Whether values of rows may be shown.
    """
    columns = [
        name
        for name, numbers in profile.columns.items()
        if kind_of(table.columns[name].type) is Kind.TEXT and numbers.distinct
    ]
    likely = _likely(table, columns)
    asked: list[str] = []
    for name in columns:
        sql = table.sql(name)
        other = [f"count(*) FILTER (NOT {_matches(sql, one)})" for one in likely[name]]
        asked += [f"min(length({sql}))", f"max(length({sql}))"]
        asked += [f"count(*) FILTER (regexp_matches({sql}, {text(MOJIBAKE)}))", f"[{', '.join(other)}]"]
        asked.append(_times(sql) if ISO_TIME in likely[name] else "NULL")
    found = _row(table, asked)
    facts = dict[str, TextFacts]()
    for place, name in enumerate(columns):
        shortest, longest, odd, others, times = found[5 * place : 5 * place + 5]
        format = next((one for one, count in zip(likely[name], others, strict=True) if not count), None)
        few = values and table.rows >= ENOUGH_ROWS and (profile.columns[name].distinct or 0) <= FEW_VALUES
        listed = _values(table, name) if few and format != ISO_TIME else ()
        facts[name] = TextFacts(shortest, longest, format, not odd, _moments(format, times), listed)
    return facts


def _times(sql: str) -> str:
    """Return the SQL of how many texts are no times, and of the first and the last one in microseconds."""
    moment = f"TRY_CAST({sql} AS TIMESTAMPTZ)"
    return f"[count({sql}) - count({moment}), epoch_us(min({moment})), epoch_us(max({moment}))]"


def _moments(format: str | None, times: Sequence[int] | None) -> tuple[datetime, datetime] | None:
    if format != ISO_TIME or times is None or times[0]:
        return None
    first, last = (_EPOCH + timedelta(microseconds=one) for one in times[1:])
    return first, last


def ordered_pairs(table: CheckedTable, profile: CollectionProfile) -> list[tuple[str, str]]:
    """Return pairs of columns of which the first is never less than the second, and whose ranges overlap by half.

    Args:
        table: The restored rows.
        profile: Their numbers.
    """
    pairs = [
        pair
        for kinds in ({Kind.NUMBER, Kind.FLOAT}, {Kind.TIME}, {Kind.LOCAL_TIME}, {Kind.DATE})
        for pair in permutations(_of_kinds(table, profile, kinds)[:PAIRED_COLUMNS], 2)
    ]
    if table.rows < ENOUGH_ROWS or not pairs:
        return []
    asked = []
    for greater, less in pairs:
        one, other = table.sql(greater), table.sql(less)
        asked += [f"count(*) FILTER ({one} < {other})", f"count(*) FILTER ({one} > {other})"]
        asked.append(f"max({other}) > min({one})")  # else their order says nothing
    found = _row(table, asked)
    each = zip(pairs, found[::3], found[1::3], found[2::3], strict=True)
    return [pair for pair, less, greater, overlap in each if not less and greater and overlap]


def _of_kinds(table: CheckedTable, profile: CollectionProfile, kinds: set[Kind]) -> list[str]:
    """Return columns of a kind that hold several values, without keys, which stand in an order by chance."""
    return [
        name
        for name, numbers in profile.columns.items()
        if kind_of(table.columns[name].type) in kinds and (numbers.distinct or 0) > 2 and name not in table.key
    ]


def _likely(table: CheckedTable, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return by column the formats that fit the first rows."""
    every = [*FORMATS, "JSON"]
    asked = [f"count(*) FILTER (NOT {_matches(table.sql(name), one)})" for name in columns for one in every]
    found = _row(table, asked, f"(SELECT * FROM {table.name} LIMIT {_FIRST})")
    width = len(every)
    counts = {name: found[n * width : (n + 1) * width] for n, name in enumerate(columns)}
    return {name: [one for one, other in zip(every, counts[name], strict=True) if not other] for name in columns}


def _matches(sql: str, format: str) -> str:
    if format == "JSON":
        return f"(json_valid({sql}) AND regexp_matches({sql}, {text(_JSON)}))"
    return f"regexp_matches({sql}, {text(FORMATS[format])})"


def _values(table: CheckedTable, name: str) -> tuple[str, ...]:
    sql = table.sql(name)
    with table.connection.cursor() as cursor:
        query = f"SELECT DISTINCT {sql} FROM {table.name} WHERE {sql} IS NOT NULL ORDER BY 1"
        return tuple(str(value) for (value,) in cursor.execute(query).fetchall())


def _row(table: CheckedTable, asked: Sequence[str], rows: str = "") -> Sequence[Any]:
    if not asked:
        return ()
    with table.connection.cursor() as cursor:
        return cursor.execute(f"SELECT {', '.join(asked)} FROM {rows or table.name}").fetchone() or ()
