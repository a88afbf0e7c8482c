"""Tables made of what stands under keys: fields of JSON texts and hashes of Redis, and files with tables.

Each field is kept as text with the kind that it was written in, and typed when all rows are there: by what the suite
says, else by what most values are. The others are counted, and NULL.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import hiredis
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from blocks.errors import ConfigurationError
from blocks.plan.quality.column_types import named_type, quoted, text
from blocks.plan.quality.sql import SUITES
from blocks.plan.quality.suite import QualitySuite
from blocks.plan.quality.table import CheckedColumn, CheckedTable, Unparsed
from blocks.rows.selection import Selection
from flows.proving.typed_parts import EXAMPLES, converted

if TYPE_CHECKING:
    import duckdb

NUMBER, BOOLEAN, TEXT, NESTED = range(1, 5)
"""Kinds that a field's value is written in."""
_BATCH = 20_000
"""Records that are made into a file at once."""
_MOSTLY = 0.9
"""Share of texts that have to be numbers for a column of numbers."""
_NUMERIC = r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
MAX_FIELDS = 1_000
"""Most columns of a table; keys with more fields than that are no rows of one."""

Record = dict[str, tuple[int, str]]
"""Kind and text of each field that a record has."""


class Reader(Protocol):
    """Makes a table of rows of a collection."""

    def add(self, rows: pa.Table, part: int) -> None:
        """Take restored rows; thread-safe."""

    def table(self) -> CheckedTable:
        """Return the table, after all rows were added."""


@dataclass
class _Failures:
    """What does not parse."""

    what: str
    total: int = 0
    count: int = 0
    keys: list[str] = field(default_factory=list)

    def note(self, key: str) -> None:
        self.count += 1
        if len(self.keys) < EXAMPLES:
            self.keys.append(key)

    @property
    def unparsed(self) -> tuple[Unparsed, ...]:
        return (Unparsed(self.what, self.count, self.total, tuple(self.keys)),) if self.count else ()


