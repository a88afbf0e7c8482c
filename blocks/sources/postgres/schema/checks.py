"""CHECK constraints that rows cannot be held against while they are written, because other rows decide.

Those that call a function of a user may read another table, whose rows come later; those that were never validated
(NOT VALID) are broken by rows that are older than they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from blocks.sources.postgres.connect import Session, identifier, literal
from blocks.sources.postgres.schema.entries import Entry

_FOUND = """
SELECT CASE WHEN con.contypid <> 0 THEN 'DOMAIN' ELSE 'TABLE' END,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(coalesce(c.relname, t.typname)),
       con.conname::text, pg_catalog.pg_get_constraintdef(con.oid),
       pg_catalog.obj_description(con.oid, 'pg_constraint')
FROM pg_catalog.pg_constraint con
LEFT JOIN pg_catalog.pg_class c ON c.oid = con.conrelid
LEFT JOIN pg_catalog.pg_type t ON t.oid = con.contypid
JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
WHERE con.contype = 'c' AND con.coninhcount = 0 AND {which}
ORDER BY con.oid
"""

_CHECKS = _FOUND.format(
    which="""
  (%(of)s::text[] IS NULL OR con.conrelid = ANY (%(of)s::text[]::pg_catalog.regclass[])
       OR (con.contypid <> 0 AND (NOT con.convalidated OR con.contypid IN (
           SELECT a.atttypid FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = ANY (%(of)s::text[]::pg_catalog.regclass[])))))
  AND pg_catalog.pg_has_role(coalesce(c.relowner, t.typowner), 'USAGE')
  AND (NOT con.convalidated OR EXISTS (
      SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
      WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = con.oid
        AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND p.prolang NOT IN (SELECT l.oid FROM pg_catalog.pg_language l WHERE l.lanname IN ('c', 'internal'))))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.deptype = 'e' AND e.objid = coalesce(c.oid, t.oid)
      AND e.classid = CASE WHEN con.contypid <> 0 THEN 'pg_catalog.pg_type' ELSE 'pg_catalog.pg_class' END
          ::pg_catalog.regclass)"""
)

_BROKEN = _FOUND.format(
    which="""con.conname = %(name)s AND (con.conrelid IN (
    WITH RECURSIVE up (oid) AS (
        SELECT pg_catalog.to_regclass(%(table)s)::pg_catalog.oid
        UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid)
    SELECT oid FROM up WHERE oid IS NOT NULL)
  OR (con.contypid <> 0 AND con.contypid IN (
    WITH RECURSIVE down (oid) AS (
        SELECT pg_catalog.to_regtype(%(type)s)::pg_catalog.oid
        UNION SELECT b.typbasetype FROM pg_catalog.pg_type b JOIN down ON b.oid = down.oid)
    SELECT oid FROM down WHERE oid IS NOT NULL)))"""
)
"""A partition has its constraints of its table, a domain those of the domain that it is made of."""


def put_checks_aside(session: Session, tables: Sequence[str] | None) -> list[Entry]:
    """Drop such constraints; return what brings them back.

    Args:
        session: A session, in the transaction of the restore where there is one.
        tables: The tables that are written, quoted; None for all of the database.
    """
    given = list(tables) if tables is not None else None
    return _dropped(session, session.execute(_CHECKS, {"of": given}).fetchall())


def broken_check(error: psycopg.Error) -> dict[str, str | None]:
    """Return which CHECK an error names: the constraint, and its table or domain, quoted."""
    diag, schema = error.diag, error.diag.schema_name or ""
    table = identifier(schema, diag.table_name) if diag.table_name else None
    domain = identifier(schema, diag.datatype_name) if diag.datatype_name else None
    return {"name": diag.constraint_name, "table": table, "type": domain}


def put_broken_check_aside(session: Session, error: psycopg.Error) -> list[Entry]:
    """Drop the constraint that an error names; return what brings it back, nothing where there is none."""
    return _dropped(session, session.execute(_BROKEN, broken_check(error)).fetchall())


def _dropped(session: Session, found: Sequence[tuple[object, ...]]) -> list[Entry]:
    back = []
    for kind, at, name, definition, comment in found:
        quoted = identifier(str(name))
        # the server begins no savepoint right after a constraint of a domain was dropped, unless that was done in one
        with session.transaction():
            session.execute(f"ALTER {kind} {at} DROP CONSTRAINT {quoted}".encode())
        text = f"ALTER {kind} {at} ADD CONSTRAINT {quoted} {definition};"
        if comment is not None:
            on = f"DOMAIN {at}" if kind == "DOMAIN" else at
            text += f"\nCOMMENT ON CONSTRAINT {quoted} ON {on} IS {literal(str(comment))};"
        back.append(Entry("CHECK CONSTRAINT", text, ""))
    return back


_COMPUTES = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
               WHERE a.attrelid = %(of)s::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
                 AND (a.attgenerated <> '' OR t.typtype IN ('d', 'c')))
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint
               WHERE conrelid = %(of)s::pg_catalog.regclass AND contype = 'c')
    OR EXISTS (SELECT FROM pg_catalog.pg_index WHERE indrelid = %(of)s::pg_catalog.regclass
               AND (indexprs IS NOT NULL OR indpred IS NOT NULL))
"""


def computes(session: Session, table: str) -> bool:
    """Whether expressions of a user are evaluated for each row that is written to a table (quoted)."""
    return session.execute(_COMPUTES, {"of": table}).fetchone() == (True,)
