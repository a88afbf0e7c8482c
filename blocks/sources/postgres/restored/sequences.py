"""Sequences and the columns that take their numbers from them: whether numbers that are still to come are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.proving import StoreFinding, counted
from blocks.verification import Axis, CheckOutcome

_USES = """
WITH uses AS (
    SELECT d.objid AS seq, d.refobjid AS rel, d.refobjsubid AS col, d.deptype = 'i' AS given
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid
      AND (d.deptype = 'i' OR (d.deptype = 'a' AND NOT a.atthasdef))
    UNION ALL
    SELECT d.refobjid, a.adrelid, a.adnum::int, true
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND pg_catalog.pg_get_expr(a.adbin, a.adrelid)
          ~ '^\\(*nextval\\(''[^'']+(''''[^'']*)*''::regclass\\)[):a-z0-9]*$'
), used AS (
    SELECT DISTINCT seq, rel, col, given FROM uses
)
SELECT sn.nspname::text, sc.relname::text, tn.nspname::text, tc.relname::text, a.attname::text,
       s.seqincrement, s.seqmin, s.seqmax, u.given AND EXISTS (
           SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = u.rel AND i.indisunique AND i.indpred IS NULL
           AND i.indnkeyatts = 1 AND i.indkey[0] = u.col)
FROM used u
JOIN pg_catalog.pg_sequence s ON s.seqrelid = u.seq AND NOT s.seqcycle
JOIN pg_catalog.pg_class sc ON sc.oid = u.seq JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
JOIN pg_catalog.pg_class tc ON tc.oid = u.rel AND tc.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = u.rel AND a.attnum = u.col
     AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN used p ON p.rel = i.inhparent AND p.seq = u.seq
                  WHERE i.inhrelid = u.rel)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.deptype = 'e' AND e.objid IN (u.seq, u.rel)
                  AND e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass)
ORDER BY 1, 2, 3, 4, 5
"""
"""A table without parents that take numbers from the same sequence: its rows are those of its children, too.

Of a unique index over several columns a number may be taken and an insert that gets it succeed all the same.
"""


@dataclass(frozen=True)
class _Use:
    sequence: tuple[str, str]
    table: tuple[str, str]
    column: str
    step: int
    least: int
    most: int
    unique: bool


def check_sequences(session: Session) -> Iterator[StoreFinding]:
    """Look for sequences that are behind the columns that take their numbers from them, or are used up.

    Sequences that cycle are left out: their numbers may be taken.
    """
    for row in session.execute(_USES.encode()).fetchall():
        names = [str(value) for value in row[:5]]
        step, least, most = (int(str(value)) for value in row[5:8])
        use = _Use((names[0], names[1]), (names[2], names[3]), names[4], step, least, most, unique=bool(row[8]))
        if (finding := _look(session, use)) is not None:
            yield finding


def _look(session: Session, use: _Use) -> StoreFinding | None:
    state = session.execute(f"SELECT last_value, is_called FROM {identifier(*use.sequence)}".encode()).fetchone()
    assert state is not None
    then = int(str(state[0])) + use.step * bool(state[1])
    named, table = ".".join(use.sequence), ".".join(use.table)
    if not use.least <= then <= use.most:
        said = f"Sequence {named}, which column {use.column} of {table} takes its numbers from, is used up."
        return StoreFinding(Axis.QUALITY, said, CheckOutcome.GOOD)
    column = identifier(use.column)
    first, last = (then, use.most) if use.step > 0 else (use.least, then)
    ahead = f"{column} BETWEEN {first} AND {last}"
    if abs(use.step) > 1:  # between them others may take theirs
        ahead += f" AND ({column}::pg_catalog.numeric - {then}) % {abs(use.step)} = 0"
    row = session.execute(f"SELECT pg_catalog.count(*) FROM {identifier(*use.table)} WHERE {ahead}".encode()).fetchone()
    assert row is not None
    if not row[0]:
        return None
    behind = f"Sequence {named} is behind column {use.column} of {table}"
    taken = f"it is still to give the numbers of {counted(int(str(row[0])))}"
    if use.unique:
        return StoreFinding(Axis.QUALITY, f"{behind}: {taken}, and an insert that gets one fails.")
    return StoreFinding(Axis.QUALITY, f"{behind}: {taken}.", CheckOutcome.GOOD)
