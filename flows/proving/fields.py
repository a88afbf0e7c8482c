"""Tables made of records with fields: those of JSON texts and hashes (keyed.py), and of files (file_tables.py).

Each field is kept as text with the kind that it was written in, and typed when all rows are there: by what the suite
says, else by what most values are. The others are counted, and NULL.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import ConfigurationError
from blocks.plan.quality.column_types import named_type, quoted, text
from blocks.plan.quality.sql import SUITES
from blocks.plan.quality.table import CheckedColumn, CheckedTable, Unparsed
from flows.reading.typed_parts import EXAMPLES, converted

if TYPE_CHECKING:
    import duckdb

NUMBER, BOOLEAN, TEXT, NESTED = range(1, 5)
"""Kinds that a field's value is written in."""
BATCH = 20_000
"""Records that are made into a file at once."""
_MOSTLY = 0.9
"""Share of texts that have to be numbers for a column of numbers."""
_NUMERIC = r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
MAX_FIELDS = 1_000
"""Most columns of a table; keys with more fields than that are no rows of one."""

Record = dict[str, tuple[int, str] | None]
"""Kind and text of each field that a record has, None where it is NULL."""


class Reader(Protocol):
    """Makes a table of rows of a collection."""

    def add(self, rows: pa.Table, part: int) -> None:
        """Take restored rows; thread-safe."""

    def table(self) -> CheckedTable:
        """Return the table, after all rows were added."""


@dataclass
class Failures:
    """What does not parse."""

    what: str
    said: str = "do not parse"
    severity: str = "critical"
    total: int = 0
    count: int = 0
    keys: list[str] = field(default_factory=list)

    def note(self, key: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.keys) < EXAMPLES:
            self.keys.append(key)

    @property
    def unparsed(self) -> tuple[Unparsed, ...]:
        """What is to be said of them."""
        found = Unparsed(self.what, self.count, self.total, tuple(self.keys), self.said, self.severity)
        return (found,) if self.count else ()


class Fields:
    """Records of fields, in files of some records each, made into one typed table in the end."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, folder: Path, name: str, typed: Mapping[str, str], guess: bool
    ) -> None:
        self._connection, self._folder, self._typed, self._guess = connection, folder, typed, guess
        self.view = f"{quoted(SUITES)}.{quoted(name)}"
        self._fields: dict[str, int] = {}
        self._files: list[tuple[int, int, Path]] = []
        self._written = 0  # fields that the latest file has, and so the most
        self._guard = threading.Lock()
        self.rows = 0

    def know(self, names: Iterable[str]) -> None:
        """Take names of fields, which are columns even where no record has them.

        Raises:
            ConfigurationError: There are too many.
        """
        for name in names:
            self._fields.setdefault(name, len(self._fields))
        self.check_width(self._fields)

    def add(self, own: Mapping[str, pa.Array], records: Sequence[Record], part: int) -> None:
        """Take records; `own` are columns that each has beside its fields."""
        with self._guard:
            self.know(name for record in records for name in record)
            numbers = dict(self._fields)
            self._written = len(numbers)
            path = self._folder / f"fields-{len(self._files)}.parquet"
            self._files.append((part, len(self._files), path))
            self.rows += len(records)
        columns: dict[str, pa.Array] = {f"o{n}": values for n, values in enumerate(own.values())}
        for name, number in numbers.items():
            found = [record.get(name) for record in records]
            columns[f"k{number}"] = pa.array([None if each is None else each[0] for each in found], pa.int8())
            columns[f"f{number}"] = pa.array([None if each is None else each[1] for each in found], pa.large_string())
        pq.write_table(pa.table(columns), path, compression="lz4")

    def check_width(self, fields: Sized) -> None:
        """Refuse fields that are too many for one table.

        Raises:
            ConfigurationError: They are.
        """
        if len(fields) > MAX_FIELDS:
            raise ConfigurationError(
                f"{self.view}: what stands there has more than {MAX_FIELDS:,} different fields",
                hint="Narrow the suite with `keys` to what has the same fields.",
            )

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
                sql_names = _distinct([*own, *names])
                kinds = {**own, **{name: self._empty(name) for name in names}}
                columns = {name: CheckedColumn(kind, sql_names[name]) for name, kind in kinds.items()}
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
                kind = types[sql_names[name]]
                nans = _nans(cursor, raw, number) if wrong and kind == "DOUBLE" else 0
                columns[name] = CheckedColumn(kind, sql_names[name], wrong - nans, nans, keys if wrong > nans else ())
            cursor.execute(f"CREATE OR REPLACE VIEW {self.view} AS SELECT * FROM {source}")
        return CheckedTable(self._connection, self.view, columns, self.rows, unparsed, (key,))

    def _expression(self, cursor: duckdb.DuckDBPyConnection, raw: str, name: str, number: int) -> str:
        """Return the SQL expression of a field's values in the type that it is to have."""
        value, kind = f"f{number}", f"k{number}"
        if number >= self._written:
            return f"CAST(NULL AS {self._empty(name)})"
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

    def _empty(self, name: str) -> str:
        """Return the type of a field that no record has."""
        return self._typed.get(name, "VARCHAR")


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
    known = {number: sql for number, sql in expressions.items() if not sql.startswith("CAST(NULL AS ")}
    counts = ", ".join(f"count(f{number}) - count({sql})" for number, sql in known.items()) or "1"
    found = cursor.execute(f"SELECT {counts} FROM {raw}").fetchone() or ()
    return dict.fromkeys(expressions, 0) | dict(zip(known, map(int, found), strict=False))


