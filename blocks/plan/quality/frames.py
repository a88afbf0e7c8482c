"""Expectations about rows one by one, evaluated by Great Expectations on frames of some rows at a time."""

from __future__ import annotations

import datetime as dt
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

import great_expectations as gx
import pyarrow as pa
import pyarrow.compute as pc
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnPairMapExpectation, MulticolumnMapExpectation

from blocks.rows.pandas_frame import make_frame

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = "lastgood_number"
_MANY = Context(prec=80)
_EXACT_DIGITS = 15
"""Digits of decimals that a double tells apart: limits are doubles, and comparing decimals takes ten times as long."""


@dataclass
class Counts:
    """What an expectation found in the frames so far.

    Attributes:
        elements: Rows that were looked at.
        missing: Those that do not count, since there is NULL.
        unexpected: Those that are not as expected.
        success: Whether it held in each frame; what decides where nothing is counted.
        counted: Whether rows are counted.
        raised: The class of what was raised, where it could not be evaluated.
    """

    elements: int = 0
    missing: int = 0
    unexpected: int = 0
    success: bool = True
    counted: bool = True
    raised: str = ""


class Form(Enum):
    """What frames an expectation is given."""

    EXACT = "every value as it is"
    FLOATS = "numbers beside NULLs as floats"
    DOUBLES = "decimals as doubles, as its limits are"
    JSON = "only the rows whose value is JSON"


class Frames:
    """Evaluates expectations of Great Expectations on frames of pandas."""

    def __init__(self) -> None:
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(),
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
        )
        context = gx.get_context(mode="ephemeral", project_config=config)
        self._asset = context.data_sources.add_pandas("restored").add_dataframe_asset("rows")
        self._whole = self._asset.add_batch_definition_whole_dataframe("all")

    def validate(
        self, rows: pa.Table, built: Mapping[int, Any], keys: bool = False, form: Form = Form.EXACT
    ) -> dict[int, Any]:
        """Evaluate expectations; returns results by number, in which a missing one was not evaluated.

        Args:
            rows: The rows, with the columns that the expectations read.
            built: The expectations by number.
            keys: Whether results name the places of rows that are not as expected.
            form: How numbers stand in the frame.
        """
        for number, expectation in built.items():
            expectation.meta = {_NUMBER: number}
        # no value of a row may reach a result. The constructor of the suite, since adding drops what looks alike.
        shown: dict[str, Any] = {"result_format": "BASIC", "partial_unexpected_count": 0}
        if keys:
            shown = {"result_format": "COMPLETE", "exclude_unexpected_values": True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their texts may hold values
            batch = self._whole.get_batch({"dataframe": frame_of(rows, form)})
            suite = gx.ExpectationSuite(name="quality", expectations=list(built.values()))
            validated = batch.validate(suite, result_format=shown)
        results = [(result.expectation_config, result) for result in validated.results]
        return {config.meta[_NUMBER]: result for config, result in results if config is not None}

    def count(self, batches: Iterable[pa.Table], built: Mapping[int, Any]) -> dict[int, Counts]:
        """Evaluate expectations on one frame after another, and add up what they found.

        Args:
            batches: The rows, with the columns that the expectations read.
            built: The expectations by number.
        """
        counts = {number: Counts() for number in built}
        for rows in batches:
            going_on = {number: built[number] for number, found in counts.items() if not found.raised}
            for form, several in _by_form(going_on):
                taken = rows if form is not Form.JSON else self._only_json(rows, several, counts)
                results = self.validate(taken, several, form=form) if taken.num_rows else {}
                for number in several if taken.num_rows else ():
                    _add(counts[number], results.get(number))
        return counts

    @staticmethod
    def _only_json(rows: pa.Table, built: Mapping[int, Any], counts: Mapping[int, Counts]) -> pa.Table:
        """Leave out what is no JSON, which is not as expected, since Great Expectations would judge nothing then."""
        [(number, expectation)] = built.items()
        kind = rows.column(expectation.column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return rows  # which Great Expectations refuses
        there = pa.array([_is_json(value) for value in rows.column(expectation.column).to_pylist()], pa.bool_())
        lacking = rows.num_rows - (there.true_count if len(there) else 0)
        counts[number].elements += lacking
        counts[number].unexpected += lacking
        return rows.filter(there)

    def places(self, rows: pa.Table, built: Any) -> list[int]:
        """Return the places of rows that are not as expected."""
        if form_of(built) is Form.JSON:
            bad = [n for n, value in enumerate(rows.column(built.column).to_pylist()) if not _is_json(value)]
            if bad:
                return bad
        result = self.validate(rows, {0: built}, keys=True, form=form_of(built)).get(0)
        found = result.result.get("unexpected_index_list") if result is not None else None
        return [int(place) for place in found or []]


def form_of(built: Any) -> Form:
    """Return what frames an expectation of Great Expectations is given."""
    if built.expectation_type == "expect_column_values_to_match_json_schema":
        return Form.JSON
    # it compares columns with each other row by row, which fails for pandas' own NULLs of integers
    if isinstance(built, ColumnPairMapExpectation | MulticolumnMapExpectation):
        return Form.FLOATS
    values = getattr(built, "value_set", None)
    limits = [getattr(built, "min_value", None), getattr(built, "max_value", None), *(values or [])]
    # the double that is written 0.01 is a little more than the decimal 0.01
    rounded = any(isinstance(limit, float) and Decimal(repr(limit)) != Decimal(limit) for limit in limits)
    return Form.DOUBLES if rounded else Form.EXACT


def _by_form(built: Mapping[int, Any]) -> list[tuple[Form, dict[int, Any]]]:
    """Group expectations that are given the same frame; of JSON each has its own."""
    forms: dict[tuple[Form, int], dict[int, Any]] = {}
    for number, expectation in built.items():
        form = form_of(expectation)
        forms.setdefault((form, number if form is Form.JSON else 0), {})[number] = expectation
    return [(form, several) for (form, _), several in forms.items()]


def _is_json(value: object) -> bool:
    if value is None:
        return True  # which does not count
    try:
        json.loads(value)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def selected(rows: pa.Table, condition: object, parser: object) -> pa.Table:
    """Return the rows that meet a condition, as Great Expectations understands it.

    Raises:
        Exception: Whatever pandas says of a condition that does not fit the columns.
    """
    domain = {"row_condition": condition, "condition_parser": parser}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = frame_of(rows)
        try:
            kept = PandasExecutionEngine(batch_data_dict={"rows": frame}).get_domain_records(domain)
        except TypeError:  # pandas compares no time with a zone with one without, which is in UTC here
            frame = frame_of(_without_zones(rows))
            kept = PandasExecutionEngine(batch_data_dict={"rows": frame}).get_domain_records(domain)
    return rows.take(pa.array(kept.index.to_numpy(), pa.int64()))


def _without_zones(rows: pa.Table) -> pa.Table:
    for place, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz:
            naive = rows.column(place).cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
            rows = rows.set_column(place, field.name, naive)
    return rows


def frame_of(rows: pa.Table, form: Form = Form.EXACT) -> pd.DataFrame:
    """Make a frame of all columns.

    Args:
        rows: The rows; times beyond what Python holds (infinity) become the last that it does, and days times.
        form: Whether decimals become doubles, and numbers and booleans floats where there are NULLs among them.
    """
    decimals = [(place, field) for place, field in enumerate(rows.schema) if pa.types.is_decimal(field.type)]
    as_doubles = {place for place, field in decimals if form is Form.DOUBLES or _few_digits(rows.column(place))}
    if form is Form.FLOATS and (as_doubles or any(pa.types.is_floating(field.type) for field in rows.schema)):
        as_doubles = {place for place, _ in decimals}  # Python adds no double to a decimal
    for place, field in enumerate(rows.schema):
        limits = _limits(field.type)
        if limits and rows.num_rows:
            bounded = _bounded(rows.column(place), limits)
            rows = rows.set_column(place, field.name, bounded)
        if pa.types.is_date32(field.type):  # days as objects of Python are compared as text
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.timestamp("us")))
        elif place in as_doubles:
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.float64()))
        elif form is Form.FLOATS and rows.column(place).null_count and (plain := _plain_type(field.type)):
            rows = rows.set_column(place, field.name, rows.column(place).cast(plain, safe=False))
    return make_frame(rows, rows.column_names)


