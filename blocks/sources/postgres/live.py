"""What a live database holds, and what of it stands in the way of writing rows.

Foreign keys, constraints that old rows need not fulfil, and triggers are put aside for one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.sources.postgres.connect import Session, identifier, literal
from blocks.sources.postgres.entries import Name
from blocks.sources.postgres.public import renew_public

_CONSTRAINTS = """
SELECT con.conrelid::pg_catalog.regclass::text, con.conname::text, pg_catalog.pg_get_constraintdef(con.oid),
       pg_catalog.obj_description(con.oid, 'pg_constraint')
FROM pg_catalog.pg_constraint con
WHERE (con.contype = 'f' AND con.conparentid = 0 AND (con.conrelid = ANY (%(of)s) OR con.confrelid = ANY (%(of)s)))
   OR (con.contype IN ('c', 'n') AND NOT con.convalidated AND con.coninhcount = 0 AND con.conrelid = ANY (%(of)s))
ORDER BY con.oid
"""
"""Foreign keys, and what is declared NOT VALID: rows that the backup holds may be older than that."""

_RELATED = """
SELECT DISTINCT related::oid::int8 FROM pg_catalog.unnest(%(of)s::oid[]) own,
LATERAL (SELECT relid FROM pg_catalog.pg_partition_ancestors(own::pg_catalog.regclass) UNION SELECT own) up (related)
"""

_TRIGGERS = """
SELECT tgrelid::pg_catalog.regclass::text, tgname::text, tgenabled::text FROM pg_catalog.pg_trigger
WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgrelid = ANY (%(of)s) ORDER BY tgrelid, tgname
"""

_ENABLE = {"O": "ENABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}

_OWN = "SELECT c.oid::int8 FROM pg_catalog.pg_class c WHERE c.oid = ANY (%(of)s::pg_catalog.regclass[])"


@dataclass(frozen=True)
class Aside:
    """Statements that bring back what was put aside."""

    statements: tuple[str, ...]

    def bring_back(self, session: Session) -> None:
        """Bring triggers back, and foreign keys, which are checked for all rows by that."""
        for statement in self.statements:
            session.execute(statement.encode())


def put_aside(session: Session, tables: Sequence[str]) -> Aside:
    """Switch triggers off and drop constraints of tables (quoted) that rows may break, as far as they are there."""
    own = [int(str(oid)) for (oid,) in session.execute(_OWN, {"of": list(tables)})]
    related = [int(str(oid)) for (oid,) in session.execute(_RELATED, {"of": own})]
    back: list[str] = []
    for table, name, state in session.execute(_TRIGGERS, {"of": own}).fetchall():
        session.execute(f"ALTER TABLE ONLY {table} DISABLE TRIGGER {identifier(str(name))}".encode())
        back.append(f"ALTER TABLE ONLY {table} {_ENABLE[str(state)]} {identifier(str(name))}")
    for table, name, definition, comment in session.execute(_CONSTRAINTS, {"of": related}).fetchall():
        quoted = identifier(str(name))
        session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {quoted}".encode())
        back.append(f"ALTER TABLE {table} ADD CONSTRAINT {quoted} {definition}")
        if comment is not None:
            back.append(f"COMMENT ON CONSTRAINT {quoted} ON {table} IS {literal(str(comment))}")
    return Aside(tuple(back))


_EQUALITY = """
SELECT i.indexrelid::int8, a.attname::text, pg_catalog.quote_ident(n.nspname) || '.' || o.oprname,
       coalesce(pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname), '')
FROM (SELECT indexrelid, indrelid, indisprimary, indkey::int2[] AS keys, indclass::oid[] AS classes,
             indcollation::oid[] AS collations
      FROM pg_catalog.pg_index
      WHERE indrelid = %(table)s::pg_catalog.regclass AND indisunique AND indexprs IS NULL AND indpred IS NULL) i
CROSS JOIN LATERAL pg_catalog.unnest(i.keys) WITH ORDINALITY k (attnum, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_catalog.pg_opclass c ON c.oid = i.classes[k.n - 1]
JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
JOIN pg_catalog.pg_amop op ON op.amopfamily = c.opcfamily AND op.amopstrategy = 3
  AND op.amoplefttype = c.opcintype AND op.amoprighttype = c.opcintype
JOIN pg_catalog.pg_operator o ON o.oid = op.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
LEFT JOIN pg_catalog.pg_collation co ON co.oid = i.collations[k.n - 1]
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
ORDER BY NOT i.indisprimary, i.indexrelid
"""


def equality(session: Session, table: str, key: Sequence[str], one: str, other: str) -> str:
    """Write the condition that two rows have the same key, as the index of the key compares."""
    indexes: dict[object, dict[str, tuple[str, str]]] = {}
    for index, name, operator, collation in session.execute(_EQUALITY, {"table": table}):
        indexes.setdefault(index, {})[str(name)] = str(operator), f" COLLATE {collation}" if collation else ""
    found = next((columns for columns in indexes.values() if columns.keys() == set(key)), {})
    tests = []
    for name in key:
        operator, collation = found.get(name, ("pg_catalog.=", ""))
        column = identifier(name)
        tests.append(f"{one}.{column}{collation} OPERATOR({operator}) {other}.{column}")
    return " AND ".join(tests)


_EMPTY = """
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname NOT IN ('public', 'information_schema')
                   AND n.nspname !~ '^pg_')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = 'public'::pg_catalog.regnamespace)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace = 'public'::pg_catalog.regnamespace)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'public'::pg_catalog.regnamespace)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql')
