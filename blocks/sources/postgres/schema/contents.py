"""What a database holds that CREATE DATABASE does not make, of whatever kind, as the catalogue itself lists it.

Every catalogue with numbered rows is asked, so that no kind of object has to be known here by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from blocks.sources.postgres.connect import Session

FIRST_OF_USERS = 16384
"""The lowest number of an object that initdb did not make."""

_PARTS = "('pg_enum', 'pg_largeobject_metadata')"
"""Catalogues whose rows are no objects by themselves: labels of a type, and what is asked beside."""

_CATALOGUES = f"""
SELECT pg_catalog.string_agg(pg_catalog.format(
    'SELECT %s::pg_catalog.oid AS classid, oid AS objid FROM pg_catalog.%I WHERE oid >= {FIRST_OF_USERS}',
    c.oid, c.relname), ' UNION ALL ')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = 'oid' AND a.attnum > 0
WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r' AND NOT c.relisshared
  AND c.oid < {FIRST_OF_USERS} AND c.relname NOT IN {_PARTS}
"""

_OBJECTS = """
SELECT o.type, o.schema, o.identity, CASE WHEN o.type = 'transform' THEN (
    SELECT 'FOR ' || pg_catalog.format_type(t.trftype, NULL) || ' LANGUAGE ' || pg_catalog.quote_ident(l.lanname)
    FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang WHERE t.oid = f.objid
    ) ELSE o.identity END
FROM ({found}) f, LATERAL pg_catalog.pg_identify_object(f.classid, f.objid, 0) o
WHERE coalesce(o.schema, '') !~ '^(pg_temp|pg_toast|pg_catalog$|information_schema$)'
  AND NOT (o.type = 'schema' AND (o.identity = 'public' OR o.identity ~ '^pg_'))
  AND NOT (o.type = 'extension' AND o.identity = 'plpgsql')
  AND o.type !~ '^(operator|function) of access method$'
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.classid = f.classid AND d.objid = f.objid AND d.objsubid = 0
    AND (d.refclassid, d.refobjid) <> (d.classid, d.objid) AND (d.deptype IN ('i', 'e') OR (
         d.deptype = 'a' AND d.classid <> 'pg_catalog.pg_default_acl'::pg_catalog.regclass)))
UNION ALL SELECT 'large object', NULL, oid::pg_catalog.text, oid::pg_catalog.text
FROM pg_catalog.pg_largeobject_metadata
ORDER BY 1, 3
"""
"""Without what belongs to another object, and without the additions to PostgreSQL's own operator families."""


@dataclass(frozen=True)
class Content:
    """One object.

    Attributes:
        type: As the server calls it: `table`, `event trigger`, `foreign-data wrapper`, ...
        schema: The one that it is in; None where it is in none.
        identity: Its name, quoted, for people.
        dropped_as: Its name as DROP wants it.
    """

    type: str
    schema: str | None
    identity: str
    dropped_as: str

    def __str__(self) -> str:
        """Name it."""
        return f"{self.type} {self.identity}"


def contents(session: Session) -> list[Content]:
    """List the objects of a database, apart from the schema `public`, the extension plpgsql and temporary tables."""
    row = session.execute(_CATALOGUES.encode()).fetchone()
    assert row is not None
    rows = session.execute(_OBJECTS.replace("{found}", str(row[0])).encode())
    return [
        Content(str(kind), None if schema is None else str(schema), str(identity), str(name))
        for kind, schema, identity, name in rows
    ]


def named(found: list[Content], shown: int = 5) -> str:
    """Name objects, and how many more there are."""
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return ", ".join(map(str, found[:shown])) + more