class _Fields:
    """Records of fields, in files of some records each, made into one typed table in the end."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, folder: Path, name: str, typed: Mapping[str, str], guess: bool
    ) -> None:
        self._connection, self._folder, self._typed, self._guess = connection, folder, typed, guess
        self.view = f"{quoted(SUITES)}.{quoted(name)}"
        self._fields: dict[str, int] = {}
        self._files: list[tuple[int, int, Path]] = []
        self._guard = threading.Lock()
        self.rows = 0

    def add(self, own: Mapping[str, pa.Array], records: Sequence[Record], part: int) -> None:
        """Take records; `own` are columns that each has beside its fields."""
        with self._guard:
            for record in records:
                for name in record:
                    self._fields.setdefault(name, len(self._fields))
            if len(self._fields) > MAX_FIELDS:
                raise ConfigurationError(
                    f"{self.view}: what stands there has more than {MAX_FIELDS:,} different fields",
                    hint="Narrow the suite with `keys` to what has the same fields.",
                )
            numbers = dict(self._fields)
            path = self._folder / f"fields-{len(self._files)}.parquet"
            self._files.append((part, len(self._files), path))
            self.rows += len(records)
        columns: dict[str, pa.Array] = {f"o{n}": values for n, values in enumerate(own.values())}
        for name, number in numbers.items():
            found = [record.get(name) for record in records]
            columns[f"k{number}"] = pa.array([None if each is None else each[0] for each in found], pa.int8())
            columns[f"f{number}"] = pa.array([None if each is None else each[1] for each in found], pa.large_string())
        pq.write_table(pa.table(columns), path, compression="lz4")

    def table(self, own: Mapping[str, str], unparsed: tuple[Unparsed, ...], key: str) -> CheckedTable:
        """Make the table.

        Args:
            own: SQL types of the columns that each record has beside its fields.
            unparsed: What did not become a record.
            key: Which of the own columns names a record.
        """
        names = {name if name not in own else f"value.{name}": number for name, number in self._fields.items()}
        with self._connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(SUITES)}")
            if not self.rows:
                columns = {name: CheckedColumn(kind, name) for name, kind in own.items()}
                empty = ", ".join(f"CAST(NULL AS {c.type}) AS {quoted(c.sql_name)}" for c in columns.values())
                cursor.execute(f"CREATE OR REPLACE VIEW {self.view} AS SELECT {empty} WHERE false")
                return CheckedTable(self._connection, self.view, columns, 0, unparsed, (key,))
            paths = ", ".join(text(str(path)) for *_, path in sorted(self._files, key=lambda each: each[:2]))
            raw = f"read_parquet([{paths}], union_by_name = true)"
            expressions = {name: self._expression(cursor, raw, name, number) for name, number in names.items()}
            lost = _lost(cursor, raw, {names[name]: sql for name, sql in expressions.items()})
            sql_names = _distinct([*own, *names])
            columns = {name: CheckedColumn(kind, sql_names[name]) for name, kind in own.items()}
            chosen = [f"o{n} AS {quoted(sql_names[name])}" for n, name in enumerate(own)]
            chosen += [f"{sql} AS {quoted(sql_names[name])}" for name, sql in expressions.items()]
            path = self._folder / "typed.parquet"
            cursor.execute(
                f"COPY (SELECT {', '.join(chosen)} FROM {raw}) TO {text(str(path))} (FORMAT parquet, COMPRESSION lz4)"
            )
            source = f"read_parquet({text(str(path))})"
            types = {str(row[0]): str(row[1]) for row in cursor.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
            place = f"o{list(own).index(key)}"
            for name, number in names.items():
                wrong = lost[number]
                keys = _examples(cursor, raw, place, number, expressions[name]) if wrong else ()
                columns[name] = CheckedColumn(types[sql_names[name]], sql_names[name], wrong, keys=keys)
            cursor.execute(f"CREATE OR REPLACE VIEW {self.view} AS SELECT * FROM {source}")
        return CheckedTable(self._connection, self.view, columns, self.rows, unparsed, (key,))

    def _expression(self, cursor: duckdb.DuckDBPyConnection, raw: str, name: str, number: int) -> str:
        """Return the SQL expression of a field's values in the type that it is to have."""
        value, kind = f"f{number}", f"k{number}"
        if name in self._typed:
            return _whole(converted(cursor, raw, value, self._typed[name]))
        counts = dict(cursor.execute(f"SELECT {kind}, count(*) FROM {raw} GROUP BY 1").fetchall())
        counts.pop(None, None)
        if self._guess:
            total = sum(counts.values())
            found = cursor.execute(
                f"SELECT count(*) FILTER (WHERE regexp_full_match({value}, {text(_NUMERIC)})), "
                f"count(*) FILTER (WHERE regexp_full_match({value}, '[+-]?0[0-9]+')) FROM {raw}"
            ).fetchone()
            numbers, coded = found or (0, 0)
            # what has zeros in front is a code, and no number
            return _numbers(cursor, raw, value) if total and not coded and numbers >= _MOSTLY * total else value
        most = max(counts, key=lambda each: int(counts[each]), default=TEXT)
        if most == NUMBER:
            sql = _numbers(cursor, f"(SELECT {value} FROM {raw} WHERE {kind} = {NUMBER})", value)
            return f"CASE WHEN {kind} = {NUMBER} THEN {sql} END"
        if most == BOOLEAN:
            return f"CASE WHEN {kind} = {BOOLEAN} THEN CAST({value} AS BOOLEAN) END"
        return f"CASE WHEN {kind} = {most} THEN {value} END"


def _numbers(cursor: duckdb.DuckDBPyConnection, table: str, value: str) -> str:
    return _whole(converted(cursor, table, value, named_type("decimal")))


def _whole(expression: str) -> str:
    """Make integers of decimals without a fraction, where they fit."""
    head, _, digits = expression.partition(" AS DECIMAL(")
    if digits.endswith(",0))") and int(digits.partition(",")[0]) <= 18:
        return f"{head} AS BIGINT)"
    return expression


