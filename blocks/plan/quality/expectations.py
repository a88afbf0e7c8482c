"""Expectations as Great Expectations knows them: how one is built, and what is wrong with it before there are rows."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.registry import list_registered_expectation_implementations
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.plan.expression import Value
from blocks.plan.parameters import EXPECTED_ROWS, Missing, names_in, stand_ins, substituted
from blocks.plan.quality.column_types import TIMES
from blocks.plan.quality.sql import check_query
from blocks.plan.quality.suite import HINT, Expectation

UNEXPECTED_ROWS = "unexpected_rows_expectation"
SAME_RESULTS = "expect_query_results_to_match_comparison"
OTHER_TABLE = "expect_table_row_count_to_equal_other_table"
QUERIES = {UNEXPECTED_ROWS: ("unexpected_rows_query",), SAME_RESULTS: ("base_query", "comparison_query")}
"""Expectations that are SQL, and the arguments that are queries."""
_RESTORED = "restored"
"""What the other source of a comparison is called: there is only one place, which holds all restored rows."""

# what decides how an expectation is run and reported is not for a suite to say
_RESERVED = frozenset(
    {"batch_id", "catch_exceptions", "description", "id", "meta", "notes", "rendered_content", "result_format"}
    | {"severity", "windows"}
)


def check_expectation(where: str, expectation: Expectation, columns: Iterable[str] | None = None) -> None:
    """Refuse an expectation that can never be evaluated.

    Args:
        where: What errors call it.
        expectation: The expectation.
        columns: Names of all columns of the collection, where they are known.

    Raises:
        ConfigurationError: A type, an argument, a condition, a column, a parameter or a query is wrong.
    """
    try:
        kwargs = substituted(expectation.kwargs, stand_ins(expectation.kwargs))
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc.message}", hint=exc.hint) from exc
    build(where, expectation, kwargs)
    for argument in QUERIES.get(expectation.type, ()):
        check_query(where, str(expectation.kwargs[argument]))
    named = [*expectation.columns, *condition_names(where, expectation.condition)]
    if columns is not None and (missing := [name for name in named if name not in {*columns}]):
        raise ConfigurationError(f"{where}: there is no column {', '.join(missing)}", hint=HINT)


def parameters_of(expectation: Expectation) -> frozenset[str]:
    """Return the names of the parameters that an expectation asks for."""
    return names_in(expectation.kwargs)


def resolved(expectation: Expectation, parameters: Mapping[str, Value | Missing]) -> dict[str, JsonValue]:
    """Return the arguments of an expectation with values in the place of parameters.

    Raises:
        ConfigurationError: An expression is wrong.
        Unvalued: A value is not known yet.
    """
    return substituted(expectation.kwargs, parameters)


def pinned_rows(expected: int) -> Expectation:
    """Make the expectation that no suite needs to say: as many rows as the manifest has."""
    return Expectation(type="expect_table_row_count_to_equal", kwargs={"value": expected}, meta={"is": EXPECTED_ROWS})


def build(where: str, expectation: Expectation, kwargs: Mapping[str, JsonValue]) -> Any:
    """Make an expectation of Great Expectations.

    Args:
        where: What errors call it.
        expectation: Names its type.
        kwargs: Its arguments, without parameters.

    Raises:
        ConfigurationError: There is no such type, or an argument is wrong.
    """
    if expectation.type not in list_registered_expectation_implementations():
        raise ConfigurationError(f"{where}: there is no expectation of this type", hint=HINT)
    if reserved := sorted(_RESERVED & kwargs.keys()):
        raise ConfigurationError(f"{where}: kwargs may not hold {', '.join(reserved)}", hint=HINT)
    given = dict(kwargs)
    if expectation.type == SAME_RESULTS:
        given.setdefault("comparison_data_source_name", _RESTORED)
    if expectation.type == UNEXPECTED_ROWS and "{batch}" not in str(given.get("unexpected_rows_query")):
        # Great Expectations only logs that; of other tables it may well be a rule
        given["unexpected_rows_query"] = f"{given.get('unexpected_rows_query')} -- {{batch}}"
    try:
        with warnings.catch_warnings():
            # conditions as text are what files can say
            warnings.simplefilter("ignore", DeprecationWarning)
            built = ExpectationConfiguration(type=expectation.type, kwargs=given).to_domain_obj()
    except (GreatExpectationsError, ValueError, TypeError) as exc:
        raise ConfigurationError(f"{where}: {exc}", hint=HINT) from exc
    # limits are kept as floats, which do not hold every integer
    if rounded := [key for key, value in given.items() if isinstance(value, int) and getattr(built, key) != value]:
        raise ConfigurationError(f"{where}: {', '.join(rounded)} has more digits than can be compared exactly")
    return built


def with_times(kwargs: Mapping[str, JsonValue], kind: str) -> dict[str, JsonValue]:
    """Return arguments whose limits can be compared with a column of times: with a zone where that has one, in UTC.

    Args:
        kwargs: The arguments.
        kind: SQL type of the column.
    """
    if not _of_times(kind):
        return dict(kwargs)
    zoned = kind.endswith("ZONE") or kind == "TIMESTAMPTZ"
    return {
        name: _moment(value, zoned, kind == "DATE") if name in ("min_value", "max_value") else value
        for name, value in kwargs.items()
    }


_BY_VALUE = frozenset(
    {
        "expect_column_values_to_be_in_set",
        "expect_column_values_to_not_be_in_set",
        "expect_column_most_common_value_to_be_in_set",
    }
)
"""Expectations of sets that compare values of Python; numbers and text, or text and times, never are equal there."""


def can_be_in(kind: str, values: Sequence[object], held: str) -> bool:
    """Whether any value of a set can be in a column; true of expectations that compare other than by value.

    Args:
        kind: Type of the expectation.
        values: The set.
        held: SQL type of the column.
    """
    if kind not in _BY_VALUE or not values:
        return True
    if _of_times(held):
        return any(_iso(value, zoned=True) for value in values)
    return any(isinstance(value, str) is (held in ("VARCHAR", "BLOB")) for value in values)


def fit_set(built: Any, held: str) -> bool:
    """Make a set of times one of moments, as the column holds them; returns whether any of the set can be there.

    Args:
        built: The expectation of Great Expectations.
        held: SQL type of the column.
    """
    values = getattr(built, "value_set", None)
    if not isinstance(values, list):
        return True
    if not can_be_in(built.expectation_type, values, held):
        return False
    if built.expectation_type in _BY_VALUE and _of_times(held):
        zoned = held.endswith("ZONE") or held == "TIMESTAMPTZ"
        built.value_set = [moment for value in values if (moment := _iso(value, zoned)) is not None]
    return True


def _of_times(held: str) -> bool:
    return held in (*TIMES, "TIMESTAMP WITH TIME ZONE")


def _iso(value: object, zoned: bool) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment if zoned else moment.replace(tzinfo=None)


def _moment(value: JsonValue, zoned: bool, day: bool) -> JsonValue:
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if day and not moment.time():
        return moment.date().isoformat()
    return moment.isoformat() if zoned else moment.replace(tzinfo=None).isoformat()


def condition_names(where: str, condition: JsonValue) -> list[str]:
    """Return the columns that a row condition names.

    Raises:
        ConfigurationError: It cannot be read.
    """
    if isinstance(condition, dict):
        return [*_columns_of(condition)]
    if not isinstance(condition, str):
        return []
    ticked: dict[str, str] = {}

    def plain(found: re.Match[str]) -> str:
        ticked[name := f"column_{len(ticked)}_"] = found[1]
        return name

    try:
        tree = ast.parse(re.sub(r"`([^`]*)`", plain, condition).strip(), mode="eval")
    except SyntaxError as exc:
        raise ConfigurationError(f"{where}: row_condition can not be read: {exc.msg}", hint=HINT) from exc
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return [ticked.get(name, name) for name in names if name not in ("index", "col", "nan", "inf")]


def _columns_of(condition: Mapping[str, JsonValue]) -> Iterable[str]:
    column = condition.get("column")
    if isinstance(column, dict) and isinstance(column.get("name"), str):
        yield str(column["name"])
    for inner in condition.values():
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict) and each is not column:
                yield from _columns_of(each)
