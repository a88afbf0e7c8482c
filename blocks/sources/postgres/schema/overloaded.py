"""Functions and operators as values (`regproc`, `regoper`): the name alone does not say which, where it has several.

Such a value is read with the types of its arguments, as `regprocedure` and `regoperator` are written, where its name
is not the only one of its kind; a plain name stays what it was in earlier backups. No other type names objects so.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.postgres.connect import Session

_EXACT = {"regproc": "regprocedure", "regoper": "regoperator"}

_LISTED = r'\)"?[,}]'
"""What is in the text of an array where its elements have their arguments."""


def exact(base: str, quoted: str, plain: str) -> str:
    """Write the expression that reads a column so that its text means the same object again.

    Args:
        base: The type in `pg_catalog`, of a domain the one below it.
        quoted: The column.
        plain: The expression that reads its text as the type writes it.
    """
    kind = base.removeprefix("_")
    if kind not in _EXACT:
        return plain
    full = f"pg_catalog.{_EXACT[kind]}"

    def vague(value: str) -> str:
        text = f"{value}::pg_catalog.{kind}::pg_catalog.text"
        return f"{value}::pg_catalog.oid <> 0 AND pg_catalog.to_{kind}({text}) IS NULL"

    if kind == base:
        return f"CASE WHEN {vague(quoted)} THEN {quoted}::{full}::pg_catalog.text ELSE {plain} END"
    any_vague = f"EXISTS (SELECT FROM pg_catalog.unnest({quoted}) e WHERE {vague('e')})"
    return f"CASE WHEN {any_vague} THEN {quoted}::{full}[]::pg_catalog.text ELSE {plain} END"


def numbered(session: Session, read: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the text of a column as the server takes it: objects named with their arguments by their numbers there.

    Args:
        session: A session in the database whose objects are meant.
        read: The expression that the column was read with.
        column: What it read, text.

    Raises:
        psycopg.Error: There is no such object.
    """
    full = next((full for full in _EXACT.values() if f"::pg_catalog.{full}" in read), None)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if full is None or not text:  # a column of nothing but NULL may be of no type
        return column
    many = f"::pg_catalog.{full}[]" in read
    found = pc.match_substring_regex(column, _LISTED) if many else pc.ends_with(column, ")")
    names = pc.unique(column.filter(found))
    if not len(names):
        return column
    brackets = "[]" if many else ""
    rows = session.execute(
        f"SELECT v::pg_catalog.{full}{brackets}::pg_catalog.oid{brackets}::pg_catalog.text"
        " FROM pg_catalog.unnest(%s::pg_catalog.text[]) WITH ORDINALITY u (v, n) ORDER BY n".encode(),
        (names.to_pylist(),),
    ).fetchall()
    numbers = pa.array([str(number) for (number,) in rows], column.type)
    return pc.if_else(pc.fill_null(found, False), numbers.take(pc.index_in(column, names)), column)


def all_numbered(session: Session, reads: Sequence[str], rows: pa.Table) -> pa.Table:
    """Do that for all columns of rows, each with the expression that it was read with."""
    for place, read in enumerate(reads):
        if any(f"::pg_catalog.{full}" in read for full in _EXACT.values()):
            column = numbered(session, read, rows.column(place))
            rows = rows.set_column(place, rows.schema.field(place).name, column)
    return rows
