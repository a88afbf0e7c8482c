"""What a database holds that may not be rebuilt from a backup: looked for each time, with bounded work, and said.

All of it is suspicion, so what cannot be looked at is passed over: a backup that would otherwise be made is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from blocks.sources.postgres.choice import Choice
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.read.trials import failing
from blocks.sources.postgres.schema.database_facts import OrphanedKey
from blocks.sources.postgres.schema.foreign_keys import COLUMNS, orphans
from blocks.sources.postgres.schema.tables import Table
from blocks.sources.postgres.write.pieces import in_pieces

ORPHANS_LOOKED_FOR_BYTES = 16 * 1024 * 1024
"""Size of all tables together whose foreign keys are checked by one backup; the smallest come first.

Of a table that is referred to no more counts than ten times the other: beyond that the server looks into its index.
"""
KEYS_LOOKED_AT = 500
"""How many foreign keys one backup checks at most."""
_AT_ONCE = 50
"""Foreign keys that are checked by one query, whose locks are let go with it."""
_LONGEST_SECONDS = 2
"""How long such a query may take, and each other one."""

_EXTENSIONS = """
SELECT extname::text FROM pg_catalog.pg_extension
WHERE extname NOT IN (SELECT name FROM pg_catalog.pg_available_extensions()) ORDER BY 1
"""

_COLLATIONS = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.collname) FROM pg_catalog.pg_collation c
JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion IS NOT NULL AND (c.oid >= 16384 OR c.oid IN (
    SELECT a.attcollation FROM pg_catalog.pg_attribute a
    WHERE a.attrelid >= 16384 AND a.attcollation NOT IN (0, 100, 950, 951)))
  AND c.collversion <> pg_catalog.pg_collation_actual_version(c.oid) ORDER BY 1
"""
"""Columns of most tables have the collations of PostgreSQL's own that have no version (100, 950, 951)."""

_OF_THE_DATABASE = """
SELECT 'the default of the database' FROM pg_catalog.pg_database d
WHERE d.datname = pg_catalog.current_database()
  AND d.datcollversion <> pg_catalog.pg_database_collation_actual_version(d.oid)
"""
_SINCE = 150000
"""The first version of the server that remembers a version for its databases."""

_FOREIGN_KEYS = f"""
WITH keys AS (
    SELECT con.oid, con.conname, con.conrelid, con.confrelid, con.conkey, con.confkey, con.conpfeqop
    FROM pg_catalog.pg_constraint con, LATERAL pg_catalog.to_jsonb(con) j (row)
    WHERE con.contype = 'f' AND con.conparentid = 0 AND con.convalidated
      AND coalesce(j.row ->> 'conenforced', 'true') = 'true' AND coalesce(j.row ->> 'conperiod', 'false') = 'false'
      AND pg_catalog.has_table_privilege(con.conrelid, 'SELECT')
      AND pg_catalog.has_table_privilege(con.confrelid, 'SELECT')
), sizes AS (
    SELECT r.relid, coalesce(pg_catalog.sum(pg_catalog.pg_relation_size(part)), 0) AS bytes
    FROM (SELECT conrelid FROM keys UNION SELECT confrelid FROM keys) r (relid),
    LATERAL (SELECT r.relid UNION SELECT t.relid FROM pg_catalog.pg_partition_tree(r.relid) t) parts (part)
    GROUP BY r.relid
), ordered AS (
    SELECT k.*, pg_catalog.sum(work) OVER (ORDER BY work, k.oid) AS bytes
    FROM keys k JOIN sizes a ON a.relid = k.conrelid JOIN sizes b ON b.relid = k.confrelid,
    LATERAL (SELECT a.bytes + least(b.bytes, 10 * a.bytes)) w (work)
)
SELECT o.conname::text, n.nspname::text, c.relname::text, c.relkind = 'p', pn.nspname::text, p.relname::text,
       p.relkind = 'p',
       {COLUMNS}
FROM ordered o
JOIN pg_catalog.pg_class c ON c.oid = o.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = o.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE o.bytes <= %s ORDER BY o.bytes, o.oid LIMIT %s
"""


