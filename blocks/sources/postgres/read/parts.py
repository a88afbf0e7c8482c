"""Parts of a table: ranges of its key, or shares by a hash where the key has no order that every server knows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.sources.collection import REPARTITION_FACTOR, Bounds
from blocks.sources.postgres.connect import Session, identifier, literal
from blocks.sources.postgres.own_path import looked_at
from blocks.sources.postgres.schema.tables import Column, Table, TableShape

_SAMPLED_PAGES = 500
"""A heap of fewer pages is measured as a whole."""
_PAGES_PER_PART = 128
"""Pages looked at for each part of a larger one."""
_PACKED = 8
"""How many times larger rows may be than the table on disk, which holds large values compressed."""


def select(shape: TableShape, bounds: Bounds) -> str:
    """Write the query that reads all columns of one part."""
    if shape.row is None:
        return f"SELECT {', '.join(_chosen(shape))} FROM ONLY {shape.quoted} {within(shape, bounds)}"
    row, number = map(identifier, shape.row)
    numbered = f"pg_catalog.row_number() OVER (PARTITION BY {row}) AS {number}"
    # the window counts within a share, and equal rows have equal hashes: so they are in one share
    chosen = ", ".join([*_chosen(shape), row, numbered])
    return f"SELECT {chosen} FROM ({_with_hash(shape)}) rows {within(shape, bounds)}"


def select_all(shape: TableShape, more: str, pages: str) -> str:
    """Write the query that reads all columns of all parts, without the numbers of equal rows.

    Args:
        shape: The table's columns and key.
        more: An expression to read beside the columns.
        pages: The WHERE clause of a range of pages, or nothing.
    """
    if shape.row is None:
        return f"SELECT {', '.join([*_chosen(shape), more])} FROM ONLY {shape.quoted} {pages}"
    chosen = ", ".join([*_chosen(shape), identifier(shape.row[0]), more])
    return f"SELECT {chosen} FROM ({_with_hash(shape)} {pages}) rows"


def select_keys(shape: TableShape, where: str, more: str | None = None) -> str:
    """Write the query that reads the keys of rows, `xmin` and `ctid`, and what is asked for beside them."""
    keys = [f"{shape.column(name).read} AS {identifier(name)}" for name in shape.key]
    return f"SELECT {', '.join([*keys, 'xmin', 'ctid', *([more] if more else [])])} FROM ONLY {shape.quoted} {where}"


def _chosen(shape: TableShape) -> list[str]:
    return [f"{column.read} AS {identifier(column.name)}" for column in shape.columns]


def _with_hash(shape: TableShape) -> str:
    assert shape.row is not None
    own = ", ".join([*(identifier(c.name) for c in shape.columns), f"{row_hash(shape)} AS {identifier(shape.row[0])}"])
    return f"SELECT {own} FROM ONLY {shape.quoted}"


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


def part_number(shape: TableShape, parts: Sequence[Bounds]) -> str:
    """Write the expression for the number of the part that a row is in, counted from 0."""
    match parts[0]:
        case {"share": _, "of": int(of)}:
            return f"({_hash(shape)} % {of})::pg_catalog.int4"
    key = _tuple([identifier(name) for name in shape.key])
    edges = [_edge(shape, upto) for part in parts[:-1] if isinstance(upto := part["upto"], list)]

    def halved(first: int, last: int) -> str:
        if first == last:
            return str(first)
        middle = (first + last) // 2
        lower, upper = halved(first, middle), halved(middle + 1, last)
        return f"CASE WHEN {key} <= {edges[middle]} THEN {lower} ELSE {upper} END"

    return halved(0, len(edges))


class PartNumbers:
    """The parts of one table, counted from 0 as `part_number` does; of shares any one stands for all.

    Args:
        parts: The bounds of the parts, in order.
    """

    def __init__(self, parts: Sequence[Bounds]) -> None:
        self._numbers = {_named(bounds): number for number, bounds in enumerate(parts)}
        match parts[0]:
            case {"of": int(of)}:
                self.count = of
            case _:
                self.count = len(parts)

    def holds(self, bounds: Bounds) -> bool:
        """Whether bounds are those of one of the parts."""
        return bounds["of"] == self.count if "share" in bounds else _named(bounds) in self._numbers

    def of(self, bounds: Bounds) -> int:
        """Return the number of a part."""
        match bounds:
            case {"share": int(share)}:
                return share
        return self._numbers[_named(bounds)]


def _named(bounds: Bounds) -> str:
    return json.dumps(bounds, sort_keys=True)


def correlation(session: Session, table: Table) -> float:
    """Return how far the rows of a table lie in the order of its key, from 0 to 1; 1 where the server does not know."""
    seen = session.execute("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_stats', 'SELECT')").fetchone()
    if seen is None or not seen[0]:
        return 1.0
    row = session.execute(
        "SELECT pg_catalog.abs(correlation)::float8 FROM pg_catalog.pg_stats"
        " WHERE schemaname = %s AND tablename = %s AND attname = %s AND NOT inherited",
        (table.shape.schema, table.shape.table, table.shape.key[0]),
    ).fetchone()
    return float(str(row[0])) if row is not None and row[0] is not None else 1.0


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
    return text or column.read.startswith(("pg_catalog.textin(", "CASE "))


def _sample(table: Table, part_size_bytes: int) -> tuple[str, float]:
    """Write a FROM clause that samples a table, and return the share that it is."""
    guess = max(1, table.size_bytes // part_size_bytes)
    pages = max(_SAMPLED_PAGES, guess * _PAGES_PER_PART)
    if pages >= table.pages:
        return f"FROM ONLY {table.shape.quoted}", 1.0
    share = pages / table.pages
    return f"FROM ONLY {table.shape.quoted} TABLESAMPLE SYSTEM ({100 * share:.6f}) REPEATABLE (1)", share


def partition(session: Session, table: Table, part_size_bytes: int) -> list[Bounds]:
    """Partition a table into parts of about a size in bytes; large tables are sampled."""
    shape = table.shape
    if table.size_bytes * _PACKED <= part_size_bytes:
        return _ranges([]) if shape.ordered else [{"share": 0, "of": 1}]
    source, share = _sample(table, part_size_bytes)

    def measured() -> list[Bounds]:
        if not shape.ordered:
            row = session.execute(f"SELECT coalesce(sum({_size(shape)}), 0)::int8 {source}".encode()).fetchone()
            count = 1 + int(int(str(row[0])) / share / part_size_bytes) if row else 1
            return [{"share": n, "of": count} for n in range(count)]
        with session.cursor() as cursor:
            cursor.execute(_cuts(shape, source, max(1, round(part_size_bytes * share))).encode())
            return _ranges([tuple(map(str, cut)) for cut in cursor])

    # what is rolled back lets go of the locks on the indexes, of which a server may have few
    return looked_at(session, measured)


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


def needs_repartition(session: Session, table: Table, bounds: Sequence[Bounds], part_size_bytes: int) -> bool:
    """Whether the last part, which takes the rows that are appended, or all parts together have grown too large."""
    limit = REPARTITION_FACTOR * part_size_bytes
    if table.size_bytes * _PACKED <= limit:
        return False
    source, share = _sample(table, part_size_bytes)
    last = within(table.shape, bounds[-1]).removeprefix("WHERE ") if table.shape.ordered else ""
    # a single row, however large, is a part of its own in any drawing
    size = f"least({_size(table.shape)}, {part_size_bytes})"
    tail_size = f"sum({size}) FILTER (WHERE {last or 'true'})"
    query = f"SELECT coalesce(sum({size}), 0)::int8, coalesce({tail_size}, 0)::int8 {source}"
    found = looked_at(session, lambda: session.execute(query.encode()).fetchone())
    assert found is not None
    total, tail = (int(str(value)) for value in found)
    return bool((last and tail / share > limit) or total / share / len(bounds) > limit)
