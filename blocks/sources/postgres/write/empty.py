"""Brings a database back to what CREATE DATABASE makes, inside an open transaction.

What there is to drop is asked of the catalogue, and so is whether anything is left.
"""

from __future__ import annotations

from blocks.errors import RestoreRefused
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.schema.contents import FIRST_OF_USERS, Content, contents, named
from blocks.sources.postgres.schema.entries import split
from blocks.sources.postgres.schema.public_schema import renew_public
from blocks.sources.postgres.schema.system_privileges import changed_system_privileges

_FIRST = ("event trigger", "publication", "transform", "cast", "schema", "extension")
"""Kinds that are dropped before others: what would act on what follows, and what names types that go with schemas."""
_NOT_BY_DROP = ("default acl", "large object", "user mapping")
"""Kinds that have statements of their own, or that go with another object."""

_LARGE_OBJECTS = "SELECT 'SELECT pg_catalog.lo_unlink(' || oid || ')' FROM pg_catalog.pg_largeobject_metadata"

_DEFAULT_PRIVILEGES = """
WITH found AS (
    SELECT d.oid, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(d.defaclrole)) AS role, d.defaclrole, d.defaclacl,
           d.defaclobjtype::text AS type, CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
               WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END AS what
    FROM pg_catalog.pg_default_acl d WHERE d.defaclnamespace = 0)
SELECT 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || role || said FROM found, LATERAL (
    SELECT DISTINCT 1, ' REVOKE ALL ON ' || what || ' FROM ' || CASE WHEN a.grantee = 0 THEN 'PUBLIC'
        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
    FROM pg_catalog.aclexplode(defaclacl) a
    UNION ALL SELECT 2, ' GRANT ALL ON ' || what || ' TO ' || role
    UNION ALL SELECT 3, ' GRANT ' || CASE type WHEN 'f' THEN 'EXECUTE' ELSE 'USAGE' END || ' ON ' || what
        || ' TO PUBLIC' WHERE type IN ('f', 'T')) s (n, said)
ORDER BY found.oid, s.n
"""
"""Privileges for whatever is made later, in any schema, as they are where nobody has said anything."""

_PLPGSQL = "SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_extension WHERE extname = 'plpgsql'"


def drop_everything(session: Session) -> None:
    """Bring a database back to what CREATE DATABASE makes, inside the open transaction.

    Raises:
        RestoreRefused: Something is left.
    """
    for found in sorted(contents(session), key=_order):
        if found.schema is None and found.type not in _NOT_BY_DROP:
            kind = found.type.replace("-", " ").upper()
            session.execute(f"DROP {kind} IF EXISTS {found.dropped_as} CASCADE".encode())
    for query in (_LARGE_OBJECTS, _DEFAULT_PRIVILEGES):
        for (statement,) in session.execute(query.encode()).fetchall():
            session.execute(str(statement).encode())
    renew_public(session)
    _renew_plpgsql(session)
    reset_system_privileges(session)
    if left := contents(session):
        raise RestoreRefused(
            f"what the database holds cannot be dropped as a whole: {named(left)}",
            hint="Drop what is named by hand, or restore to a missing database with --to.",
        )


def _order(found: Content) -> int:
    return _FIRST.index(found.type) if found.type in _FIRST else len(_FIRST)


def _renew_plpgsql(session: Session) -> None:
    """Make the extension anew where it is not the one that initdb made, which nobody can change but by dropping it."""
    row = session.execute(_PLPGSQL.encode()).fetchone()
    if row is not None and int(str(row[0])) < FIRST_OF_USERS:
        return
    session.execute("DROP EXTENSION IF EXISTS plpgsql CASCADE")
    session.execute("CREATE EXTENSION plpgsql")


def reset_system_privileges(session: Session) -> None:
    """Give PostgreSQL's own objects the privileges that initdb gave them, inside the open transaction."""
    for statement in changed_system_privileges(session):
        session.execute(statement.encode())


def drop_plpgsql(session: Session, before: str) -> None:
    """Drop the extension where definitions make it, as they do where a user has once made it anew.

    Args:
        session: A session with the restore's transaction open.
        before: The definitions, which are run next.
    """
    made = "CREATE EXTENSION" in before and any(
        entry.type == "EXTENSION" and entry.plain("EXISTS") == "plpgsql" for entry in split(before)[1]
    )
    if made and session.execute(f"{_PLPGSQL} AND pg_catalog.pg_has_role(extowner, 'USAGE')".encode()).fetchone():
        session.execute("DROP EXTENSION plpgsql CASCADE")
