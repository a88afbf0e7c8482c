"""What a live database holds, and what of it stands in the way of writing rows.

Foreign keys, constraints that old rows need not fulfil, triggers, rules and event triggers are put aside for one
transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from blocks.sources.postgres.connect import Session, identifier, literal
from blocks.sources.postgres.schema.contents import contents, named
from blocks.sources.postgres.schema.entries import Entry, Name

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
SELECT tgrelid::pg_catalog.regclass::text, tgname::text, tgenabled::text, tgisinternal FROM pg_catalog.pg_trigger
WHERE tgenabled <> 'D' AND tgrelid = ANY (%(of)s) AND (NOT tgisinternal OR (tgparentid <> 0 AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_constraint c WHERE c.oid = tgconstraint AND c.contype <> 't')))
ORDER BY tgrelid, tgname
"""
"""Before version 15 the triggers that a partition has of its table count as internal."""

_RULES = """
SELECT ev_class::pg_catalog.regclass::text, rulename::text, ev_enabled::text, false FROM pg_catalog.pg_rewrite
WHERE ev_enabled <> 'D' AND ev_type <> '1' AND ev_class = ANY (%(of)s) ORDER BY ev_class, rulename
"""

_FORCED = """
SELECT oid::pg_catalog.regclass::text FROM pg_catalog.pg_class
WHERE oid = ANY (%(of)s) AND relforcerowsecurity AND pg_catalog.row_security_active(oid) ORDER BY oid
"""
"""Tables whose policies hold for their owner, too."""

_EVENT_TRIGGERS = """
SELECT evtname::text, evtenabled::text FROM pg_catalog.pg_event_trigger e
WHERE evtenabled <> 'D' AND pg_catalog.pg_has_role(evtowner, 'USAGE') AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass
    AND d.objid = e.oid AND d.deptype = 'e')
ORDER BY 1
"""
"""Those of extensions go on: what they keep may depend on it."""

_ENABLE = {"O": "ENABLE {0}", "R": "ENABLE REPLICA {0}", "A": "ENABLE ALWAYS {0}"}

_OWN = "SELECT c.oid::int8 FROM pg_catalog.pg_class c WHERE c.oid = ANY (%(of)s::pg_catalog.regclass[])"


@dataclass(frozen=True)
class Aside:
    """Statements that bring back what was put aside."""

    statements: tuple[str, ...]

    def entries(self) -> list[Entry]:
        """Return them as entries of definitions."""
        return [Entry("FK CONSTRAINT" if " ADD CONSTRAINT " in s else "", f"{s};", "") for s in self.statements]

    def bring_back(self, session: Session) -> None:
        """Bring triggers and rules back, and foreign keys, which are checked for all rows by that."""
        # what is checked at the end of a transaction otherwise: a table that waits for that cannot be altered
        session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for statement in self.statements:
            session.execute(statement.encode())


def put_aside(session: Session, tables: Sequence[str]) -> Aside:
    """Switch triggers and rules of tables (quoted) off, and drop constraints that rows may break."""
    own = [int(str(oid)) for (oid,) in session.execute(_OWN, {"of": list(tables)})]
    related = [int(str(oid)) for (oid,) in session.execute(_RELATED, {"of": own})]
    back: list[str] = []
    for query, what in ((_TRIGGERS, "TRIGGER"), (_RULES, "RULE")):
        for table, name, state, _ in session.execute(query, {"of": own}).fetchall():
            session.execute(f"ALTER TABLE ONLY {table} DISABLE {what} {identifier(str(name))}".encode())
            back.append(f"ALTER TABLE ONLY {table} {_ENABLE[str(state)].format(what)} {identifier(str(name))}")
    for (table,) in session.execute(_FORCED, {"of": own}).fetchall():
        session.execute(f"ALTER TABLE ONLY {table} NO FORCE ROW LEVEL SECURITY".encode())
        back.append(f"ALTER TABLE ONLY {table} FORCE ROW LEVEL SECURITY")
    for table, name, definition, comment in session.execute(_CONSTRAINTS, {"of": related}).fetchall():
        quoted = identifier(str(name))
        session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {quoted}".encode())
        back.append(f"ALTER TABLE {table} ADD CONSTRAINT {quoted} {definition}")
        if comment is not None:
            back.append(f"COMMENT ON CONSTRAINT {quoted} ON {table} IS {literal(str(comment))}")
    return Aside(tuple(back))


def put_event_triggers_aside(session: Session) -> Aside:
    """Switch off what acts on definitions: those that a restore changes for a while, and those that it makes."""
    back = []
    for name, state in session.execute(_EVENT_TRIGGERS.encode()).fetchall():
        quoted = identifier(str(name))
        session.execute(f"ALTER EVENT TRIGGER {quoted} DISABLE".encode())
        back.append(f"ALTER EVENT TRIGGER {quoted} {_ENABLE[str(state)].format('')}")
    return Aside(tuple(back))