def _examples(cursor: duckdb.DuckDBPyConnection, raw: str, place: str, number: int, sql: str) -> tuple[str, ...]:
    query = f"SELECT {place} FROM {raw} WHERE f{number} IS NOT NULL AND ({sql}) IS NULL LIMIT {EXAMPLES}"
    return tuple(str(row[0]) for row in cursor.execute(query).fetchall())


def _nans(cursor: duckdb.DuckDBPyConnection, raw: str, number: int) -> int:
    """Count the values of a field that are NaN, which are NULL as numbers, and no wrong ones."""
    found = cursor.execute(f"SELECT count(*) FROM {raw} WHERE isnan(TRY_CAST(f{number} AS DOUBLE))").fetchone()
    return int(found[0]) if found else 0


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


def bytes_value(value: object) -> bytes:
    """Return what a column of text or bytes holds as bytes."""
    return value.encode() if isinstance(value, str) else bytes(value)  # type: ignore[call-overload]


def text_value(value: object) -> str:
    """Return what a column of text or bytes holds as text."""
    return value if isinstance(value, str) else bytes_value(value).decode(errors="backslashreplace")


def json_fields(value: bytes) -> Record:
    """Return the fields of a JSON object.

    Raises:
        ValueError: It is no JSON, or no object.
    """
    try:
        found = json.loads(value, parse_float=Decimal, parse_constant=_no_json)
    except (RecursionError, ArithmeticError) as exc:
        raise ValueError("nested too deep, or a number beyond all bounds") from exc
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004  the text is wrong, not a type of ours
    return {name: None if held is None else written(held) for name, held in found.items()}


def _no_json(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def written(value: object) -> tuple[int, str]:
    """Return the kind and the text of a value of JSON."""
    if isinstance(value, bool):
        return BOOLEAN, "true" if value else "false"
    if isinstance(value, int):
        return NUMBER, str(value)
    if isinstance(value, Decimal):
        return NUMBER, f"{value:f}" if abs(value.adjusted()) < 40 else str(value)
    if isinstance(value, str):
        return TEXT, value.encode(errors="backslashreplace").decode()
    return NESTED, json.dumps(value, default=str)
