"""What is wrong with quality suites that can be seen without reading a row: all of it, and what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from blocks.errors import ConfigurationError
from blocks.plan.parameters import column_of, names_in
from blocks.plan.quality.column_types import named_type, postgres_type, quoted, sqlite_type
from blocks.plan.quality.sql import BATCH, SUITES, tables_in
from blocks.plan.quality.suite import Expectation, QualitySuite, read_suites
from blocks.records import BackupMetadata, Collection
from flows.proving.profile import Kind, kind_of
from flows.reading.tables import CONTENT

if TYPE_CHECKING:
    import duckdb

_NUMBERS = frozenset({Kind.NUMBER, Kind.FLOAT})
_TEXT = frozenset({Kind.TEXT})
_WORDS = {
    Kind.NUMBER: "numbers",
    Kind.FLOAT: "numbers",
    Kind.TEXT: "text",
    Kind.TIME: "times",
    Kind.LOCAL_TIME: "times",
    Kind.DATE: "dates",
    Kind.OTHER: "neither text nor numbers",
}
_NEEDS: Mapping[str, frozenset[Kind]] = {
    **dict.fromkeys(
        (
            "expect_column_mean_to_be_between",
            "expect_column_stdev_to_be_between",
            "expect_column_sum_to_be_between",
            "expect_column_value_z_scores_to_be_less_than",
            "expect_column_values_to_not_be_outliers",
            "expect_column_kl_divergence_to_be_less_than",
            "expect_multicolumn_sum_to_equal",
        ),
        _NUMBERS,
    ),
    **dict.fromkeys(
        (
            "expect_column_value_lengths_to_be_between",
            "expect_column_value_lengths_to_equal",
            "expect_column_values_to_be_dateutil_parseable",
            "expect_column_values_to_be_json_parseable",
            "expect_column_values_to_match_json_schema",
            "expect_column_values_to_match_like_pattern",
            "expect_column_values_to_match_like_pattern_list",
            "expect_column_values_to_match_regex",
            "expect_column_values_to_match_regex_list",
            "expect_column_values_to_match_strftime_format",
            "expect_column_values_to_not_match_like_pattern",
            "expect_column_values_to_not_match_like_pattern_list",
            "expect_column_values_to_not_match_regex",
            "expect_column_values_to_not_match_regex_list",
        ),
        _TEXT,
    ),
}
"""Types of expectations that say nothing of values of other kinds."""
_NUMBER_NEEDS = {"mean": _NUMBERS, "min": frozenset(Kind) - {Kind.TEXT, Kind.OTHER}}
_NUMBER_NEEDS["max"] = _NUMBER_NEEDS["min"]

_POSTGRES = {
    **dict.fromkeys(("smallint", "integer", "bigint"), Kind.NUMBER),
    **dict.fromkeys(("real", "double precision"), Kind.FLOAT),
    **dict.fromkeys(("text", "uuid", "json", "jsonb"), Kind.TEXT),
    **dict.fromkeys(("boolean", "bytea"), Kind.OTHER),
}
_ARROW = {"int64": Kind.NUMBER, "double": Kind.FLOAT, "large_string": Kind.TEXT, "bool": Kind.OTHER}


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a suite.

    Attributes:
        file: The file that it is in.
        suite: Name of the suite; empty where the file is no suite at all.
        number: Number of the expectation, from 0 as errors of suites count; None where it is about the whole suite.
        sentence: What is wrong, what is allowed, what may have been meant.
    """

    file: str
    suite: str
    number: int | None
    sentence: str

    def __str__(self) -> str:
        where = f", suite {self.suite!r}" if self.suite else ""
        which = "" if self.number is None else f", expectations.{self.number}"
        return f"{self.file}{where}{which}: {self.sentence}"


