"""Indexes of a restored database: whether they are valid, and hold what their tables hold (amcheck)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from blocks.sources.postgres.connect import Session, identifier, told
from blocks.sources.proving import StoreFinding
from blocks.verification import Axis, CheckOutcome

_INDEXES = """
SELECT n.nspname::text, c.relname::text, t.relname::text, i.indisvalid AND i.indisready,
       m.amname = 'btree' AND c.relpersistence <> 't'
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'm')
JOIN pg_catalog.pg_am m ON m.oid = c.relam
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY 1, 2
"""
_INSTALLED = """
SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'amcheck'
"""
_AVAILABLE = """
SELECT FROM pg_catalog.pg_available_extensions a JOIN pg_catalog.pg_roles r ON r.rolname = current_user
WHERE a.name = 'amcheck' AND r.rolsuper
"""
_OWN = "lastgood_amcheck"
_DAMAGED = "XX"


def check_indexes(session: Session) -> Iterator[StoreFinding]:
    """Check all indexes of the open database, and look into those of type btree where amcheck can be had.

    The extension, which only a superuser can add, is added in a transaction that is rolled back.
    """
    found = [(*map(str, row[:3]), *row[3:]) for row in session.execute(_INDEXES.encode()).fetchall()]
    for schema, name, table, valid, _ in found:
        if not valid:
            yield StoreFinding(Axis.RESTORABLE, f"Index {schema}.{name} of {table} is not valid.")
    trees = [(str(schema), str(name)) for schema, name, _, valid, tree in found if valid and tree]
    if not trees:
        return
    with session.transaction(force_rollback=True):
        schema = _amcheck(session)
        for index in trees if schema is not None else ():
            if (finding := _looked_into(session, str(schema), index)) is not None:
                yield finding


def _amcheck(session: Session) -> str | None:
    """Return the schema of the extension, which is added where it can be."""
    if row := session.execute(_INSTALLED.encode()).fetchone():
        return str(row[0])
    if session.execute(_AVAILABLE.encode()).fetchone() is None:
        return None
    try:
        with session.transaction():
            session.execute(f"CREATE SCHEMA {_OWN}; CREATE EXTENSION amcheck SCHEMA {_OWN}".encode())
    except psycopg.errors.OperationalError:
        raise
    except psycopg.Error:  # an event trigger of the database forbids it, say
        return None
    return _OWN


def _looked_into(session: Session, schema: str, index: tuple[str, str]) -> StoreFinding | None:
    call = f"SELECT {identifier(schema)}.bt_index_check(%s::pg_catalog.regclass, true)"
    try:
        with session.transaction():
            session.execute(call.encode(), (identifier(*index),))
    except psycopg.errors.OperationalError:
        raise
    except psycopg.Error as exc:
        name, state = ".".join(index), exc.sqlstate or ""
        if state.startswith(_DAMAGED):
            return StoreFinding(Axis.RESTORABLE, f"Index {name} does not hold what its table holds: {told(exc)}.")
        said = f"Index {name} could not be compared with its table (SQLSTATE {state})."
        return StoreFinding(Axis.RESTORABLE, said, CheckOutcome.GOOD)
    return None
