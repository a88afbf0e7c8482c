"""Evaluates a suite on a table of restored rows, in bounded memory.

Great Expectations judges. Expectations about rows one by one are given to it in frames of some rows, and what it counts
is added up; numbers about all rows (a mean, how many values repeat) come from DuckDB. What neither can do runs on the
whole table up to `WHOLE_ROWS` rows, and beyond that it is said that it was not evaluated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from great_expectations.exceptions.exceptions import GreatExpectationsError
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import (
    ColumnMapExpectation,
    ColumnPairMapExpectation,
    MulticolumnMapExpectation,
)
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.plan.expression import Value
from blocks.plan.parameters import Missing, Unvalued
from blocks.plan.quality.column_types import key_text, quoted, text
from blocks.plan.quality.expectations import (
    OTHER_TABLE,
    SAME_RESULTS,
    UNEXPECTED_ROWS,
    build,
    condition_names,
    fit_set,
    pinned_rows,
    resolved,
    with_times,
)
from blocks.plan.quality.findings import (
    BAD_CONDITION,
    BAD_PARAMETER,
    BAD_QUERY,
    MISSING_COLUMN,
    NO_ROWS,
    NO_SENSE,
    NONE_SELECTED,
    NOT_A_NUMBER,
    NOT_EVALUATED,
    NOT_TRIED,
    ONLY_NULL,
    TOO_MANY_DIGITS,
    TOO_SLOW,
    UNPARSED,
    WRONG_TYPE,
    Judgement,
    fault,
    own_rule,
    rule_result,
)
from blocks.plan.quality.frames import Form, Frames, raised_in, selected
from blocks.plan.quality.metrics import Metrics, NotComputed
from blocks.plan.quality.sql import QueryTimeout, counted, differing, keys_of
from blocks.plan.quality.suite import Expectation, QualitySuite
from blocks.plan.quality.table import CheckedTable
from blocks.verification import RuleOutcome, RuleResult

logger = logging.getLogger(__name__)

WHOLE_ROWS = 1_000_000
"""Most rows of a table that is given to Great Expectations as a whole, where there is no other way."""
EXAMPLES = 5
"""Most keys that a finding names."""

_BY_ROWS = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
_OF_TYPES = frozenset(
    {"expect_column_type_to_be", "expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"}
)
_AROUND_NULL = frozenset(
    {
        "expect_column_to_exist",
        "expect_column_values_to_be_null",
        "expect_column_values_to_not_be_null",
        "expect_column_proportion_of_non_null_values_to_be_between",
    }
)
"""Expectations that say something of NULLs, or of no values."""
_ACROSS_ROWS = frozenset({"expect_column_values_to_not_be_outliers"})
"""Expectations about rows one by one that need to know the others, and that `metrics` does not compute."""
_ERRORS = (duckdb.Error, GreatExpectationsError, ValueError, TypeError, KeyError, ArithmeticError, AttributeError)
"""What evaluating raises where an expectation does not fit its column."""
_NO_RESOURCES = (duckdb.OutOfMemoryException, duckdb.IOException, OSError, MemoryError)
"""What it raises where this machine has too little memory or room for it: that says nothing of the suite."""


@dataclass(frozen=True)
class _Task:
    """An expectation that is to be evaluated on a table."""

    expectation: Expectation
    kwargs: dict[str, JsonValue]
    built: Any


class Evaluation:
    """Evaluates one suite on one collection.

    Args:
        suite: The suite.
        collection: Full name of the collection.
        table: Its rows, as the suite wants them.
        parameters: A value for each name that the suite asks for.
        scratch: A folder for rows that conditions select, which DuckDB may read.
    """

    def __init__(
        self,
        suite: QualitySuite,
        collection: str,
        table: CheckedTable,
        parameters: Mapping[str, Value | Missing],
        scratch: Path,
    ) -> None:
        self._suite, self._collection, self._table = suite, collection, table
        self._parameters, self._scratch = parameters, scratch
        self._engine = PandasExecutionEngine()
        self._frames = Frames()
        self._found: dict[int, Judgement] = {}

    def run(self, expected_rows: int | None = None) -> list[RuleResult]:
        """Evaluate all expectations.

        Args:
            expected_rows: How many rows there must be, where that is known.

        Returns:
            A result for each expectation, in order, after those of what is looked at without being asked.
        """
        expectations = list(self._suite.expectations)
        if expected_rows is not None:
            expectations.insert(0, pinned_rows(expected_rows))
        tasks = {number: task for number, each in enumerate(expectations) if (task := self._task(number, each))}
        self._judge(tasks)
        rules = [*self._unasked(expectations)]
        for number, expectation in enumerate(expectations):
            kwargs = tasks[number].kwargs if number in tasks else expectation.kwargs
            found = self._found[number]
            if self._lenient(expectation) and found.kind in (NO_ROWS, NONE_SELECTED, ONLY_NULL):
                found = Judgement(RuleOutcome.HOLDS, total=0)
            rules.append(rule_result(self._suite, self._collection, expectation, kwargs, found))
        return rules

    def _lenient(self, expectation: Expectation) -> bool:
        return self._suite.may_be_empty or expectation.may_be_empty

    def _unasked(self, expectations: Sequence[Expectation]) -> Iterator[RuleResult]:
        """Say what could not be had as rows and values, of the columns that the suite reads."""
        for unparsed in self._table.unparsed:
            found = Judgement(
                RuleOutcome.BROKEN, UNPARSED, unexpected=unparsed.count, total=unparsed.total, examples=unparsed.keys
            )
            sentence = f"{unparsed.count:,} of {unparsed.total:,} {unparsed.what} {unparsed.said}"
            yield own_rule(self._suite, self._collection, (), sentence, found, unparsed.severity)
        if (self._table.rows or self._suite.format is None) and (
            missing := [name for name in self._suite.types if name not in self._table.columns]
        ):
            sentence = f"column {', '.join(missing)} is missing, whose type suite {self._suite.name} says"
            found = Judgement(RuleOutcome.BROKEN, MISSING_COLUMN)
            yield own_rule(self._suite, self._collection, tuple(missing), sentence, found)
        for name, column in self._table.columns.items():
            if name not in self._suite.types and not any(
                each.reads(name) or _asks(each, name) for each in expectations
            ):
                continue
            lost = Judgement(RuleOutcome.BROKEN, unexpected=column.wrong, total=self._table.rows, examples=column.keys)
            if column.retyped:
                found = replace(lost, kind=WRONG_TYPE)
                sentence = (
                    f"{name} {column.retyped}: {column.wrong:,} of {self._table.rows:,} values are no {column.type}"
                )
                yield own_rule(self._suite, self._collection, (name,), sentence, found)
            elif column.wrong:
                found = replace(lost, kind=WRONG_TYPE)
                sentence = f"{column.wrong:,} values of {name} are no {column.type}, or out of its range"
                yield own_rule(self._suite, self._collection, (name,), sentence, found)
            if column.nans:
                found = replace(lost, kind=NOT_A_NUMBER, unexpected=column.nans, examples=())
                sentence = f"{column.nans:,} values of {name} are NaN, which counts as NULL"
                yield own_rule(self._suite, self._collection, (name,), sentence, found, "warning")
            if column.inexact:
                found = Judgement(RuleOutcome.BROKEN, TOO_MANY_DIGITS)
                sentence = f"{name} has values of more than 38 digits, and is compared as doubles"
                yield own_rule(self._suite, self._collection, (name,), sentence, found, "warning")

    def _task(self, number: int, expectation: Expectation) -> _Task | None:
        """Build an expectation; None where that already says what it comes to."""
        where = f"suite {self._suite.name!r}, {expectation.type}"
        try:
            kwargs = resolved(expectation, self._parameters)
            column = self._table.columns.get(expectation.columns[0]) if len(expectation.columns) == 1 else None
            if column:
                kwargs = with_times(kwargs, column.type)
            conditioned = condition_names(where, expectation.condition)
            plain = {name: value for name, value in kwargs.items() if name not in ("row_condition", "condition_parser")}
            task = _Task(expectation, kwargs, build(where, expectation, plain))
            if column and not fit_set(task.built, column.type):
                self._found[number] = fault(NO_SENSE, f"on values of type {column.type}: none of the set is of it")
                return None
        except Unvalued as exc:
            self._found[number] = Judgement(RuleOutcome.UNJUDGED, exc.kind, why=exc.name)
            return None
        except ConfigurationError as exc:
            self._found[number] = fault(BAD_PARAMETER, exc.message)
            return None
        named = [*expectation.columns, *conditioned]
        if self._suite.format is not None and not self._table.rows and any(n not in self._table.columns for n in named):
            # which fields there are is known with the first row
            self._found[number] = Judgement(RuleOutcome.BROKEN, NO_ROWS, total=0)
            return None
        if missing := [name for name in dict.fromkeys(named) if name not in self._table.columns]:
            self._found[number] = Judgement(RuleOutcome.BROKEN, MISSING_COLUMN, why=", ".join(missing))
            return None
        return task

    def _judge(self, tasks: Mapping[int, _Task]) -> None:
        """Judge all, those with the same condition together."""
        groups: dict[str, list[int]] = {}
        for number, task in tasks.items():
            groups.setdefault(_condition_key(task), []).append(number)
        for key, numbers in groups.items():
            several = {number: tasks[number] for number in numbers}
            table = self._rows_of(key, list(several.values()))
            if isinstance(table, Judgement):
                self._found |= dict.fromkeys(numbers, table)
            else:
                self._judge_on(table, several, selected=bool(key))

    def _rows_of(self, key: str, tasks: Sequence[_Task]) -> CheckedTable | Judgement:
        """Return the rows that a condition selects."""
        if not key:
            return self._table
        kwargs = tasks[0].kwargs
        names = [
            name
            for name in self._table.columns
            if name in self._table.key or any(task.expectation.reads(name) for task in tasks)
        ]
        path = self._scratch / f"selected-{uuid4().hex}.parquet"
        rows, writer = 0, None
        try:
            for batch in self._table.batches(names):
                kept = selected(batch, kwargs["row_condition"], kwargs.get("condition_parser", "pandas"))
                stored = kept.rename_columns([self._table.columns[name].sql_name for name in names])
                writer = writer or pq.ParquetWriter(path, stored.schema, compression="lz4")
                writer.write_table(stored)
                rows += stored.num_rows
        except _NO_RESOURCES as exc:
            return _untried(exc)
        except Exception as exc:  # noqa: BLE001  pandas raises whatever it likes, and its text may hold values
            logger.debug("a condition raised %s", type(exc).__name__)
            return fault(BAD_CONDITION)
        finally:
            if writer is not None:
                writer.close()
        if not rows:
            return Judgement(RuleOutcome.BROKEN, NONE_SELECTED, total=0)
        columns = {name: self._table.columns[name] for name in names}
        return replace(self._table, name=f"read_parquet({text(str(path))})", columns=columns, rows=rows)

    def _judge_on(self, table: CheckedTable, tasks: Mapping[int, _Task], selected: bool) -> None:
        metrics = Metrics(table)
        by_rows: dict[int, Any] = {}
        for number, task in tasks.items():
            kind = task.expectation.type
            try:
                if found := self._nothing(task, metrics, selected):
                    self._found[number] = found
                elif kind in (UNEXPECTED_ROWS, SAME_RESULTS, OTHER_TABLE):
                    self._found[number] = self._query(task, table)
                elif kind in _OF_TYPES:
                    by_rows[number] = task.built
                elif self._computed(task, metrics):
                    self._found[number] = self._judged(task, metrics, {})
                elif isinstance(task.built, _BY_ROWS) and kind not in _ACROSS_ROWS:
                    by_rows[number] = task.built
                else:
                    self._found[number] = self._on_all(task, table)
            except NotComputed:
                self._found[number] = self._on_all(task, table)
            except _NO_RESOURCES as exc:
                self._found[number] = _untried(exc)
            except _ERRORS as exc:
                self._found[number] = fault(NO_SENSE, _types(task, table, exc))
        self._count_rows(table, metrics, tasks, by_rows)

    def _nothing(self, task: _Task, metrics: Metrics, selected: bool) -> Judgement | None:
        """Say that there is nothing that the expectation could be judged by."""
        kind, table = task.expectation.type, metrics.table
        if kind.startswith("expect_table_") or kind == "expect_column_to_exist":
            return None
        if not table.rows:
            return Judgement(RuleOutcome.BROKEN, NONE_SELECTED if selected else NO_ROWS, total=0)
        if kind in _AROUND_NULL or not task.expectation.columns:
            return None
        if any(not metrics.nonnull(name) for name in task.expectation.columns):
            return Judgement(RuleOutcome.BROKEN, ONLY_NULL, unexpected=table.rows, total=table.rows)
        return None

    def _dependencies(self, built: Any) -> dict[str, Any]:
        runtime = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": 0}}
        found = built.get_validation_dependencies(execution_engine=self._engine, runtime_configuration=runtime)
        return dict(found.metric_configurations)

    def _computed(self, task: _Task, metrics: Metrics) -> bool:
        needed = self._dependencies(task.built)
        return all(metrics.computes(name, one.metric_domain_kwargs) for name, one in needed.items())

    def _judged(self, task: _Task, metrics: Metrics, given: Mapping[str, Any]) -> Judgement:
        """Have Great Expectations judge by numbers about all rows."""
        values = {
            needed.id: given[name]
            if name in given
            else metrics.value(name, needed.metric_domain_kwargs, needed.metric_value_kwargs)
            for name, needed in self._dependencies(task.built).items()
        }
        runtime = {"result_format": {"result_format": "BASIC", "partial_unexpected_count": 0}}
        result = task.built.metrics_validate(values, runtime_configuration=runtime, execution_engine=self._engine)
        found = _found(task, result, metrics.table)
        if found.outcome is RuleOutcome.BROKEN and self._suite.examples and task.expectation.type in _REPEATED:
            return replace(found, examples=_repeating_keys(metrics, task.expectation.columns))
        if found.outcome is RuleOutcome.BROKEN and self._suite.examples:
            for name, needed in self._dependencies(task.built).items():
                breaking = metrics.breaking(name, needed.metric_domain_kwargs, needed.metric_value_kwargs)
                if breaking is not None:
                    return replace(found, examples=_keys_where(metrics, breaking))
        return found

    def _count_rows(
        self, table: CheckedTable, metrics: Metrics, tasks: Mapping[int, _Task], built: Mapping[int, Any]
    ) -> None:
        """Judge expectations about rows one by one, all in one pass over the rows."""
        if not built:
            return
        expectations = [tasks[number].expectation for number in built]
        names = [name for name in table.columns if any(name in each.columns for each in expectations)]
        for number, counts in self._frames.count(table.batches(names), built).items():
            task = tasks[number]
            if counts.raised:
                self._found[number] = fault(NO_SENSE, _types(task, table, counts.raised))
            elif task.expectation.type in _OF_TYPES:
                outcome = RuleOutcome.HOLDS if counts.success else RuleOutcome.BROKEN
                self._found[number] = Judgement(outcome, observed=_column_type(task, table))
            else:
                given = {
                    name: value
                    for name in self._dependencies(built[number])
                    for ending, value in (
                        (".filtered_row_count", counts.elements - counts.missing),
                        ("column_values.nonnull.unexpected_count", counts.missing),
                        ("table.column_types", None),
                    )
                    if name.endswith(ending)
                } | {f"{built[number].map_metric}.unexpected_count": counts.unexpected}
                self._found[number] = self._with_keys(task, table, self._judged(task, metrics, given))

    def _with_keys(self, task: _Task, table: CheckedTable, found: Judgement) -> Judgement:
        """Add keys of some rows that are not as expected, where the suite allows that."""
        if found.outcome is not RuleOutcome.BROKEN or not self._suite.examples or found.kind:
            return found
        keys: list[str] = []
        names = list(dict.fromkeys([*task.expectation.columns, *table.key]))
        for batch in table.batches([name for name in names if name in table.columns]):
            places = self._frames.places(batch, task.built)[:EXAMPLES]
            shown = batch.take(places).select([name for name in table.key if name in batch.column_names])
            keys += [", ".join(str(value) for value in row.values()) for row in shown.to_pylist()]
            if len(keys) >= EXAMPLES:
                break
        return replace(found, examples=tuple(keys[:EXAMPLES]))

    def _on_all(self, task: _Task, table: CheckedTable) -> Judgement:
        """Judge on the whole table at once, where it is not too large."""
        if table.rows > WHOLE_ROWS:
            return fault(NOT_EVALUATED, f"it takes all {table.rows:,} rows at once, and {WHOLE_ROWS:,} are the most")
        names = [name for name in table.columns if name in task.expectation.columns] or list(table.columns)
        rows = pa.concat_tables(table.batches(names))
        result = self._frames.validate(rows, {0: task.built}, form=Form.FLOATS).get(0)
        if result is None or (raised := raised_in(result.exception_info)):
            return fault(NO_SENSE, _types(task, table, "nothing came back" if result is None else raised))
        return _found(task, result, table)

    def _query(self, task: _Task, table: CheckedTable) -> Judgement:
        """Judge by SQL over all restored rows."""
        kwargs, seconds = task.kwargs, self._suite.query_seconds
        try:
            if task.expectation.type == UNEXPECTED_ROWS:
                query = str(kwargs["unexpected_rows_query"])
                found = counted(table.connection, query, table.name, seconds)
                if not found:
                    return Judgement(RuleOutcome.HOLDS, observed=0, unexpected=0, total=table.rows)
                examples: tuple[str, ...] = ()
                if self._suite.examples:
                    examples = keys_of(table.connection, query, table.name, seconds, table.key, EXAMPLES)
                return Judgement(RuleOutcome.BROKEN, "", found, found, table.rows, examples)
            if task.expectation.type == SAME_RESULTS:
                queries = (str(kwargs["base_query"]), str(kwargs["comparison_query"]))
                lacking, total, values = differing(table.connection, queries, table.name, seconds)
                if not values:
                    return Judgement(RuleOutcome.BROKEN, ONLY_NULL if total else NO_ROWS, total=0)
                mostly = kwargs.get("mostly", 1)
                good = 1 - lacking / total if total else 1.0
                holds = good >= (float(mostly) if isinstance(mostly, int | float) else 1.0)
                return Judgement(RuleOutcome.HOLDS if holds else RuleOutcome.BROKEN, "", good, lacking, total)
            source, _, name = str(kwargs["other_table_name"]).partition("/")
            other = counted(table.connection, f"SELECT * FROM {quoted(source)}.{quoted(name)}", table.name, seconds)
            same = RuleOutcome.HOLDS if other == table.rows else RuleOutcome.BROKEN
            return Judgement(same, observed=[table.rows, other])
        except QueryTimeout as exc:
            return fault(TOO_SLOW, str(exc))
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as exc:
            return fault(BAD_QUERY, str(exc).partition("\n")[0].partition(": ")[2])
        except _NO_RESOURCES as exc:
            return _untried(exc)
        except duckdb.Error as exc:  # whose text may hold values
            logger.debug("a query raised %s", type(exc).__name__)
            return fault(BAD_QUERY, "it fails on some values")


def _untried(error: BaseException) -> Judgement:
    """Say that there was too little memory or room, without the text of the error, which may hold values."""
    logger.debug("an expectation could not be tried: %s", type(error).__name__)
    short = isinstance(error, duckdb.OutOfMemoryException | MemoryError)
    told = "not enough memory, or room for what does not fit into it" if short else None
    said = error.strerror if isinstance(error, OSError) else None
    return fault(NOT_TRIED, told or said or "a file of the scratch folder failed")


_REPEATED = frozenset({"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"})


def _repeating_keys(metrics: Metrics, columns: Sequence[str]) -> tuple[str, ...]:
    """Return keys of some rows whose values are there more than once."""
    key = [metrics.table.columns[name].sql_name for name in metrics.table.key if name in metrics.table.columns]
    if not key:
        return ()
    values = ", ".join(metrics.table.sql(name) for name in columns)
    rows = metrics.query(
        f"SELECT DISTINCT {key_text(key)} FROM {{t}} SEMI JOIN "
        f"(SELECT {values} FROM {{t}} GROUP BY {values} HAVING count(*) > 1) USING ({values}) ORDER BY 1 "
        f"LIMIT {EXAMPLES}"
    )
    return tuple(str(row[0]) for row in rows)


def _keys_where(metrics: Metrics, condition: str) -> tuple[str, ...]:
    """Return keys of some rows that meet an SQL condition."""
    names = [name for name in metrics.table.key if name in metrics.table.columns]
    if not names:
        return ()
    texts = ", ".join(f"CAST({metrics.table.sql(name)} AS VARCHAR)" for name in names)
    rows = metrics.query(f"SELECT concat_ws(', ', {texts}) FROM {{t}} WHERE {condition} LIMIT {EXAMPLES}")
    return tuple(str(row[0]) for row in rows)


def _condition_key(task: _Task) -> str:
    condition = task.kwargs.get("row_condition")
    return json.dumps([condition, task.kwargs.get("condition_parser")]) if condition else ""


def _types(task: _Task, table: CheckedTable, error: object) -> str:
    """Say which types an expectation does not fit; what was raised is not quoted, because it may hold values."""
    kinds = ", ".join(table.columns[name].type for name in task.expectation.columns if name in table.columns)
    raised = error if isinstance(error, str) else type(error).__name__
    logger.debug("%s raised %s", task.expectation.type, raised)
    return f"it does not fit values of type {kinds}" if kinds else ""


def _asks(expectation: Expectation, column: str) -> bool:
    """Whether a query of an expectation may read a column."""
    return column in str(expectation.kwargs.get("unexpected_rows_query", ""))


def _column_type(task: _Task, table: CheckedTable) -> str | None:
    return table.columns[task.expectation.columns[0]].type if task.expectation.columns else None


def _found(task: _Task, result: Any, table: CheckedTable) -> Judgement:
    """Return what Great Expectations came to, without values of rows."""
    found = result.result or {}
    total, unexpected = found.get("element_count"), found.get("unexpected_count")
    if total is not None:
        total = int(total) - int(found.get("missing_count") or 0)
        if not total:
            return Judgement(RuleOutcome.BROKEN, ONLY_NULL, unexpected=0, total=0)
    return Judgement(
        RuleOutcome.HOLDS if result.success else RuleOutcome.BROKEN,
        "",
        _shown(found.get("observed_value"), task, table),
        None if unexpected is None else int(unexpected),
        total,
    )


def _shown(observed: Any, task: _Task, table: CheckedTable) -> JsonValue:
    """Return an observed value where it is a number or a time about all rows; text is never shown."""
    if hasattr(observed, "item"):
        observed = observed.item()
    if isinstance(observed, bool | int | float):
        return observed
    if isinstance(observed, datetime | date):
        return observed.isoformat()
    if isinstance(observed, dict) and {*observed} == {"quantiles", "values"}:
        return {name: [_shown(each, task, table) for each in values] for name, values in observed.items()}
    if isinstance(observed, list) and task.expectation.type.startswith("expect_table_columns"):
        return [str(name) for name in observed]
    return None