def only_for_superusers(session: Session, tables: Sequence[str]) -> list[str]:
    """Name the triggers of tables (quoted) that only a superuser can switch off, where this role is none."""
    own = [int(str(oid)) for (oid,) in session.execute(_OWN, {"of": list(tables)})]
    superuser = session.execute("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").fetchone()
    found = session.execute(_TRIGGERS, {"of": own}).fetchall() if superuser != (True,) else []
    return [f"{identifier(str(name))} of {table}" for table, name, _, internal in found if internal]


def owned_by_others(session: Session, tables: Sequence[str]) -> list[str]:
    """Name the tables whose owner this role has to be for `put_aside`, and is not."""
    own = [int(str(oid)) for (oid,) in session.execute(_OWN, {"of": list(tables)})]
    related = [int(str(oid)) for (oid,) in session.execute(_RELATED, {"of": own})]
    altered = {str(row[0]) for query in (_TRIGGERS, _RULES) for row in session.execute(query, {"of": own})}
    altered |= {str(row[0]) for row in session.execute(_CONSTRAINTS, {"of": related})}
    return [name for name in sorted(altered) if not _owns(session, name)]


def _owns(session: Session, table: str) -> bool:
    row = session.execute(
        "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = %s::pg_catalog.regclass",
        (table,),
    ).fetchone()
    return row == (True,)


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


def identity(key: Sequence[str], one: str, other: str) -> str:
    """Write the condition that two rows have keys that are stored as the same: 1.0 is equal to 1.00, and another."""
    rows = (f"ROW({', '.join(f'{row}.{identifier(name)}' for name in key)})::record" for row in (one, other))
    return " OPERATOR(pg_catalog.*=) ".join(rows)


_EMPTY = """
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname NOT IN ('public', 'information_schema')
                   AND n.nspname !~ '^pg_')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = 'public'::pg_catalog.regnamespace)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace = 'public'::pg_catalog.regnamespace)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'public'::pg_catalog.regnamespace)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql')
"""
"""What shows at once that a database is not empty; that it is, all catalogues have to say."""


def is_empty(session: Session) -> bool:
    """Whether a database is as CREATE DATABASE makes it."""
    public = session.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public'").fetchone()
    row = session.execute(_EMPTY.encode()).fetchone() if public is not None else None
    return bool(row and row[0]) and not contents(session)


TEMPLATES = frozenset(("template0", "template1"))
"""Those of every server; others are marked in the catalogue."""


def is_template(session: Session) -> bool:
    """Whether other databases are made from this one."""
    query = "SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
    return session.execute(query.encode()).fetchone() == (True,)


_COUNTS = """
SELECT pg_catalog.count(*) FILTER (WHERE c.relkind IN ('r', 'p', 'f')),
       pg_catalog.count(*) FILTER (WHERE c.relkind IN ('v', 'm', 'S'))
         + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
         + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


def what_is_there(session: Session) -> str | None:
    """Say what a database holds, with counts; None where it is as CREATE DATABASE makes it."""
    if is_empty(session):
        return None
    row = session.execute(_COUNTS.encode()).fetchone()
    assert row is not None
    if not any(row) and (other := contents(session)):
        return f"a database without tables, with {named(other)}"
    names = ("tables", "views, sequences, functions and extensions", "large objects")
    return f"a database with {', '.join(f'{n} {what}' for n, what in zip(row, names, strict=True))}"


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
class LiveObjects:
    """What a database holds, by kind and name."""

    names: frozenset[tuple[str, str, str]]

    @classmethod
    def of(cls, session: Session) -> LiveObjects:
        """Read it."""
        rows = session.execute(_LIVE.encode())
        return cls(frozenset((str(kind), str(schema), str(name)) for kind, schema, name in rows))

    @classmethod
    def empty(cls) -> LiveObjects:
        """Describe what CREATE DATABASE makes, without what PostgreSQL itself keeps there."""
        return cls(frozenset((("schema", "", "public"), ("extension", "", "plpgsql"))))

    def without(self, relations: Collection[tuple[str, str]]) -> LiveObjects:
        """Return what is left where some relations, with their row types, have other names."""
        gone = {(kind, *at) for at in relations for kind in ("relation", "type")}
        return LiveObjects(self.names - gone)

    def has(self, kind: str, name: Name) -> bool:
        """Whether there is such an object."""
        schema, own = name if len(name) > 1 else ("", *name)
        return (kind, schema, own) in self.names

    def has_any(self, name: Name) -> bool:
        """Whether there is an object of any kind with a qualified name."""
        return any(self.has(kind, name) for kind in (*KINDS.values(), "operators"))
