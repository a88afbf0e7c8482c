"""Parts of a table: ranges of its key, or shares by a hash where the key has no order that every server knows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.sources.base import OUTGROWN, Bounds
from blocks.sources.postgres.connect import Session, identifier, literal
from blocks.sources.postgres.tables import Column, Table, TableShape

_SAMPLED_PAGES = 500
"""A heap of fewer pages is measured as a whole."""
_PAGES_PER_PART = 128
"""Pages looked at for each part of a larger one."""
_PACKED = 8
"""How many times larger rows may be than the table on disk, which holds large values compressed."""


def select(shape: TableShape, bounds: Bounds) -> str:
    """Write the query that reads all columns of one part."""
    chosen = [f"{column.read} AS {identifier(column.name)}" for column in shape.columns]
    if shape.row is None:
        return f"SELECT {', '.join(chosen)} FROM ONLY {shape.quoted} {within(shape, bounds)}"
    row, number = map(identifier, shape.row)
    own = ", ".join([*(identifier(c.name) for c in shape.columns), f"{row_hash(shape)} AS {row}"])
    numbered = f"pg_catalog.row_number() OVER (PARTITION BY {row}) AS {number}"
    # the window counts within a share, and equal rows have equal hashes: so they are in one share
    return (
        f"SELECT {', '.join([*chosen, row, numbered])}"
        f" FROM (SELECT {own} FROM ONLY {shape.quoted}) rows {within(shape, bounds)}"
    )


def row_hash(shape: TableShape) -> str:
    """Write the hash of a whole row of a table without a key."""
    return f"pg_catalog.md5(ROW({', '.join(identifier(c.name) for c in shape.columns)})::pg_catalog.text)"


def within(shape: TableShape, bounds: Bounds) -> str:
    """Write the WHERE clause of a part, or nothing for a part that is the whole table.

    Raises:
        CorruptionDetected: The bounds are not those of this table.
    """
    match bounds:
        case {"share": int(share), "of": int(of)}:
            return f"WHERE {_hash(shape)} % {of} = {share}" if of > 1 else ""
        case {"after": after, "upto": upto}:
            tests = [
                f"{_tuple([identifier(name) for name in shape.key])} {comparison} {_edge(shape, edge)}"
                for edge, comparison in ((after, ">"), (upto, "<="))
                if isinstance(edge, list)
            ]
            return f"WHERE {' AND '.join(tests)}" if tests else ""
    raise CorruptionDetected(f"the bounds of a part of {shape.quoted} cannot be read")


def _edge(shape: TableShape, values: Sequence[object]) -> str:
    if len(values) != len(shape.key):
        raise CorruptionDetected(f"the bounds of a part of {shape.quoted} do not fit its key")
    pairs = zip(shape.key, values, strict=True)
    return _tuple([f"{literal(str(value))}::{shape.column(name).type}" for name, value in pairs])


def _tuple(values: Sequence[str]) -> str:
    return f"({', '.join(values)})" if len(values) > 1 else values[0]


def _hash(shape: TableShape) -> str:
    if shape.row is not None:
        text = identifier(shape.row[0])
    else:
        text = f"ROW({', '.join(identifier(name) for name in shape.key)})::pg_catalog.text"
    # a deterministic collation, whatever the database's is
    return f'(pg_catalog.hashtextextended({text} COLLATE pg_catalog."C", 0) & 9223372036854775807)'


def _size(shape: TableShape) -> str:
    """Write the Arrow bytes of a row as an expression."""
    sizes = [str(8 * len(shape.columns) + 48 * bool(shape.row))]
    sizes += [f"coalesce(pg_catalog.octet_length({c.read}), 0)" for c in shape.columns if _varies(c)]
    return f"({' + '.join(sizes)})"


def _varies(column: Column) -> bool:
    text = column.type.startswith(("text", "character", "bpchar", "bytea"))
    return text or column.read.startswith("pg_catalog.textin(")


def _sample(table: Table, part_size_bytes: int) -> tuple[str, float]:
    """Write a FROM clause that samples a table, and tell what share of it that is."""
    guess = max(1, table.size_bytes // part_size_bytes)
    pages = max(_SAMPLED_PAGES, guess * _PAGES_PER_PART)
    if pages >= table.pages:
        return f"FROM ONLY {table.shape.quoted}", 1.0
    share = pages / table.pages
    return f"FROM ONLY {table.shape.quoted} TABLESAMPLE SYSTEM ({100 * share:.6f}) REPEATABLE (1)", share


def draw(session: Session, table: Table, part_size_bytes: int) -> list[Bounds]:
    """Draw parts of about a size in bytes; large tables are sampled."""
    shape = table.shape
    if table.size_bytes * _PACKED <= part_size_bytes:
        return _ranges([]) if shape.ordered else [{"share": 0, "of": 1}]
    source, share = _sample(table, part_size_bytes)
    if not shape.ordered:
        row = session.execute(f"SELECT coalesce(sum({_size(shape)}), 0)::int8 {source}".encode()).fetchone()
        count = 1 + int(int(str(row[0])) / share / part_size_bytes) if row else 1
        return [{"share": n, "of": count} for n in range(count)]
    with session.cursor() as cursor:
        cursor.execute(_cuts(shape, source, max(1, round(part_size_bytes * share))).encode())
        return _ranges([tuple(map(str, cut)) for cut in cursor])


def _cuts(shape: TableShape, source: str, size_bytes: int) -> str:
    """Write the query for the last key of each part but the last.

    A part ends where the sum of all sizes passes a multiple of its own; a row that is larger than that stands alone.
    """
    # qualified, because ORDER BY takes a bare name for that of a column of the result, which is text
    names = [f"{identifier(shape.table)}.{identifier(name)}" for name in shape.key]
    columns = [f"key{n}" for n in range(len(names))]
    keys = ", ".join(f"{name}::pg_catalog.text AS {column}" for name, column in zip(names, columns, strict=True))
    passed = f"(pg_catalog.sum({_size(shape)}) OVER (keyed ROWS UNBOUNDED PRECEDING) - 1) / {size_bytes}"
    sized = (
        f"SELECT {keys}, pg_catalog.row_number() OVER keyed AS place, {passed} AS part,"
        f" {_size(shape)} > {size_bytes} AS alone {source} WINDOW keyed AS (ORDER BY {', '.join(names)})"
    )
    beside = (
        "SELECT *, pg_catalog.lead(part) OVER places AS next_part, pg_catalog.lead(alone) OVER places AS next_alone"
        f" FROM ({sized}) sized WINDOW places AS (ORDER BY place)"
    )
    ended = "next_part <> part OR next_alone OR alone AND next_part IS NOT NULL"
    return f"SELECT {', '.join(columns)} FROM ({beside}) beside WHERE {ended} ORDER BY place"


def _ranges(cuts: Sequence[Sequence[str]]) -> list[Bounds]:
    edges: list[JsonValue] = [None]
    for cut in cuts:
        edges.append([*cut])
    edges.append(None)
    return [{"after": after, "upto": upto} for after, upto in itertools.pairwise(edges)]


def outgrown(session: Session, table: Table, bounds: Sequence[Bounds], part_size_bytes: int) -> bool:
    """Whether the last part, which takes the rows that are appended, or all parts together have grown too large."""
    limit = OUTGROWN * part_size_bytes
    if table.size_bytes * _PACKED <= limit:
        return False
    source, share = _sample(table, part_size_bytes)
    last = within(table.shape, bounds[-1]).removeprefix("WHERE ") if table.shape.ordered else ""
    # a single row, however large, is a part of its own in any drawing
    size = f"least({_size(table.shape)}, {part_size_bytes})"
    found = session.execute(
        f"SELECT coalesce(sum({size}), 0)::int8, coalesce(sum({size}) FILTER (WHERE {last or 'true'}), 0)::int8"
        f" {source}".encode()
    ).fetchone()
    assert found is not None
    total, tail = (int(str(value)) for value in found)
    return bool((last and tail / share > limit) or total / share / len(bounds) > limit)