@dataclass
class SuiteCheck:
    """What a look at all suites of a plan found.

    Attributes:
        suites: Each suite that could be read, with its file and the collections that it is about.
        faults: What is wrong.
    """

    suites: list[tuple[str, QualitySuite, list[str]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class _Shape:
    """A collection as suites see it.

    Attributes:
        collection: The collection.
        kind: The type of its source.
    """

    collection: Collection
    kind: str

    def columns(self, suite: QualitySuite) -> dict[str, Kind | None] | None:
        """Return the kind of values by column, None for one that only values tell; None where no column is known."""
        if suite.format is not None:
            return None
        found = {
            name: _kind(self.kind, declared)
            for name, declared in self.collection.columns
            if (self.kind, name) != ("files", CONTENT)
        }
        return found | {name: kind_of(named_type(said)) for name, said in suite.types.items() if name in found}


def check_suites(files: Sequence[str], backup: BackupMetadata | None) -> SuiteCheck:
    """Look at all suites, without reading a row.

    Args:
        files: The files that a plan names.
        backup: What the suites will be about, for names and types of columns; None where there is no backup yet.
    """
    check = SuiteCheck()
    shapes = _shapes(backup) if backup else {}
    for file in files:
        try:
            suites = read_suites(file)
        except ConfigurationError as exc:
            check.faults.append(Fault(file, "", None, exc.message))
            continue
        for suite in suites:
            about = [shapes[name] for name in suite.collections(shapes)]
            twice = any(one.name.casefold() == suite.name.casefold() for _, one, _ in check.suites)
            check.suites.append((file, suite, [one.collection.name for one in about]))
            if twice:
                check.faults.append(Fault(file, suite.name, None, "there is another suite of this name"))
            if backup and not about:
                known = f"{_meant(suite.collection, shapes)} ({backup.backup_id} holds {_listed(shapes)})"
                sentence = f"there is no collection {suite.collection!r}{known}"
                check.faults.append(Fault(file, suite.name, None, sentence))
            check.faults += _type_faults(file, suite, about)
            check.faults += _faults(file, suite, about)
    if backup:
        check.faults += _query_faults(check, shapes)
    return check


def _shapes(backup: BackupMetadata) -> dict[str, _Shape]:
    kinds = {state.name: state.type for state in backup.sources}
    return {one.name: _Shape(one, kinds.get(one.source, "")) for one in backup.collections}


def _kind(source: str, declared: str) -> Kind | None:
    if source == "postgres":
        compared = postgres_type(declared)
        if compared is not None:
            return kind_of(compared)
        return Kind.TEXT if declared.startswith(("character", "varchar")) else _POSTGRES.get(declared)
    if source == "sqlite":
        said = sqlite_type(declared)
        return Kind.TEXT if said == "text" else Kind.FLOAT if said == "number" else None
    return _ARROW.get(declared)


def _type_faults(file: str, suite: QualitySuite, about: Sequence[_Shape]) -> Iterator[Fault]:
    for shape in about:
        columns = shape.columns(suite)
        for name in suite.types:
            if columns is not None and name not in columns:
                sentence = f"types: {shape.collection.name} has no column {name!r}{_meant(name, columns)}"
                yield Fault(file, suite.name, None, sentence)


def _faults(file: str, suite: QualitySuite, about: Sequence[_Shape]) -> Iterator[Fault]:
    for number, expectation in enumerate(suite.expectations):
        own = [*_own_faults(expectation)]
        sentences = list(own)
        for shape in about:
            columns, of = shape.columns(suite), f" of {shape.collection.name}" if len(about) > 1 else ""
            if columns is not None:
                sentences += _column_faults(expectation, columns, of)
                sentences += [] if own else _bound_faults(expectation, columns, of)
        yield from (Fault(file, suite.name, number, f"{expectation.type}: {one}") for one in dict.fromkeys(sentences))


def _own_faults(expectation: Expectation) -> Iterator[str]:
    """Yield what is wrong whatever the rows are."""
    # importing it takes seconds, and most commands never check quality
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    from blocks.plan.quality.expectations import check_expectation

    known: list[str] = list_registered_expectation_implementations()
    if expectation.type not in known:
        yield f"there is no such expectation{_meant(expectation.type, known)}"
        return
    arguments = [*get_expectation_impl(expectation.type).__fields__]
    unknown = [name for name in expectation.kwargs if name not in arguments]
    for name in unknown:
        yield f"{name!r} is no argument{_meant(name, arguments)}"
    try:
        check_expectation("", expectation)
    except ConfigurationError as exc:
        if not unknown:
            yield _said(exc)
            return
    for argument in ("regex", "regex_list"):
        given = expectation.kwargs.get(argument)
        for pattern in given if isinstance(given, list) else [given]:
            if isinstance(pattern, str) and (wrong := _wrong_pattern(pattern)):
                yield f"{argument}: {pattern!r} is no regular expression: {wrong}"


def _said(error: ConfigurationError) -> str:
    """Say what is wrong with an expectation; what pydantic says of each field once, of several types that it tried."""
    # as Great Expectations has it
    from great_expectations.compatibility.pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):
        first = {one["loc"][0]: one["msg"] for one in reversed(error.__cause__.errors())}
        fields = [f"{field}: {said}" for field, said in first.items() if field != "__root__" or len(first) == 1]
        return "; ".join(one.removeprefix("__root__: ") for one in fields)
    return error.message.removeprefix(": ")


def _wrong_pattern(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as exc:
        return exc.msg
    return None


def _column_faults(expectation: Expectation, columns: Mapping[str, Kind | None], of: str) -> Iterator[str]:
    """Yield what does not fit the columns of a collection."""
    from blocks.plan.quality.expectations import condition_names

    try:
        named = [*expectation.columns, *condition_names("", expectation.condition)]
        parameters = [asked for name in names_in(expectation.kwargs) if (asked := column_of(name)) is not None]
    except ConfigurationError:
        return  # said already
    for name in dict.fromkeys([*named, *(column for column, _ in parameters)]):
        if name not in columns:
            yield f"there is no column {name!r}{of}{_meant(name, columns)}; there are {_listed(columns)}"
    needed = _NEEDS.get(expectation.type)
    for name in expectation.columns:
        if needed is not None and (kind := columns.get(name)) is not None and kind not in needed:
            yield f"it is about {_WORDS[min(needed, key=list(Kind).index)]}, and {name!r}{of} holds {_WORDS[kind]}"
    for name, number in parameters:
        wanted = _NUMBER_NEEDS.get(number)
        if wanted is not None and (kind := columns.get(name)) is not None and kind not in wanted:
            yield f"{name!r}{of} holds {_WORDS[kind]}, of which no {number} is kept"


def _bound_faults(expectation: Expectation, columns: Mapping[str, Kind | None], of: str) -> Iterator[str]:
    """Yield bounds that no value of the column can be compared with."""
    from blocks.plan.quality.expectations import can_be_in

    if len(expectation.columns) == 1 and (held := _HELD.get(columns.get(expectation.columns[0]) or Kind.OTHER)):
        [column], given = expectation.columns, expectation.kwargs.get("value_set")
        if isinstance(given, list) and not can_be_in(expectation.type, given, held):
            word = _WORDS[columns[column] or Kind.OTHER]
            yield f"value_set: none of the values is of the type of {column!r}{of}, which holds {word}"
    if expectation.type not in _COMPARED:
        return
    name = str(expectation.kwargs.get("column"))
    kind = columns.get(name)
    for argument in ("min_value", "max_value"):
        value = expectation.kwargs.get(argument)
        if kind in _NUMBERS and isinstance(value, str) and not _is_number(value):
            yield f"{argument} is no number, and {name!r}{of} holds numbers"
        if kind in (Kind.TIME, Kind.LOCAL_TIME, Kind.DATE) and isinstance(value, int | float):
            yield f"{argument} is no time such as 2026-01-01T00:00:00+00:00, and {name!r}{of} holds {_WORDS[kind]}"
        if kind is Kind.TEXT and isinstance(value, int | float):
            yield f"{argument} is a number, and {name!r}{of} holds text; `types` says what a text stands for"


_HELD = {
    Kind.NUMBER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.TEXT: "VARCHAR",
    Kind.TIME: "TIMESTAMPTZ",
    Kind.LOCAL_TIME: "TIMESTAMP",
    Kind.DATE: "DATE",
}
"""An SQL type of each kind of values that sets can be of."""
_COMPARED = frozenset(
    {
        "expect_column_values_to_be_between",
        "expect_column_min_to_be_between",
        "expect_column_max_to_be_between",
        "expect_column_median_to_be_between",
    }
)


def _query_faults(check: SuiteCheck, shapes: Mapping[str, _Shape]) -> Iterator[Fault]:
    """Yield what is wrong with queries: they are bound to tables that have the columns, and no rows."""
    from blocks.plan.quality.expectations import QUERIES

    wrong = {(fault.suite, fault.number) for fault in check.faults}
    asked = [
        (Fault(file, suite.name, number, expectation.type), about[0], str(expectation.kwargs[argument]))
        for file, suite, about in check.suites
        for number, expectation in enumerate(suite.expectations)
        for argument in QUERIES.get(expectation.type, ())
        # the columns of tables that are made of values are known with them only
        if about and suite.format is None and (suite.name, number) not in wrong
    ]
    if not asked:
        return
    # importing it takes a while, and most suites have no SQL
    import duckdb

    with duckdb.connect(":memory:") as connection:
        for shape in shapes.values():
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(shape.collection.source)}")
            connection.execute(f"CREATE OR REPLACE VIEW {_view(shape.collection.name)} AS {_without_rows(shape)}")
        for place, name, query in asked:
            if not any(schema == SUITES for schema, _ in tables_in("", query)) and (
                sentence := _unbound(connection, query, _view(name))
            ):
                yield replace(place, sentence=f"{place.sentence}: {sentence}")


def _view(collection: str) -> str:
    source, _, name = collection.partition("/")
    return f"{quoted(source)}.{quoted(name)}"


def _without_rows(shape: _Shape) -> str:
    columns = []
    for name, declared in shape.collection.columns:
        compared = postgres_type(declared) if shape.kind == "postgres" else None
        kind = _kind(shape.kind, declared)
        # what only values tell has no type, and can be compared with anything
        sql_type = compared or (_SQL_TYPES.get(kind) if kind else None)
        columns.append(f"CAST(NULL AS {sql_type}) AS {quoted(name)}" if sql_type else f"NULL AS {quoted(name)}")
    return f"SELECT {', '.join(columns)} WHERE false"


_SQL_TYPES = {Kind.NUMBER: "BIGINT", Kind.FLOAT: "DOUBLE", Kind.TEXT: "VARCHAR"}


def _unbound(connection: duckdb.DuckDBPyConnection, query: str, batch: str) -> str | None:
    """Say what DuckDB does not find or cannot compare in a query; its last lines repeat the query."""
    import duckdb

    try:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {query.replace(BATCH, batch)}")
    except duckdb.Error as exc:
        return " ".join(str(exc).partition("\n\nLINE ")[0].split())
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(known: Mapping[str, object], most: int = 20) -> str:
    names = [*known]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _meant(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    near = get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
