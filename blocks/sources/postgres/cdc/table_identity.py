"""What identifies changes in the output of logical decoding as those of a table under its present name.

Decoding names tables, columns and types as they were called when a change was made. A table that was renamed and
renamed back, swapped for another, or whose schema or key was another for a while, leaves its trace in the rows of the
catalogue, which carry the number of the transaction that wrote them. VACUUM and ANALYZE change such rows in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.sources.postgres.cdc.decoding import ChangeFormat
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.read.xmin_tracking import hashed
from blocks.sources.postgres.schema.tables import Table


@dataclass(frozen=True)
class KeyColumn:
    """A column of a primary key, as its values are looked for.

    Attributes:
        name: The column.
        type: That a value's text is read as: the base type of a domain, without modifiers.
        equals: The operator by which the index finds a value, qualified.
        collation: Of the column, quoted; empty where its type has none.
    """

    name: str
    type: str
    equals: str
    collation: str


@dataclass(frozen=True)
class Identity:
    """What decoding needs to know of a table.

    Attributes:
        facts: Hash of all that must have stayed the same.
        written: How its changes are written.
        key: The columns of its primary key, in order.
        rows: How many it has, as the server estimates; below 0 where it does not know.
    """

    facts: str
    written: ChangeFormat
    key: tuple[KeyColumn, ...]
    rows: float


_IDENTITIES = """
SELECT n.nspname::text, c.relname::text, c.oid::int8, c.reltuples::float8,
       pg_catalog.concat_ws(' ', c.oid, c.xmin, n.oid, n.xmin, i.indexrelid, i.xmin),
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate
JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree'
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident = 'd' AND i.indnkeyatts = i.indnatts
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
"""

_COLUMNS = """
SELECT a.attrelid::int8, a.attnum::int4, a.attname::text, pg_catalog.quote_ident(a.attname),
       pg_catalog.format_type(a.atttypid, NULL), a.xmin::text
FROM pg_catalog.pg_attribute a
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY (%s)
ORDER BY a.attrelid, a.attnum
"""

_KEYS = """
SELECT i.indrelid::int8, a.attname::text, pg_catalog.format_type(base.oid, -1),
       pg_catalog.quote_ident(own.nspname) || '.' || o.oprname::text,
       coalesce((SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
                 FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
                 WHERE co.oid = a.attcollation), ''),
       base.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND base.typtype = 'b',
       base.typcategory = 'A' OR base.typtype = 'c'
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL unnest(i.indkey::pg_catalog.int2[], i.indclass::pg_catalog.oid[])
  WITH ORDINALITY k (attnum, opclass, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_catalog.pg_type base ON base.oid = (
    WITH RECURSIVE up AS (SELECT t.oid, t.typbasetype, t.typtype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid
        UNION ALL SELECT b.oid, b.typbasetype, b.typtype FROM up JOIN pg_catalog.pg_type b ON b.oid = up.typbasetype
        WHERE up.typtype = 'd')
    SELECT up.oid FROM up WHERE up.typtype <> 'd')
JOIN pg_catalog.pg_opclass oc ON oc.oid = k.opclass
JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
  AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
JOIN pg_catalog.pg_operator o ON o.oid = ao.amopopr
JOIN pg_catalog.pg_namespace own ON own.oid = o.oprnamespace
WHERE i.indisprimary AND i.indrelid = ANY (%s)
ORDER BY i.indrelid, k.n
"""

_LABELS = """
SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(
    pg_catalog.concat_ws(' ', oid, xmin), ',' ORDER BY oid), '')) FROM pg_catalog.pg_enum
"""


def identities(session: Session, tables: Sequence[Table]) -> dict[str, Identity]:
    """Describe the tables whose changes decoding names by the key that backups know, by collection.

    Those are logged tables that are tracked, with a primary key as their replica identity. Keys with arrays or
    composite types are left out, because lists of them cannot be taken apart again in the same way.
    """
    wanted = {(t.shape.schema, t.shape.table): t for t in tables if t.facts is not None and t.heap}
    found = [row for row in session.execute(_IDENTITIES.encode()) if (str(row[0]), str(row[1])) in wanted]
    numbers = [row[2] for row in found]
    columns: dict[object, list[tuple[object, ...]]] = {}
    for row in session.execute(_COLUMNS.encode(), (numbers,)):
        columns.setdefault(row[0], []).append(row[1:])
    keys: dict[object, list[tuple[object, ...]]] = {}
    for row in session.execute(_KEYS.encode(), (numbers,)):
        keys.setdefault(row[0], []).append(row[1:])
    labels = session.execute(_LABELS.encode()).fetchone()
    described = {}
    for schema, name, number, rows, facts, quoted in found:
        table, key = wanted[str(schema), str(name)], keys.get(number, [])
        if tuple(str(column[0]) for column in key) != table.shape.key or any(column[5] for column in key):
            continue
        # the text of a key of an own type depends on the names of labels
        more = None if all(column[4] for column in key) else labels
        own = columns[number]
        described[table.spec.name] = Identity(
            facts=hashed((facts, [(c[0], c[4]) for c in own], more)),
            written=_written(str(quoted), own, table.shape.key),
            key=tuple(KeyColumn(*map(str, column[:4])) for column in key),
            rows=float(str(rows)),
        )
    return described


def _written(quoted: str, columns: Sequence[tuple[object, ...]], key: tuple[str, ...]) -> ChangeFormat:
    places = {str(column[1]): n for n, column in enumerate(columns)}
    numbers = sorted(places[name] for name in key)
    shown = tuple((str(column[2]), str(column[3])) for column in columns[: numbers[-1] + 1])
    return ChangeFormat(quoted, shown, tuple(numbers), tuple(numbers.index(places[name]) for name in key))