"""


def is_empty(session: Session) -> bool:
    """Whether a database is as CREATE DATABASE makes it."""
    public = session.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public'").fetchone()
    row = session.execute(_EMPTY.encode()).fetchone() if public is not None else None
    return bool(row and row[0])


_DROPS = """
SELECT 'DROP EVENT TRIGGER ' || pg_catalog.quote_ident(evtname) FROM pg_catalog.pg_event_trigger
UNION ALL SELECT 'DROP PUBLICATION ' || pg_catalog.quote_ident(pubname) FROM pg_catalog.pg_publication
UNION ALL SELECT 'DROP SCHEMA ' || pg_catalog.quote_ident(nspname) || ' CASCADE' FROM pg_catalog.pg_namespace
  WHERE nspname NOT IN ('information_schema', 'public') AND nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                  AND e.objid = pg_namespace.oid AND e.deptype = 'e')
"""

_REST = """
SELECT 'DROP EXTENSION ' || pg_catalog.quote_ident(extname) || ' CASCADE' FROM pg_catalog.pg_extension
  WHERE extname <> 'plpgsql'
UNION ALL SELECT 'DROP FOREIGN DATA WRAPPER ' || pg_catalog.quote_ident(fdwname) || ' CASCADE'
  FROM pg_catalog.pg_foreign_data_wrapper
UNION ALL SELECT 'SELECT pg_catalog.lo_unlink(' || oid::text || ')' FROM pg_catalog.pg_largeobject_metadata
"""


def drop_everything(session: Session) -> None:
    """Bring a database back to what CREATE DATABASE makes, inside the open transaction."""
    for query in (_DROPS, _REST):
        for (statement,) in session.execute(query.encode()).fetchall():
            session.execute(str(statement).encode())
    renew_public(session)


KINDS = {
    **dict.fromkeys(("TABLE", "FOREIGN TABLE", "SEQUENCE", "VIEW", "MATERIALIZED VIEW", "COLUMN"), "relation"),
    **dict.fromkeys(("TYPE", "SHELL TYPE", "DOMAIN"), "type"),
    **dict.fromkeys(("FUNCTION", "PROCEDURE", "AGGREGATE"), "function"),
    "COLLATION": "collation",
    "TEXT SEARCH CONFIGURATION": "configuration",
}
"""What an object is looked for as, by the type that pg_dump gives it or the word that a comment on it uses."""

_LIVE = """
SELECT 'relation', n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL SELECT 'type', n.nspname::text, t.typname::text FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
UNION ALL SELECT 'function', n.nspname::text, p.proname::text FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
UNION ALL SELECT 'collation', n.nspname::text, l.collname::text FROM pg_catalog.pg_collation l
  JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
UNION ALL SELECT 'configuration', n.nspname::text, f.cfgname::text FROM pg_catalog.pg_ts_config f
  JOIN pg_catalog.pg_namespace n ON n.oid = f.cfgnamespace
UNION ALL SELECT 'operators', n.nspname::text, o.opcname::text FROM pg_catalog.pg_opclass o
  JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace
UNION ALL SELECT 'schema', '', nspname::text FROM pg_catalog.pg_namespace
UNION ALL SELECT 'extension', '', extname::text FROM pg_catalog.pg_extension
UNION ALL SELECT 'publication', '', pubname::text FROM pg_catalog.pg_publication
"""


@dataclass(frozen=True)
class Live:
    """What a database holds, by kind and name."""

    names: frozenset[tuple[str, str, str]]

    @classmethod
    def of(cls, session: Session) -> Live:
        """Read it."""
        rows = session.execute(_LIVE.encode())
        return cls(frozenset((str(kind), str(schema), str(name)) for kind, schema, name in rows))

    @classmethod
    def empty(cls) -> Live:
        """Describe what CREATE DATABASE makes, without what PostgreSQL itself keeps there."""
        return cls(frozenset((("schema", "", "public"), ("extension", "", "plpgsql"))))

    def has(self, kind: str, name: Name) -> bool:
        """Whether there is such an object."""
        schema, own = name if len(name) > 1 else ("", *name)
        return (kind, schema, own) in self.names

    def has_any(self, name: Name) -> bool:
        """Whether there is an object of any kind with a qualified name."""
        return any(self.has(kind, name) for kind in (*KINDS.values(), "operators"))