@dataclass(frozen=True)
class Suspects:
    """What may not be rebuilt.

    Attributes:
        sentences: All of it, in words.
        orphaned: The foreign keys that rows of the snapshot break.
    """

    sentences: tuple[str, ...]
    orphaned: tuple[OrphanedKey, ...]


def suspects(session: Session, place: str, choice: Choice, tables: Sequence[Table]) -> Suspects:
    """Look for what may not be rebuilt from a backup of the open database.

    Args:
        session: A session inside the snapshot of the view.
        place: Name of the place, without secrets; for messages.
        choice: What the plan covers; extensions only where it leaves nothing out.
        tables: The tables that it covers.
    """
    found = []
    if not choice.narrowed and (extensions := _names(session, _EXTENSIONS)):
        found.append(
            f"Extensions of {place} ({', '.join(extensions)}) are not installed on its server any more: this backup is"
            " restored only where they are, or with --keep-going."
        )
    collations = _names(session, _COLLATIONS)
    if session.info.server_version >= _SINCE:
        collations += _names(session, _OF_THE_DATABASE)
    if collations:
        found.append(
            f"Collations of {place} ({', '.join(collations)}) sort otherwise than when its indexes were made: unique"
            " ones may hold rows that a restore finds to be equal. REINDEX them, then refresh the collation's version."
        )
    orphaned = tuple(_orphaned(session, choice))
    found += [
        f"Rows of {key.at} in {place} refer to rows of {key.to} that are not there: foreign key {key.name} cannot be"
        " restored, but with --keep-going, as NOT VALID."
        for key in orphaned
    ]
    found += failing(session, place, choice, tables, lambda query: _rows(session, query))
    return Suspects(tuple(found), orphaned)


@contextmanager
def _bounded(session: Session) -> Iterator[None]:
    """Let no query take long, also not by waiting, and let all locks go that queries take."""
    with session.transaction(force_rollback=True):
        session.execute(f"SET LOCAL statement_timeout = '{_LONGEST_SECONDS}s'".encode())
        yield


def _names(session: Session, query: str) -> list[str]:
    return [str(name) for (name,) in _rows(session, query)]


def _rows(session: Session, query: str) -> list[tuple[object, ...]]:
    with suppress(psycopg.errors.Error), _bounded(session):
        return session.execute(query.encode()).fetchall()
    return []


def _orphaned(session: Session, choice: Choice) -> Iterator[OrphanedKey]:
    keys: list[tuple[object, ...]] = []
    with suppress(psycopg.errors.Error), _bounded(session):
        keys = session.execute(_FOREIGN_KEYS, (ORPHANS_LOOKED_FOR_BYTES, KEYS_LOOKED_AT)).fetchall()
    keys = [key for key in keys if all(choice.included(str(key[n]), str(key[n + 1])) for n in (1, 4))]
    for some in in_pieces(keys, _AT_ONCE):
        for name, schema, table, _, parent_schema, parent, *_ in _broken(session, some):
            yield OrphanedKey(str(name), f"{schema}.{table}", f"{parent_schema}.{parent}")


def _broken(session: Session, keys: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Return the foreign keys that rows break; one that cannot be looked at is passed over alone."""
    try:
        with _bounded(session):
            tests = ", ".join(f"EXISTS ({orphans(key)})" for key in keys)
            row = session.execute(f"SELECT {tests}".encode()).fetchone()
            assert row is not None
            return [key for key, broken in zip(keys, row, strict=True) if broken]
    except psycopg.errors.QueryCanceled:
        return []
    except psycopg.Error:
        return [found for key in keys for found in _broken(session, [key])] if len(keys) > 1 else []
