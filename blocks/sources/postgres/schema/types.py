"""Types whose stored values read differently though no row was written."""

from __future__ import annotations

from blocks.sources.postgres.connect import Session

_NAMING = """
WITH RECURSIVE made_of (part, whole) AS (
    SELECT typelem, oid FROM pg_catalog.pg_type WHERE typelem <> 0
    UNION ALL SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typbasetype <> 0
    UNION ALL SELECT rngsubtype, rngtypid FROM pg_catalog.pg_range
    UNION ALL SELECT a.atttypid, c.reltype FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.reltype <> 0 AND c.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace
), naming (oid) AS (
    SELECT oid FROM pg_catalog.pg_type
    WHERE typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND (typname ~ '^reg' OR typname = 'aclitem')
    UNION SELECT m.whole FROM naming n JOIN made_of m ON m.part = n.oid
)
SELECT oid::int8 FROM naming
"""

_STATE = """
WITH own AS (
    SELECT t.* FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
), facts (fact) AS (
    SELECT ROW('label', e.oid, e.enumtypid, e.enumlabel)::pg_catalog.text
    FROM own JOIN pg_catalog.pg_enum e ON e.enumtypid = own.oid
    UNION ALL SELECT ROW('type', oid, typoutput::oid, typbasetype, typtypmod)::pg_catalog.text
    FROM own WHERE typtype IN ('b', 'd', 'r') AND typcategory <> 'A'
    UNION ALL SELECT ROW('attribute', own.oid, a.attnum, a.atttypid, a.atttypmod, a.attisdropped)::pg_catalog.text
    FROM own JOIN pg_catalog.pg_attribute a ON a.attrelid = own.typrelid AND a.attnum > 0
    WHERE own.oid IN (SELECT atttypid FROM pg_catalog.pg_attribute)
       OR own.typarray IN (SELECT atttypid FROM pg_catalog.pg_attribute)
       OR own.oid IN (SELECT typbasetype FROM pg_catalog.pg_type)
       OR own.typarray IN (SELECT typbasetype FROM pg_catalog.pg_type)
    UNION ALL SELECT ROW('extension', extname, extversion)::pg_catalog.text FROM pg_catalog.pg_extension
)
SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(fact, '|' ORDER BY fact COLLATE "C"), '')) FROM facts
"""


def naming_types(session: Session) -> frozenset[int]:
    """Return the numbers of all types whose text holds names of other objects, which may be renamed: `regclass`, ...

    Arrays, domains, composites and ranges of such types are among them.
    """
    return frozenset(int(str(oid)) for (oid,) in session.execute(_NAMING.encode()))


def state_of_types(session: Session) -> str:
    """Hash what the text of values depends on beside the rows: labels of enums, parts of composites, extensions.

    pg_dump's definitions say that too, but not where a backup is narrowed down to some schemas or tables.
    """
    row = session.execute(_STATE.encode()).fetchone()
    assert row is not None
    return str(row[0])
