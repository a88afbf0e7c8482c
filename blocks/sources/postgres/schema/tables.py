"""What a table is as a collection: how its columns are read, what identifies a row, what proves it unchanged.

Numbers, text, booleans and binary travel as Arrow values. Everything else travels as the text that the type's own
output function gives, which its input function takes back exactly: `numeric`, dates with BC and infinity, arrays, JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from blocks.errors import CorruptionDetected, UnsupportedState
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.overloaded import exact
from blocks.sources.postgres.schema.types import naming_types

LARGE_OBJECTS = "large_objects"
"""Name of the collection that holds the pages of all large objects; no table's name lacks a dot."""

_BLOCK_BYTES = 8192
"""Of a server as it is usually built; a page of a large object has a quarter of that."""

_NATIVE = frozenset(("bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "bpchar", "bytea"))

_ORDERED = _NATIVE | frozenset(
    ("bpchar", "name", "oid", "numeric", "date", "timestamp", "timestamptz", "time", "uuid", "inet", "macaddr")
)
"""Types of keys whose order is known to every version of the server: parts can be ranges of them."""


@dataclass(frozen=True)
class Column:
    """A column that holds data of its own (a generated one does not)."""

    name: str
    type: str
    """As a statement names it, with its modifiers."""
    read: str
    """The expression that reads it."""


@dataclass(frozen=True)
class TableShape:
    """How rows of a table are identified and found.

    Attributes:
        schema: Schema of the table.
        table: Name of the table, unquoted.
        columns: All columns with data of their own, in order.
        key: Columns that identify a row; empty where the table has none.
        ordered: Whether parts are ranges of the key; else they are shares by a hash.
        row: Where there is no key: the extra columns that hold the row's hash and its number among equal rows.
    """

    schema: str
    table: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    ordered: bool
    row: tuple[str, str] | None

    @property
    def quoted(self) -> str:
        """The table as a statement names it."""
        return identifier(self.schema, self.table)

    def column(self, name: str) -> Column:
        """Return a column by its name."""
        return next(column for column in self.columns if column.name == name)

    def to_manifest(self) -> dict[str, JsonValue]:
        """Write it as JSON."""
        return {
            "schema": self.schema,
            "table": self.table,
            "columns": [[c.name, c.type, c.read] for c in self.columns],
            "key": list(self.key),
            "ordered": self.ordered,
            "row": list(self.row) if self.row else None,
        }

    @classmethod
    def of(cls, collection: CollectionSpec) -> TableShape:
        """Read it from a collection.

        Raises:
            CorruptionDetected: The manifest does not describe a table.
        """
        raw = collection.definition
        match raw:
            case {"schema": str(schema), "table": str(table), "columns": list(columns), "key": list(key)}:
                row = raw.get("row")
                return cls(
                    schema=schema,
                    table=table,
                    columns=tuple(Column(*map(str, column)) for column in columns if isinstance(column, list)),
                    key=tuple(map(str, key)),
                    ordered=bool(raw.get("ordered")),
                    row=(str(row[0]), str(row[1])) if isinstance(row, list) else None,
                )
        raise CorruptionDetected(f"the manifest does not describe collection {collection.name!r} as a table")


@dataclass(frozen=True)
class Table:
    """A table as it is now.

    Attributes:
        spec: The collection.
        shape: How its rows are read.
        pages: Of its heap, without what is kept out of line.
        facts: Changes whenever rows may differ though their transactions are old: another file, other columns.
            None where that is not known.
        size_bytes: On disk, without indexes.
        heap: Whether it is stored as tables usually are, so that ranges of its pages can be asked for.
        generated: Whether it has generated columns.
    """

    spec: CollectionSpec
    shape: TableShape
    facts: str | None
    size_bytes: int
    pages: int
    heap: bool = True
    generated: bool = False

    @property
    def doing(self) -> str:
        """What is done when its rows are read, for errors that end with the place."""
        return f"cannot read {self.spec.name} in"

    def ordered_as(self, collection: CollectionSpec) -> Table:
        """Return it with its columns in the order of a collection that it fits; itself where it does not."""
        if not self.spec.fits(collection):
            return self
        places = {name: place for place, (name, _) in enumerate(collection.columns)}
        columns = sorted(self.shape.columns, key=lambda column: places[column.name])
        return replace(self, shape=replace(self.shape, columns=tuple(columns)))


_TABLES = """
SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
       coalesce(am.amname, '')::text, c.relfilenode::int8,
       coalesce(pg_catalog.pg_table_size(c.oid), 0)::int8,
       coalesce(pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8, 0)::int8
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE c.relkind IN ('r', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""

_COLUMNS = """
SELECT a.attrelid::int8, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnum::int4,
       base.typname::text, (base.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND base.typtype = 'b'),
       t.typtype = 'd', pg_catalog.quote_ident(outn.nspname) || '.' || pg_catalog.quote_ident(outp.proname),
       a.attgenerated <> '', coalesce(a.attmissingval::text, ''), a.atttypid::int8,
       pg_catalog.has_function_privilege(outp.oid, 'EXECUTE')
       AND pg_catalog.has_function_privilege('pg_catalog.textin(cstring)', 'EXECUTE')
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type base ON base.oid = CASE WHEN t.typtype = 'd' THEN (
    WITH RECURSIVE up AS (SELECT t.oid, t.typbasetype, t.typtype
        UNION ALL SELECT b.oid, b.typbasetype, b.typtype FROM up JOIN pg_catalog.pg_type b ON b.oid = up.typbasetype
        WHERE up.typtype = 'd')
    SELECT up.oid FROM up WHERE up.typtype <> 'd') ELSE t.oid END
JOIN pg_catalog.pg_proc outp ON outp.oid = base.typoutput
JOIN pg_catalog.pg_namespace outn ON outn.oid = outp.pronamespace
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY a.attrelid, a.attnum
"""

_KEYS = """
SELECT DISTINCT ON (i.indrelid) i.indrelid::int8, pg_catalog.array_agg(a.attname::text ORDER BY k.n)
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.n <= i.indnkeyatts AND a.attgenerated = ''
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint n WHERE n.conrelid = i.indrelid AND n.contype = 'n'
                  AND NOT n.convalidated AND a.attnum = ANY (n.conkey))
GROUP BY i.indrelid, i.indexrelid, i.indisprimary, i.indnkeyatts
HAVING pg_catalog.bool_and(a.attnotnull) AND pg_catalog.count(*) = i.indnkeyatts
ORDER BY i.indrelid, i.indisprimary DESC, i.indnkeyatts, i.indexrelid
"""


def read_tables(session: Session) -> Catalogue:
    """Describe all tables of the users' schemas."""
    columns: dict[int, list[tuple[object, ...]]] = {}
    for row in session.execute(_COLUMNS.encode()):
        columns.setdefault(_int(row[0]), []).append(row[1:])
    keys = {_int(oid): tuple(_list(names)) for oid, names in session.execute(_KEYS.encode())}
    naming = naming_types(session)
    found = Catalogue([], [])
    for oid, schema, table, kind, persistence, method, filenode, size, pages in session.execute(_TABLES.encode()):
        at = (str(schema), str(table))
        if kind == "f":
            found.foreign.append(at)
            continue
        read = columns.get(_int(oid), [])
        tracked = persistence == "p" and method == "heap" and not any(c[9] in naming for c in read)
        facts = repr((oid, filenode, [(c[0], c[1], c[2], c[8]) for c in read])) if tracked else None
        shape = _shape(at, read, keys.get(_int(oid), ()))
        computed = any(c[7] for c in read)
        found.tables.append(Table(_spec(shape), shape, facts, _int(size), _int(pages), method == "heap", computed))
    return found


@dataclass(frozen=True)
class Catalogue:
    """All tables, and the foreign ones, whose rows live elsewhere."""

    tables: list[Table]
    foreign: list[tuple[str, str]]


def _shape(at: tuple[str, str], read: Sequence[tuple[object, ...]], key: tuple[str, ...]) -> TableShape:
    columns, plain = [], set()
    for name, kind, _, base, system, domain, output, generated, _, _, callable_ in read:
        if generated:
            continue
        quoted = identifier(str(name))
        native = system and base in _NATIVE
        # `refcursor` has the output function of `text`, which does not take it
        borrowed = output == "pg_catalog.textout"
        expression = f"{quoted}::pg_catalog.text" if borrowed else f"pg_catalog.textin({output}({quoted}))"
        if not callable_ and not borrowed:
            # asks for no privilege on the output function, as COPY does not; NULL is nothing to it
            expression = f"CASE WHEN pg_catalog.num_nulls({quoted}) = 0 THEN pg_catalog.format('%s', {quoted}) END"
        if system:
            expression = exact(str(base), quoted, expression)
        if native:
            # a domain over a native type is read as that type
            expression = f"{quoted}::pg_catalog.{base}" if domain else quoted
        if system and not domain and base in _ORDERED:
            plain.add(str(name))
        columns.append(Column(str(name), str(kind), expression))
    names = {column.name for column in columns}
    row = None if key else (free_name("lastgood_row", names), free_name("lastgood_number", names))
    return TableShape(*at, tuple(columns), key, bool(key) and plain.issuperset(key), row)


def _spec(shape: TableShape) -> CollectionSpec:
    columns = tuple((column.name, column.type) for column in shape.columns)
    if shape.row:
        columns += ((shape.row[0], "md5"), (shape.row[1], "number"))
    key = shape.row or shape.key
    name = collection_name(shape.schema, shape.table)
    # of equal rows, whose numbers mean nothing to anybody, all are chosen or none
    label = shape.row[:1] if shape.row else key
    return CollectionSpec(name, key, label, columns, shape.to_manifest())


def collection_name(schema: str, table: str) -> str:
    """Name a table's collection; a part with a dot or a quote is quoted, so that no two tables share a name."""
    return ".".join(identifier(part) if {".", '"'} & set(part) else part for part in (schema, table))


def free_name(name: str, taken: set[str]) -> str:
    """Return a name that no column has."""
    while name in taken:
        name += "_"
    return name


def large_objects(session: Session) -> Table | None:
    """Describe the pages of the large objects, or None where there are none.

    Raises:
        UnsupportedState: They have another size than that of all usual servers, and would come back wrong.
    """
    found = session.execute("SELECT FROM pg_catalog.pg_largeobject_metadata LIMIT 1").fetchone()
    if found is None:
        return None
    facts = session.execute(
        "SELECT pg_catalog.pg_relation_filenode(c)::int8, pg_catalog.pg_table_size(c)::int8,"
        " (pg_catalog.pg_relation_size(c) / pg_catalog.current_setting('block_size')::int8)::int8,"
        " pg_catalog.current_setting('block_size')::int8"
        " FROM (VALUES ('pg_catalog.pg_largeobject'::pg_catalog.regclass)) v (c)"
    ).fetchone()
    assert facts is not None
    if facts[3] != _BLOCK_BYTES:
        raise UnsupportedState(
            f"there are large objects on a server with blocks of {facts[3]} bytes, not {_BLOCK_BYTES}",
            hint="Choose what is backed up with `schemas`, without the large objects.",
        )
    columns = (
        Column("loid", "oid", "loid::pg_catalog.int8"),
        Column("pageno", "integer", "pageno"),
        Column("data", "bytea", "data"),
    )
    shape = TableShape("pg_catalog", "pg_largeobject", columns, ("loid", "pageno"), True, None)
    spec = CollectionSpec(
        LARGE_OBJECTS, shape.key, ("loid",), tuple((c.name, c.type) for c in columns), shape.to_manifest()
    )
    return Table(spec, shape, repr(facts[0]), _int(facts[1]), _int(facts[2]))


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _list(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]
