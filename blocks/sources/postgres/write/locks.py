"""Keeps others from writing while their state is backed up and overwritten: they wait, and go on afterwards.

All locks are asked for in one order, and never for long: a transaction that holds what is asked for may wait for what
is held here already, and the server would end one of the two. So each attempt lets go of everything before the server
looks for deadlocks, and the next starts over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from psycopg import errors

from blocks.errors import RestoreRefused
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.live import Aside, put_event_triggers_aside

_ATTEMPT_MILLISECONDS = 500
"""Shorter than the second after which a server looks for deadlocks."""

_RELATED = """
WITH RECURSIVE up (oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY (%(own)s::pg_catalog.regclass[]::pg_catalog.oid[])
    UNION SELECT i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid
), related (oid) AS (
    SELECT oid FROM up
    UNION SELECT f.conrelid FROM up JOIN pg_catalog.pg_constraint f ON f.contype = 'f' AND f.confrelid = up.oid
    UNION SELECT f.confrelid FROM up JOIN pg_catalog.pg_constraint f ON f.contype = 'f' AND f.conrelid = up.oid
)
SELECT DISTINCT n.nspname::text, c.relname::text
FROM related r JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
"""
"""Tables, those above them, and those that foreign keys join to them: all that a restore of their rows locks."""

_ALL = """
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_(toast|temp)' AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')
"""

_SEQUENCES = """
SELECT n.nspname::text, c.relname::text, s.seqcache
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_(toast|temp)' AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
"""

_HOLDERS = """
SELECT DISTINCT coalesce('transaction ' || p.gid || ', which is prepared',
                'process ' || l.pid || pg_catalog.concat(' of ' || a.usename, ', ' || nullif(a.application_name, '')))
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND p.database = pg_catalog.current_database()
  AND p.transaction::pg_catalog.text = (SELECT x.transactionid::pg_catalog.text FROM pg_catalog.pg_locks x
      WHERE x.virtualtransaction = l.virtualtransaction AND x.locktype = 'transactionid' AND x.granted LIMIT 1)
WHERE l.locktype = 'relation' AND l.granted AND l.database = (
    SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.relation = ANY (SELECT pg_catalog.to_regclass(t) FROM pg_catalog.unnest(%(of)s::text[]) t)
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
"""
"""Who holds a lock that stands against writers being kept away; of prepared transactions the name."""


def tables_of_a_restore(session: Session, tables: Sequence[str] | None) -> list[tuple[str, str]]:
    """Return the tables to be locked for a restore of some (quoted), or of all where that is None; in a stable order.

    Those that the role could not lock are left out.
    """
    query, of = (_ALL, {}) if tables is None else (_RELATED, {"own": _present(session, tables)})
    return sorted((str(schema), str(name)) for schema, name in session.execute(query, of))


def _present(session: Session, tables: Sequence[str]) -> list[str]:
    query = "SELECT t FROM pg_catalog.unnest(%s::text[]) t WHERE pg_catalog.to_regclass(t) IS NOT NULL"
    return [str(name) for (name,) in session.execute(query, (list(tables),))]


def hold_large_objects(session: Session, timeout_seconds: float) -> None:
    """Keep away those who write large objects until the transaction ends, if that can be had at once.

    Readers lock what writers lock, so they are kept away, too: that is nothing for long. Only superusers can do it.
    """
    with suppress(errors.LockNotAvailable, errors.InsufficientPrivilege), session.transaction():
        session.execute(f"SET LOCAL lock_timeout = {_ATTEMPT_MILLISECONDS}".encode())
        session.execute("LOCK TABLE pg_catalog.pg_largeobject IN EXCLUSIVE MODE")
    session.execute(f"SET LOCAL lock_timeout = {round(timeout_seconds * 1000)}".encode())


def hold(
    session: Session,
    tables: Sequence[str] | None,
    sequences: Sequence[str] | None,
    *,
    timeout_seconds: float,
    place: str,
) -> Aside:
    """Begin a transaction in which nobody else writes to tables or moves sequences on; others can still read.

    Returns what brings event triggers back, which are put aside: a lock on a sequence is a definition for them.

    Args:
        session: A session without an open transaction.
        tables: Quoted; with those that foreign keys join to them. None for all of the database.
        sequences: Quoted, as far as they are there; None for all.
        timeout_seconds: How long to go on trying.
        place: Name of the place, without secrets; for messages.

    Raises:
        RestoreRefused: Somebody else holds a lock for that long.
    """
    end = time.monotonic() + timeout_seconds
    while True:
        names = tables_of_a_restore(session, tables)
        session.execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
        try:
            aside = put_event_triggers_aside(session)
            _lock(session, names, sequences)
            # a table that was made meanwhile is not locked
            complete = set(tables_of_a_restore(session, tables)) <= set(names)
        except (errors.LockNotAvailable, errors.DeadlockDetected, errors.UndefinedTable, errors.InvalidSchemaName):
            session.execute("ROLLBACK")
            if time.monotonic() > end:
                raise _held(session, names, place) from None
            continue
        if complete or time.monotonic() > end:
            session.execute(f"SET LOCAL lock_timeout = {round(timeout_seconds * 1000)}".encode())
            return aside
        session.execute("ROLLBACK")


def _lock(session: Session, names: Sequence[tuple[str, str]], sequences: Sequence[str] | None) -> None:
    session.execute(f"SET LOCAL lock_timeout = {_ATTEMPT_MILLISECONDS}".encode())
    if names:
        listed = ", ".join(f"ONLY {identifier(*name)}" for name in names)
        session.execute(f"LOCK TABLE {listed} IN EXCLUSIVE MODE".encode())
    for schema, name, cache in sorted(session.execute(_SEQUENCES.encode()).fetchall()):
        quoted = identifier(str(schema), str(name))
        if sequences is None or quoted in sequences:
            # there is no other statement that keeps the next value from being taken, and it changes nothing
            session.execute(f"ALTER SEQUENCE {quoted} CACHE {cache}".encode())


def _held(session: Session, names: Sequence[tuple[str, str]], place: str) -> RestoreRefused:
    found = holders(session, names)
    by = f" by {', '.join(found)}" if found else ""
    return RestoreRefused(
        f"tables of {place} could not be locked against writers: they are held{by}",
        hint="End those sessions, or try again later.",
    )


def holders(session: Session, names: Sequence[tuple[str, str]], *, prepared: bool = False) -> list[str]:
    """Name who holds locks on tables that prevent a restore; only prepared transactions if wanted."""
    rows = session.execute(_HOLDERS, {"of": [identifier(*name) for name in names]}).fetchall()
    return sorted(str(who) for (who,) in rows if not prepared or "which is prepared" in str(who))
