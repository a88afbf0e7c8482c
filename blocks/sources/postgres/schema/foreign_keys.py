"""The query for rows whose foreign key leads nowhere."""

from __future__ import annotations

from blocks.sources.postgres.connect import identifier

COLUMNS = """
(SELECT pg_catalog.array_agg(ARRAY[ca.attname::text, pa.attname::text,
        pg_catalog.format('%%I.%%s', opn.nspname, op.oprname),
        CASE WHEN co.oid IS NOT NULL THEN pg_catalog.format('%%I.%%I', con.nspname, co.collname) ELSE '' END]
        ORDER BY k.n)
 FROM ROWS FROM (pg_catalog.unnest(o.conkey), pg_catalog.unnest(o.confkey), pg_catalog.unnest(o.conpfeqop))
      WITH ORDINALITY k (child, parent, equal, n)
 JOIN pg_catalog.pg_attribute ca ON ca.attrelid = o.conrelid AND ca.attnum = k.child
 JOIN pg_catalog.pg_attribute pa ON pa.attrelid = o.confrelid AND pa.attnum = k.parent
 JOIN pg_catalog.pg_operator op ON op.oid = k.equal
 JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
 LEFT JOIN pg_catalog.pg_collation co ON co.oid = pa.attcollation AND ca.attcollation <> pa.attcollation
 LEFT JOIN pg_catalog.pg_namespace con ON con.oid = co.collnamespace)
"""
"""Of a constraint `o`: its columns, those that they refer to, the operator and the collation that compare them.

An expression of a query with parameters: its percent signs are doubled.
"""


def orphans(key: tuple[object, ...], selecting: str = "") -> str:
    """Write the query for rows that refer to none, as the server compares them.

    Args:
        key: Name, schema, table, whether that is partitioned; schema, table and the same of what is referred to; and
            what `COLUMNS` gives.
        selecting: What is selected of such rows.
    """
    _, schema, table, spread, parent_schema, parent, parent_spread, columns = key
    assert isinstance(columns, list)
    child = f"{'' if spread else 'ONLY '}{identifier(str(schema), str(table))}"
    to = f"{'' if parent_spread else 'ONLY '}{identifier(str(parent_schema), str(parent))}"
    given = " AND ".join(f"c.{identifier(own)} IS NOT NULL" for own, *_ in columns)
    equal = " AND ".join(
        f"p.{identifier(other)} OPERATOR({operator}) c.{identifier(own)}{f' COLLATE {collation}' if collation else ''}"
        for own, other, operator, collation in columns
    )
    return f"SELECT {selecting} FROM {child} c WHERE {given} AND NOT EXISTS (SELECT FROM {to} p WHERE {equal})"
