"""Drops the tables that an earlier restore made, with what it made for them, and nothing that others have or use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.schema.entries import split
from blocks.sources.postgres.schema.live import KINDS

_NEEDED = """
WITH RECURSIVE needed (classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, t::pg_catalog.regclass::pg_catalog.oid
    FROM pg_catalog.unnest(%(of)s::text[]) t
    UNION SELECT e.classid, e.objid FROM needed n, LATERAL (
        SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
        WHERE d.classid = n.classid AND d.objid = n.objid
        UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid FROM pg_catalog.pg_attrdef a
        WHERE n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND a.adrelid = n.objid
        UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, g.oid FROM pg_catalog.pg_trigger g
        WHERE n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND g.tgrelid = n.objid
        UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, c.oid FROM pg_catalog.pg_constraint c
        WHERE n.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.conrelid = n.objid AND c.contype <> 'f'
    ) e (classid, objid) WHERE e.objid >= 16384
)
SELECT o.type, coalesce(o.schema, ''), coalesce(o.name, ''), o.identity
FROM needed n, LATERAL pg_catalog.pg_identify_object(n.classid, n.objid, 0) o
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                  WHERE e.classid = n.classid AND e.objid = n.objid AND e.refobjid <> e.objid
                  AND e.deptype IN ('e', 'i'))
"""
"""What tables depend on, of users' objects: types, functions, sequences, parents, schemas, extensions."""

_DROPPED = {
    **dict.fromkeys(("table", "foreign table", "sequence", "view"), "relation"),
    **dict.fromkeys(("type", "composite type", "domain"), "type"),
    **dict.fromkeys(("function", "procedure", "aggregate"), "function"),
    **{"collation": "collation", "schema": "schema", "extension": "extension"},
}
_AS = {"composite type": "TYPE"}

_OWN_NAME = re.compile(r'(?:("(?:[^"]|"")*"|[^."(]+)\.)?("(?:[^"]|"")*"|[^."(]+)\(')
"""The name of a function before its arguments."""

At = tuple[str, str]


@dataclass(frozen=True)
class Object:
    """One that a table stands on.

    Attributes:
        kind: As DROP calls it.
        identity: As DROP names it.
        key: What it is looked for as, its schema and its own name, as the catalogue has them.
    """

    kind: str
    identity: str
    key: tuple[str, str, str]

    @classmethod
    def of(cls, kind: str, schema: str, name: str, identity: str) -> Object | None:
        """Make one of what the server says, which quotes names; None where it goes with others."""
        if kind not in _DROPPED:
            return None
        if not name and (found := _OWN_NAME.match(identity)):  # functions may share one
            name = found[2]
        return cls(_AS.get(kind, kind.upper()), identity, (_DROPPED[kind], _plain(schema), _plain(name)))

    def __str__(self) -> str:
        """Name it at the beginning of a sentence."""
        return f"{self.kind.capitalize()} {self.identity}"


def drop_created(
    session: Session, before: Backup, restored: Backup | None, tables: Sequence[At], *, all_of_them: bool
) -> list[str]:
    """Drop tables, and what was made for them and nothing else stands on; return sentences about what stays.

    Args:
        session: A session with the restore's transaction open.
        before: The state before they were made.
        restored: What they were made from; None where that is not known any more.
        tables: Schema and name of the tables that are there.
        all_of_them: Whether to fail where others stand on one of them, which stays otherwise.
    """
    if not tables:
        return []
    needed = _needed(session, tables)
    stay = _drop_tables(session, tables, all_of_them)
    own, kept = {("relation", *at) for at in tables}, _needed(session, stay)
    free = [one for one in needed if one not in kept and one.key not in own and _is_made(one, before, restored)]
    notes = [f"Table {'.'.join(at)} stays: other objects depend on it." for at in stay]
    if before.narrowed:  # what its definitions lack may have been there all the same
        return [*notes, *(f"{one} stays: it may be older than the table that stood on it." for one in free)]
    left = _drop_free(session, [(one.kind, one.identity) for one in free])
    return [*notes, *(f"{one} stays: other objects depend on it." for one in free if (one.kind, one.identity) in left)]


def drop_empty(session: Session, before: Backup, restored: Backup | None, tables: Sequence[At]) -> list[str]:
    """Drop those of some tables that hold no row of others; return sentences about what stays."""
    empty = [at for at in tables if _is_empty(session, at)]
    notes = [f"Table {'.'.join(at)} stays: it holds rows that others have written." for at in tables if at not in empty]
    return notes + drop_created(session, before, restored, empty, all_of_them=False)


def _is_empty(session: Session, at: At) -> bool:
    # a parent's own rows, and those of what inherits from it, which would keep it there
    row = session.execute(f"SELECT EXISTS (SELECT FROM {identifier(*at)})".encode()).fetchone()
    return row == (False,)


def _needed(session: Session, tables: Sequence[At]) -> list[Object]:
    rows = session.execute(_NEEDED, {"of": [identifier(*at) for at in tables]}).fetchall() if tables else []
    found = (Object.of(*map(str, row)) for row in rows)
    return [one for one in found if one is not None]


def _drop_tables(session: Session, tables: Sequence[At], all_of_them: bool) -> list[At]:
    """Drop tables, together where they refer to each other; return those that stay."""
    together = f"DROP TABLE {', '.join(identifier(*at) for at in tables)}".encode()
    if all_of_them:
        session.execute(together)
        return []
    with suppress(psycopg.errors.DependentObjectsStillExist), session.transaction():
        session.execute(together)
        return []
    left = _drop_free(session, [("TABLE", identifier(*at)) for at in tables])
    return [at for at in tables if ("TABLE", identifier(*at)) in left]


def _is_made(found: Object, before: Backup, restored: Backup | None) -> bool:
    """Whether a restore has made an object: what was backed up before it lacks it, and what it restored has it."""
    if found.key == ("schema", "", "public") or found.key in _known(before):
        return False
    return restored is None or found.key in _known(restored)


def _known(backup: Backup) -> set[tuple[str, str, str]]:
    """Return kind, schema and name of what the definitions of a backup make."""
    known: set[tuple[str, str, str]] = set()
    for entry in split(backup.before)[1]:
        if entry.type in KINDS and entry.subject is not None:
            known.add((KINDS[entry.type], entry.subject[0], entry.subject[1]))
        elif entry.type == "SCHEMA":
            known.add(("schema", "", entry.plain("EXISTS") or entry.plain("CREATE", "SCHEMA") or ""))
        elif entry.type == "EXTENSION":
            known.add(("extension", "", entry.plain("EXISTS") or ""))
    return known


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _drop_free(session: Session, objects: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop what nothing depends on, repeatedly; return what is left. What was dropped with another is gone already."""
    while True:
        left = [pair for pair in objects if not _drop(session, *pair)]
        if len(left) == len(objects):
            return left
        objects = left


def _drop(session: Session, kind: str, identity: str) -> bool:
    with suppress(psycopg.errors.DependentObjectsStillExist), session.transaction():
        session.execute(f"DROP {kind} IF EXISTS {identity}".encode())
        return True
    return False
