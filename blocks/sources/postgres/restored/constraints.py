"""Constraints that came back without having been held against the rows (NOT VALID): how many rows break them."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.foreign_keys import COLUMNS, orphans
from blocks.sources.proving import StoreFinding, counted
from blocks.verification import Axis, CheckOutcome

_OPEN = f"""
SELECT o.contype::text, o.conname::text, n.nspname::text, coalesce(c.relname, t.typname)::text,
       coalesce(c.relkind = 'p', false), coalesce(pn.nspname, '')::text, coalesce(p.relname, '')::text,
       coalesce(p.relkind = 'p', false), CASE WHEN o.contype = 'f' THEN {COLUMNS} END,
       coalesce(pg_catalog.pg_get_expr(o.conbin, o.conrelid), ''), o.connoinherit,
       (SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE o.contype = 'n' AND a.attrelid = o.conrelid AND a.attnum = o.conkey[1]),
       coalesce(j.row ->> 'conperiod', 'false') = 'true', o.contypid <> 0
FROM pg_catalog.pg_constraint o
CROSS JOIN LATERAL pg_catalog.to_jsonb(o) j (row)
LEFT JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
LEFT JOIN pg_catalog.pg_type t ON t.oid = o.contypid
JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
LEFT JOIN pg_catalog.pg_class p ON p.oid = o.confrelid
LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE o.contype IN ('c', 'f', 'n') AND NOT o.convalidated AND o.coninhcount = 0 AND o.conparentid = 0
  AND coalesce(j.row ->> 'conenforced', 'true') = 'true'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' AND d.objid = coalesce(c.oid, t.oid))
ORDER BY n.nspname, 4, o.conname
"""


def check_constraints(session: Session) -> Iterator[StoreFinding]:
    """Count the rows that break constraints which the server has not held against them, in the open database."""
    for row in session.execute(_OPEN.encode(), ()).fetchall():
        kind, name, schema, table = (str(value) for value in row[:4])
        at = f"{schema}.{table}"
        what = {"c": f"CHECK {name}", "f": f"foreign key {name}", "n": f"NOT NULL {name}"}[kind]
        try:
            with session.transaction(force_rollback=True):
                finding = _held_against(session, row, what, at)
        except psycopg.errors.OperationalError:
            raise
        except psycopg.Error as exc:
            said = f"{what} of {at} could not be held against its rows (SQLSTATE {exc.sqlstate})."
            finding = StoreFinding(Axis.QUALITY, said, CheckOutcome.UNPROVEN)
        if finding is not None:
            yield finding


def _held_against(session: Session, row: tuple[object, ...], what: str, at: str) -> StoreFinding | None:
    kind, name, schema, table, spread, parent_schema, parent, parent_spread, columns = row[:9]
    expression, alone, column, period, of_domain = row[9:]
    quoted = identifier(str(schema), str(table))
    if of_domain or period:
        return _validated(session, f"{'DOMAIN' if of_domain else 'TABLE'} {quoted}", str(name), what, at)
    if kind == "f":
        key = (name, schema, table, spread, parent_schema, parent, parent_spread, columns)
        rows = _count(session, orphans(key, "pg_catalog.count(*)"))
        refer = "refers to a row" if rows == 1 else "refer to rows"
        there = "is" if rows == 1 else "are"
        said = f"{refer} of {parent_schema}.{parent} that {there} not there ({what})"
    else:
        rule = f"{identifier(str(column))} IS NULL" if kind == "n" else f"NOT ({expression})"
        rows = _count(session, f"SELECT pg_catalog.count(*) FROM {'ONLY ' if alone else ''}{quoted} WHERE {rule}")
        said = f"{'breaks' if rows == 1 else 'break'} {what}"
    return StoreFinding(Axis.QUALITY, f"{counted(rows)} of {at} {said}.") if rows else None


def _validated(session: Session, of: str, name: str, what: str, at: str) -> StoreFinding | None:
    """Let the server itself look, which ends at the first that breaks the rule."""
    try:
        session.execute(f"ALTER {of} VALIDATE CONSTRAINT {identifier(name)}".encode())
    except psycopg.IntegrityError:
        return StoreFinding(Axis.QUALITY, f"Values of {at} break {what}.")
    return None


def _count(session: Session, query: str) -> int:
    row = session.execute(query.encode()).fetchone()
    assert row is not None
    return int(str(row[0]))
