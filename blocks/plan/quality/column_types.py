"""Which type the values of a column are compared in, by what its source declared.

Sources hand out much as text (PostgreSQL's `numeric`, `date` and `timestamptz`), so that nothing is lost. Rules need
numbers and times. What a type cannot hold becomes NULL and is counted, so it is never taken for a value that is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

FREE_DECIMAL = "DECIMAL"
"""A decimal whose digits are not declared: as many as the values have."""
DIGITS = 38
"""Most digits of a decimal; what has more is compared as a double."""
TIMES = ("DATE", "TIMESTAMP", "TIMESTAMPTZ")

NamedType = Literal["text", "integer", "number", "decimal", "date", "timestamp", "boolean"]
"""What a suite may say of a column."""

_NAMED: dict[NamedType, str] = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "decimal": FREE_DECIMAL,
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "boolean": "BOOLEAN",
}
_SCALED = re.compile(r"numeric\((\d+),(\d+)\)")
_NAMED_BY_POSTGRES = {"date": "DATE", "oid": "BIGINT", "numeric": FREE_DECIMAL}
_INTEGER = re.compile(r"(?:UNSIGNED )?(?:TINY|SMALL|MEDIUM|BIG)?INT(?:EGER|\d)?\b")
_TIMESTAMP = re.compile(r"timestamp(?:\(\d\))? (with|without) time zone")


def named_type(name: NamedType) -> str:
    """Return the SQL type of a word that suites use."""
    return _NAMED[name]


def postgres_type(declared: str) -> str | None:
    """Return the SQL type that a column of PostgreSQL is compared in; None where its text is all there is to compare.

    Args:
        declared: The type as PostgreSQL writes it (`numeric(10,2)`).
    """
    if scaled := _SCALED.fullmatch(declared):
        precision, scale = int(scaled[1]), int(scaled[2])
        return f"DECIMAL({precision},{scale})" if scale <= precision <= DIGITS else FREE_DECIMAL
    if declared.startswith("numeric("):  # a scale below zero
        return FREE_DECIMAL
    if time := _TIMESTAMP.fullmatch(declared):
        return "TIMESTAMPTZ" if time[1] == "with" else "TIMESTAMP"
    return _NAMED_BY_POSTGRES.get(declared)


def sqlite_type(declared: str) -> Literal["number", "text"] | None:
    """Return what values of a column of SQLite are, where its declared type leaves no doubt; None where it does."""
    upper = declared.upper()
    if _INTEGER.match(upper) or any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "number"
    return "text" if any(word in upper for word in ("CHAR", "CLOB", "TEXT")) else None


def decimal_type(digits: int, scale: int) -> str:
    """Return the type that holds numbers of so many digits before and after the point; a double where none does."""
    if digits + scale > DIGITS:
        return "DOUBLE"
    return f"DECIMAL({max(digits + scale, 1)},{scale})"


def common_type(types: Iterable[str]) -> str:
    """Return the type that holds the values of several ones (`DECIMAL(9,2)`, `DECIMAL(30,6)`, `DOUBLE`) exactly.

    A double, where decimals have too many digits for one type.
    """
    found = set(types)
    if len(found) == 1:
        return found.pop()
    if not all(each.startswith("DECIMAL(") for each in found):
        return "DOUBLE"
    sizes = [tuple(map(int, each[8:-1].split(","))) for each in found]
    return decimal_type(max(width - scale for width, scale in sizes), max(scale for _, scale in sizes))


def quoted(name: str) -> str:
    """Quote an identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Quote a text for SQL."""
    return "'" + value.replace("'", "''") + "'"


def key_text(key: Iterable[str]) -> str:
    """Return the SQL expression of a row's key as people read it; `key` names its columns, as SQL calls them."""
    return "concat_ws(', ', " + ", ".join(f"CAST({quoted(name)} AS VARCHAR)" for name in key) + ")"