def _few_digits(values: pa.ChunkedArray) -> bool:
    """Whether doubles tell all values of a column of decimals apart, and from those of limits."""
    if values.type.precision <= _EXACT_DIGITS:
        return True
    most = pc.min_max(values)
    return all(
        one is None or abs(one.scaleb(values.type.scale, _MANY)) < 10**_EXACT_DIGITS
        for one in (most["min"].as_py(), most["max"].as_py())
    )


def _plain_type(kind: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_integer(kind) or types.is_decimal(kind):
        return pa.float64()
    return pa.int8() if types.is_boolean(kind) else None


def _limits(kind: pa.DataType) -> tuple[pa.Scalar, pa.Scalar] | None:
    if pa.types.is_date32(kind):
        return pa.scalar(dt.date.min, kind), pa.scalar(dt.date.max, kind)
    if pa.types.is_timestamp(kind):
        zone = dt.UTC if kind.tz else None
        first = dt.datetime(1, 1, 2, tzinfo=zone)
        return pa.scalar(first, kind), pa.scalar(dt.datetime(9999, 12, 31, tzinfo=zone), kind)
    return None


def _bounded(values: pa.ChunkedArray, limits: tuple[pa.Scalar, pa.Scalar]) -> pa.ChunkedArray:
    number = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
    plain, (low, high) = values.cast(number), (limit.cast(number) for limit in limits)
    found = pc.min_max(plain)
    if found["min"].as_py() is None or (found["min"].as_py() >= low.as_py() and found["max"].as_py() <= high.as_py()):
        return values
    return pc.max_element_wise(pc.min_element_wise(plain, high, skip_nulls=False), low, skip_nulls=False).cast(
        values.type
    )


def _add(counts: Counts, result: Any) -> None:
    if result is None or (raised := raised_in(result.exception_info)):
        counts.raised = "nothing came back" if result is None else raised
        return
    found = result.result or {}
    counts.success = counts.success and bool(result.success)
    counts.elements += int(found.get("element_count") or 0)
    counts.missing += int(found.get("missing_count") or 0)
    counts.unexpected += int(found.get("unexpected_count") or 0)
    counts.counted = counts.counted and found.get("unexpected_count") is not None


def raised_in(info: Any) -> str:
    """Return the class of what was raised; its text may hold values."""
    if not isinstance(info, dict):
        return ""
    if info.get("raised_exception"):
        message = str(info.get("exception_traceback") or "").strip().splitlines()
        return message[-1].partition(":")[0].rpartition(".")[2] if message else "Exception"
    return next((raised for inner in info.values() if (raised := raised_in(inner))), "")