def _lost(cursor: duckdb.DuckDBPyConnection, raw: str, expressions: Mapping[int, str]) -> dict[int, int]:
    """Count the values of each field that are not of its type."""
    if not expressions:
        return {}
    counts = ", ".join(f"count(f{number}) - count({sql})" for number, sql in expressions.items())
    found = cursor.execute(f"SELECT {counts} FROM {raw}").fetchone() or ()
    return dict(zip(expressions, map(int, found), strict=True))


def _examples(cursor: duckdb.DuckDBPyConnection, raw: str, place: str, number: int, sql: str) -> tuple[str, ...]:
    query = f"SELECT {place} FROM {raw} WHERE f{number} IS NOT NULL AND ({sql}) IS NULL LIMIT {EXAMPLES}"
    return tuple(str(row[0]) for row in cursor.execute(query).fetchall())


def _distinct(names: Iterable[str]) -> dict[str, str]:
    """Return names that differ in more than the case of letters."""
    taken, found = set[str](), dict[str, str]()
    for name in names:
        sql_name = name
        while sql_name.casefold() in taken:
            sql_name += "_2"
        taken.add(sql_name.casefold())
        found[name] = sql_name
    return found


class KeyedValues:
    """Fields of JSON texts or hashes under keys of Redis (or of another store of keys).

    The table has `key`, `expires_ms` where there is one, and the fields. What a hash holds is text, and a number where
    nine of ten values are.

    Args:
        suite: Says which keys, and what they hold.
        connection: Where the table is made.
        folder: A folder of its own.
        name: Name of the table.
    """

    def __init__(self, suite: QualitySuite, connection: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
        self._suite, self._hash = suite, suite.format == "hash"
        typed = {column: named_type(kind) for column, kind in suite.types.items()}
        self._fields = _Fields(connection, folder, name, typed, self._hash)
        self._failures = _Failures("hashes" if self._hash else "JSON texts")
        self._wide: dict[bytes, Record] = {}
        self._expires: dict[bytes, int | None] = {}
        self._guard = threading.Lock()

    def add(self, rows: pa.Table, part: int) -> None:
        """Take rows of keys."""
        if self._suite.keys is not None:
            rows = Selection(keys=(self._suite.keys,)).rows(rows, ("key",))
        keys, records, expires = [], [], []
        for row in rows.to_pylist():
            kind = row.get("type", "string")
            if kind != ("hash" if self._hash else "string"):
                if row.get("element") is None:
                    self._note(row["key"], "total")
                    self._note(row["key"])
                continue
            record = self._record(row)
            if record is not None:
                keys.append(row["key"])
                records.append(record)
                expires.append(row.get("expires_ms"))
        for start in range(0, len(records), _BATCH):
            here = slice(start, start + _BATCH)
            self._fields.add(_own(keys[here], expires[here]), records[here], part)

    def _record(self, row: Mapping[str, object]) -> Record | None:
        """Return the fields of a row; None where it is broken, or a piece of a wide hash."""
        key, value, element = row["key"], row["value"], row.get("element")
        if self._hash and (element is not None or value is None):
            with self._guard:
                record = self._wide.setdefault(_bytes(key), {})
                if element is None:
                    self._failures.total += 1
                    self._expires[_bytes(key)] = row.get("expires_ms")  # type: ignore[assignment]
                else:
                    record[_text(element)] = (TEXT, _text(value))
            return None
        self._note(key, "total")
        try:
            return _hash_fields(_bytes(value)) if self._hash else json_fields(_bytes(value))
        except ValueError:
            self._note(key)
            return None

    def _note(self, key: object, what: str = "") -> None:
        with self._guard:
            if what == "total":
                self._failures.total += 1
            else:
                self._failures.note(_text(key))

    def table(self) -> CheckedTable:
        """Return the table of all keys."""
        wide = list(self._wide)
        for start in range(0, len(wide), _BATCH):
            keys = wide[start : start + _BATCH]
            own = _own(keys, [self._expires.get(key) for key in keys])
            self._fields.add(own, [self._wide[key] for key in keys], 1 << 30)
        return self._fields.table({"key": "VARCHAR", "expires_ms": "BIGINT"}, self._failures.unparsed, "key")


def _own(keys: Sequence[object], expires: Sequence[object]) -> dict[str, pa.Array]:
    return {
        "key": pa.array([_text(key) for key in keys], pa.large_string()),
        "expires_ms": pa.array(expires, pa.int64()),
    }


def _bytes(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[call-overload]


def _text(value: object) -> str:
    return value if isinstance(value, str) else _bytes(value).decode(errors="backslashreplace")


def _hash_fields(value: bytes) -> Record:
    reader = hiredis.Reader()
    reader.feed(value)
    try:
        items = reader.gets()
    except hiredis.ProtocolError as exc:
        raise ValueError("no array") from exc
    if not isinstance(items, list) or len(items) % 2:
        raise ValueError("no pairs")
    return {_text(name): (TEXT, _text(held)) for name, held in zip(items[::2], items[1::2], strict=True)}


def json_fields(value: bytes) -> Record:
    """Return the fields of a JSON object.

    Raises:
        ValueError: It is no JSON, or no object.
    """
    found = json.loads(value, parse_float=Decimal, parse_constant=_no_json)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004  the text is wrong, not a type of ours
    return {name: _written(held) for name, held in found.items() if held is not None}


def _no_json(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _written(value: object) -> tuple[int, str]:
    if isinstance(value, bool):
        return BOOLEAN, "true" if value else "false"
    if isinstance(value, int):
        return NUMBER, str(value)
    if isinstance(value, Decimal):
        return NUMBER, f"{value:f}" if abs(value.adjusted()) < 40 else str(value)
    if isinstance(value, str):
        return TEXT, value.encode(errors="backslashreplace").decode()
    return NESTED, json.dumps(value, default=str)


class FileTables:
    """Files with tables (CSV, JSON lines, Parquet): all that match, one below the other.

    The table has `path`, `line` (of Parquet the number of the row), and the columns of the files. What CSV holds is
    text, and a number where nine of ten values are.

    Args:
        suite: Says which files, and what they hold.
        connection: Where the table is made.
        folder: A folder of its own, for the files.
        name: Name of the table.
    """

    def __init__(self, suite: QualitySuite, connection: duckdb.DuckDBPyConnection, folder: Path, name: str) -> None:
        self._suite, self._connection, self._folder = suite, connection, folder
        self._typed = {column: named_type(kind) for column, kind in suite.types.items()}
        self._fields = _Fields(connection, folder, name, self._typed, guess=suite.format == "csv")
        self._files: dict[bytes, tuple[Path, int | None]] = {}
        self._guard = threading.Lock()
        self._bad_files, self._bad_lines = _Failures("files"), _Failures("lines")

    def add(self, rows: pa.Table, part: int) -> None:
        """Take rows of files, and lay their content together."""
        if self._suite.keys is not None:
            rows = Selection(keys=(self._suite.keys,)).rows(rows, ("path",))
        for row in rows.to_pylist():
            path, offset = row["path"], row["offset"]
            with self._guard:
                place, size = self._files.get(path, (self._folder / f"file-{len(self._files)}", None))
                if row["kind"] == "file" and row["target"] is None:
                    self._files[path] = (place, row["size"])
                elif row["kind"] is None and row["data"] is not None:
                    self._files[path] = (place, size)
                    with open(place, "r+b" if place.exists() else "wb") as file:
                        file.seek(offset)
                        file.write(row["data"])

    def table(self) -> CheckedTable:
        """Read all files, and return their table."""
        read = {"csv": self._csv, "json_lines": self._json_lines, "parquet": self._parquet}[str(self._suite.format)]
        for number, (path, (place, size)) in enumerate(sorted(self._files.items())):
            name = _text(path)
            self._bad_files.total += 1
            with open(place, "ab") as file:
                file.truncate(size)
            try:
                for start, records in read(place, name):
                    lines = pa.array(range(start, start + len(records)), pa.int64())
                    own = {"path": pa.array([name] * len(records), pa.large_string()), "line": lines}
                    self._fields.add(own, records, number)
            except (pa.ArrowException, OSError, UnicodeDecodeError):
                self._bad_files.note(name)
            place.unlink()
        unparsed = self._bad_files.unparsed + self._bad_lines.unparsed
        return self._fields.table({"path": "VARCHAR", "line": "BIGINT"}, unparsed, "path")

    def _csv(self, place: Path, name: str) -> Iterator[tuple[int, list[Record]]]:
        def wrong(row: pa.csv.InvalidRow) -> str:
            self._bad_lines.note(name)
            self._bad_lines.total += 1
            return "skip"

        parse = pa.csv.ParseOptions(
            delimiter=self._suite.delimiter, newlines_in_values=True, invalid_row_handler=wrong, ignore_empty_lines=True
        )
        quiet = pa.csv.ParseOptions(
            delimiter=self._suite.delimiter, newlines_in_values=True, invalid_row_handler=lambda _: "skip"
        )
        with pa.csv.open_csv(place, parse_options=quiet) as head:
            header = head.schema.names
        types = {column: pa.large_string() for column in header}
        convert = pa.csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
        line = 1
        # one thread, so that rows come in their order and the handler is called by it alone
        options = pa.csv.ReadOptions(use_threads=False)
        with pa.csv.open_csv(place, options, parse, convert) as reader:
            for batch in reader:
                columns = {column: batch.column(column).to_pylist() for column in header}
                for start in range(0, batch.num_rows, _BATCH):
                    rows = range(start, min(start + _BATCH, batch.num_rows))
                    yield line, [{c: (TEXT, v[n]) for c, v in columns.items() if v[n] is not None} for n in rows]
                    line += len(rows)
                self._bad_lines.total += batch.num_rows

    def _json_lines(self, place: Path, name: str) -> Iterator[tuple[int, list[Record]]]:
        records: list[Record] = []
        first, number = 1, 0
        with open(place, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                self._bad_lines.total += 1
                try:
                    records.append(json_fields(line))
                except ValueError:
                    self._bad_lines.note(name)
                if len(records) == _BATCH:
                    yield first, records
                    first, records = number + 1, []
        if records:
            yield first, records

    def _parquet(self, place: Path, name: str) -> Iterator[tuple[int, list[Record]]]:
        line = 1
        with pq.ParquetFile(place) as file:
            for column in file.schema_arrow:
                if pa.types.is_date(column.type):
                    self._typed.setdefault(column.name, "DATE")
                elif pa.types.is_timestamp(column.type):
                    self._typed.setdefault(column.name, "TIMESTAMPTZ" if column.type.tz else "TIMESTAMP")
            for batch in file.iter_batches(_BATCH):
                records: list[Record] = []
                for row in batch.to_pylist():
                    records.append({column: _of_parquet(held) for column, held in row.items() if held is not None})
                yield line, records
                line += len(records)


def _of_parquet(value: object) -> tuple[int, str]:
    if isinstance(value, float):
        return (NUMBER, repr(value)) if value == value else (TEXT, "NaN")
    if isinstance(value, bool | int | Decimal | str):
        return _written(value)
    return (TEXT, _text(value)) if isinstance(value, bytes) else (TEXT, str(value))


READERS: Mapping[str, Callable[[QualitySuite, duckdb.DuckDBPyConnection, Path, str], Reader]] = {
    "json": KeyedValues,
    "hash": KeyedValues,
    "csv": FileTables,
    "json_lines": FileTables,
    "parquet": FileTables,
}
"""What makes a table of what a suite's format names."""
