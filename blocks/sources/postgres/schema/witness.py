"""What others changed in a database since a restore began to hold it: all that locks on tables do not prevent.

Each row of the catalogue carries the number of the transaction that wrote it. VACUUM and ANALYZE change such rows in
place.
"""

from __future__ import annotations

from blocks.sources.postgres.connect import Session

_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

_OBJECTS = f"""
SELECT 'relation ' || n.nspname || '.' || c.relname, pg_catalog.concat_ws(' ', c.oid, c.xmin,
    (SELECT pg_catalog.string_agg(pg_catalog.concat(a.attnum, ' ', a.xmin), ',' ORDER BY a.attnum)
     FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT pg_catalog.string_agg(pg_catalog.concat(o.oid, ' ', o.xmin), ',' ORDER BY o.oid)
     FROM pg_catalog.pg_constraint o WHERE o.conrelid = c.oid),
    (SELECT pg_catalog.string_agg(pg_catalog.concat(t.oid, ' ', t.xmin), ',' ORDER BY t.oid)
     FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid),
    (SELECT pg_catalog.string_agg(pg_catalog.concat(r.oid, ' ', r.xmin), ',' ORDER BY r.oid)
     FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid),
    (SELECT pg_catalog.string_agg(pg_catalog.concat(p.oid, ' ', p.xmin), ',' ORDER BY p.oid)
     FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {_OURS}
UNION ALL SELECT 'function ' || n.nspname || '.' || p.proname || ' ' || p.oid, p.xmin::text
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE {_OURS}
UNION ALL SELECT 'type ' || n.nspname || '.' || t.typname, pg_catalog.concat_ws(' ', t.oid, t.xmin,
    (SELECT pg_catalog.string_agg(pg_catalog.concat(e.oid, ' ', e.xmin), ',' ORDER BY e.oid)
     FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid))
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE {_OURS}
UNION ALL SELECT 'schema ' || n.nspname, pg_catalog.concat_ws(' ', n.oid, n.xmin)
FROM pg_catalog.pg_namespace n WHERE {_OURS}
UNION ALL SELECT 'extension ' || extname, pg_catalog.concat_ws(' ', oid, xmin) FROM pg_catalog.pg_extension
UNION ALL SELECT 'publication ' || pubname, pg_catalog.concat_ws(' ', oid, xmin) FROM pg_catalog.pg_publication
UNION ALL SELECT 'event trigger ' || evtname, pg_catalog.concat_ws(' ', oid, xmin) FROM pg_catalog.pg_event_trigger
UNION ALL SELECT 'foreign server ' || srvname, pg_catalog.concat_ws(' ', oid, xmin) FROM pg_catalog.pg_foreign_server
"""

_LARGE_OBJECTS = """
SELECT 'large object ' || oid, xmin::text FROM pg_catalog.pg_largeobject_metadata
UNION ALL SELECT 'pages of large objects', pg_catalog.concat_ws(' ', pg_catalog.count(*),
    pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', ctid, xmin), 0)))
FROM pg_catalog.pg_largeobject
"""

_OURS_NOW = "SELECT pg_catalog.pg_postmaster_start_time()::text, pg_catalog.current_database()::text"


class DatabaseWitness:
    """What a database holds now, to be compared with what it holds later; only committed changes are seen.

    Args:
        session: In autocommit mode, without changes of its own.
        objects: Whether to look at definitions.
        large_objects: Whether to look at large objects.
    """

    def __init__(self, session: Session, *, objects: bool, large_objects: bool) -> None:
        self._session = session
        readable = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"
        large_objects = large_objects and session.execute(readable).fetchone() == (True,)
        self._queries = [q for q, wanted in ((_OBJECTS, objects), (_LARGE_OBJECTS, large_objects)) if wanted]
        self._before = self._look()

    def _look(self) -> dict[str, str]:
        rows = (row for query in self._queries for row in self._session.execute(query.encode()))
        return {str(name): str(state) for name, state in rows}

    def changed(self) -> list[str]:
        """Name what was made, changed or dropped since."""
        now = self._look()
        return sorted(name for name in now.keys() | self._before.keys() if now.get(name) != self._before.get(name))


def database_of(session: Session) -> tuple[str, str]:
    """Return what distinguishes a running server and database from any other."""
    row = session.execute(_OURS_NOW.encode()).fetchone()
    assert row is not None
    return str(row[0]), str(row[1])
