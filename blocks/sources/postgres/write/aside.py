"""Moves tables aside whose rows no backup has: renamed, with what has names of its own, and a new table in their place.

Where that would break other objects it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.errors import RestoreRefused
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.entries import Entry

_NAME_BYTES = 63
_MARK = "_lastgood_aside_"

_NAMED = """
SELECT 'INDEX', n.nspname::text, c.relname::text FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE i.indrelid = %(of)s::pg_catalog.regclass
UNION ALL SELECT 'SEQUENCE', n.nspname::text, c.relname::text FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'S'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
  AND d.refobjid = %(of)s::pg_catalog.regclass AND d.deptype IN ('a', 'i')
UNION ALL SELECT 'STATISTICS', n.nspname::text, s.stxname::text FROM pg_catalog.pg_statistic_ext s
  JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = %(of)s::pg_catalog.regclass
"""
"""What belongs to a table and has a name that a new table in its place needs."""

_USERS = """
SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) FROM pg_catalog.pg_depend d
WHERE ((d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = %(of)s::pg_catalog.regclass)
   OR (d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN (
       SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_catalog.pg_type t
       WHERE t.typrelid = %(of)s::pg_catalog.regclass)))
  AND d.deptype = 'n' AND NOT (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass)
  AND NOT (d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid IN (
       SELECT oid FROM pg_catalog.pg_rewrite WHERE ev_class = %(of)s::pg_catalog.regclass))
  AND NOT (d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid IN (
       SELECT oid FROM pg_catalog.pg_policy WHERE polrelid = %(of)s::pg_catalog.regclass))
UNION SELECT 'table ' || i.inhrelid::pg_catalog.regclass FROM pg_catalog.pg_inherits i
WHERE i.inhparent = %(of)s::pg_catalog.regclass
"""
"""Views, functions and tables that go on with the table under its new name, though they should not."""

_FOREIGN_KEYS = """
SELECT con.conrelid::pg_catalog.regclass::text, con.conname::text, pg_catalog.pg_get_constraintdef(con.oid),
       con.conrelid = %(of)s::pg_catalog.regclass
FROM pg_catalog.pg_constraint con WHERE con.contype = 'f' AND con.conparentid = 0
  AND (con.conrelid = %(of)s::pg_catalog.regclass OR con.confrelid = %(of)s::pg_catalog.regclass) ORDER BY con.oid
"""

_PARENTS = """
SELECT i.inhparent::pg_catalog.regclass::text, c.relispartition FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhrelid = %s::pg_catalog.regclass
"""


def stamp() -> str:
    """Make what distinguishes two moments in a name."""
    return datetime.now(UTC).strftime("%Y%m%dt%H%M%S%f")[:-3]


def aside_name(name: str, when: str) -> str:
    """Name what is moved aside; names end at 63 bytes."""
    tail = f"{_MARK}{when}"
    return name.encode()[: _NAME_BYTES - len(tail)].decode(errors="ignore") + tail


class Moved:
    """Tables that are moved aside inside the transaction of a restore.

    Args:
        tables: Schema and name of each.
    """

    def __init__(self, tables: Sequence[tuple[str, str]]) -> None:
        self.tables, self._when = tuple(tables), stamp()
        self._back: list[str] = []

    def sentences(self) -> tuple[str, ...]:
        """Say what is going to be moved where."""
        return tuple(
            f"Table {schema}.{name} cannot be backed up: it is renamed to {aside_name(name, self._when)}."
            for schema, name in self.tables
        )

    def names(self, session: Session) -> set[tuple[str, str]]:
        """Return the names in use that come free: those of the tables, their indexes and sequences.

        Raises:
            RestoreRefused: Other objects would go on with a table that was moved.
        """
        free = set(self.tables)
        for at in self.tables:
            quoted = identifier(*at)
            users = [str(user) for (user,) in session.execute(_USERS, {"of": quoted})]
            if users:
                raise RestoreRefused(
                    f"{quoted} cannot be moved aside: {', '.join(users)} would go on with it",
                    hint="Drop those, or restore to an empty database with --to.",
                )
            free |= {(str(schema), str(name)) for _, schema, name in session.execute(_NAMED, {"of": quoted})}
        return free

    def move(self, session: Session) -> list[str]:
        """Move them, inside the open transaction; return sentences that say where they are."""
        self.names(session)
        for at in self.tables:
            self._free(session, identifier(*at))
        return [self._rename(session, *at) for at in self.tables]

    def _free(self, session: Session, quoted: str) -> None:
        """Take a table out of what joins it to others."""
        for table, name, definition, own in session.execute(_FOREIGN_KEYS, {"of": quoted}).fetchall():
            session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {identifier(str(name))}".encode())
            if not own and table not in {identifier(*at) for at in self.tables}:
                self._back.append(f"ALTER TABLE {table} ADD CONSTRAINT {identifier(str(name))} {definition}")
        for parent, partition in session.execute(_PARENTS, (quoted,)).fetchall():
            detach = f"ALTER TABLE {parent} DETACH PARTITION {quoted}"
            session.execute((detach if partition else f"ALTER TABLE {quoted} NO INHERIT {parent}").encode())

    def _rename(self, session: Session, schema: str, name: str) -> str:
        quoted = identifier(schema, name)
        for what, at, own in session.execute(_NAMED, {"of": quoted}).fetchall():
            renamed = identifier(aside_name(str(own), self._when))
            session.execute(f"ALTER {what} {identifier(str(at), str(own))} RENAME TO {renamed}".encode())
        new = aside_name(name, self._when)
        session.execute(f"ALTER TABLE {quoted} RENAME TO {identifier(new)}".encode())
        return (
            f"Table {schema}.{name} could not be backed up and is now {schema}.{new}; drop it when you need it no more."
        )

    def back(self) -> list[Entry]:
        """Return what lets foreign keys of other tables refer to the new ones."""
        return [Entry("FK CONSTRAINT", f"{statement};", "") for statement in self._back]


def copy_aside(session: Session, schema: str, name: str) -> str:
    """Keep the rows of a table in another one beside it, inside the open transaction; say where."""
    new = aside_name(name, stamp())
    session.execute(f"CREATE TABLE {identifier(schema, new)} AS SELECT * FROM ONLY {identifier(schema, name)}".encode())
    return f"What table {schema}.{name} held is kept as {schema}.{new}; drop it when you need it no more."
