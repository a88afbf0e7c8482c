"""Each expectation, evaluated in small frames and by DuckDB, comes to what Great Expectations says of all rows."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from blocks.plan.quality import Expectation, table
from blocks.plan.quality.expectations import build
from blocks.plan.quality.frames import Form, Frames, form_of, selected
from blocks.verification import RuleOutcome, RuleResult
from tests.blocks.plan.quality.support import expect, run

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ROWS = pa.table(
    {
        "id": pa.array(range(9), pa.int64()),
        "whole": pa.array([3, 1, None, 2, 2, 5, None, 9, 2], pa.int64()),
        "other": pa.array([3, 2, None, 1, None, 5, 4, 9, 7], pa.int64()),
        "real": pa.array([0.5, math.nan, None, 2.5, 2.5, -1.0, 1e6, 0.1, 3.25]),
        "money": pa.array(
            [Decimal(n) if n else None for n in ["1.50", "2.25", "0", "0.10", "0.20", "1.50", "99.99", "3.00", "7.77"]],
            pa.decimal128(10, 2),
        ),
        "text": pa.array(["a", "bb", None, "a", "ccc", "", "a1", "2026-01-01", '{"x": 1}'], pa.large_string()),
        "up": pa.array([1, 2, None, 2, 4, 5, 3, None, 8], pa.int64()),
        "moment": pa.array(
            [None if n == 3 else DAY + dt.timedelta(days=n) for n in range(9)], pa.timestamp("us", "UTC")
        ),
        "json": pa.array(['{"a": 1}', None, "[]", "{}", "1", "null", "{}", "{}", "{}"], pa.large_string()),
        "flag": pa.array([True, False, None, True, True, False, True, True, True]),
    }
)
C = "column"
PAIR, LIST = {"column_A": "whole", "column_B": "other"}, {"column_list": ["whole", "other"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("column_distinct_values_to_be_in_set", {C: "whole", "value_set": [1, 2, 3]}),
    (
        "column_distinct_values_to_be_in_set",
        {C: "text", "value_set": ["a", "bb", "ccc", "", "a1", "2026-01-01", '{"x": 1}', "z"]},
    ),
    ("column_distinct_values_to_contain_set", {C: "whole", "value_set": [1, 2]}),
    ("column_distinct_values_to_contain_set", {C: "whole", "value_set": [1, 77]}),
    ("column_distinct_values_to_equal_set", {C: "whole", "value_set": [1, 2, 3, 5, 9]}),
    (
        "column_kl_divergence_to_be_less_than",
        {C: "text", "partition_object": {"values": ["a", "bb"], "weights": [0.5, 0.5]}, "threshold": 0.1},
    ),
    (
        "column_kl_divergence_to_be_less_than",
        {C: "flag", "partition_object": {"values": [True, False], "weights": [0.7, 0.3]}, "threshold": 0.1},
    ),
    (
        "column_kl_divergence_to_be_less_than",
        {C: "whole", "partition_object": {"bins": [0, 2, 5, 10], "weights": [0.2, 0.5, 0.3]}, "threshold": 0.5},
    ),
    ("column_max_to_be_between", {C: "whole", "max_value": 8}),
    ("column_max_to_be_between", {C: "real", "max_value": 1e6}),
    ("column_max_to_be_between", {C: "moment", "min_value": "2026-01-09T00:00:00+00:00"}),
    ("column_mean_to_be_between", {C: "whole", "min_value": 3, "max_value": 4}),
    ("column_mean_to_be_between", {C: "money", "min_value": 3, "max_value": 14}),
    ("column_mean_to_be_between", {C: "real", "max_value": 1}),
    ("column_median_to_be_between", {C: "whole", "min_value": 2, "max_value": 2}),
    ("column_median_to_be_between", {C: "real", "min_value": 2}),
    ("column_min_to_be_between", {C: "money", "min_value": 0.1}),
    ("column_min_to_be_between", {C: "moment", "min_value": "2026-01-02T00:00:00+00:00"}),
    ("column_most_common_value_to_be_in_set", {C: "whole", "value_set": [2]}),
    ("column_most_common_value_to_be_in_set", {C: "text", "value_set": ["bb"]}),
    ("column_most_common_value_to_be_in_set", {C: "up", "value_set": [2], "ties_okay": True}),
    ("column_pair_values_a_to_be_greater_than_b", {**PAIR, "or_equal": True}),
    ("column_pair_values_a_to_be_greater_than_b", {**PAIR, "ignore_row_if": "either_value_is_missing", "mostly": 0.5}),
    ("column_pair_values_to_be_equal", {**PAIR, "mostly": 0.4}),
    ("column_pair_values_to_be_in_set", {**PAIR, "value_pairs_set": [[3, 3], [5, 5]]}),
    ("column_proportion_of_non_null_values_to_be_between", {C: "real", "min_value": 0.8}),
    ("column_proportion_of_unique_values_to_be_between", {C: "whole", "min_value": 0.7, "max_value": 0.72}),
    (
        "column_quantile_values_to_be_between",
        {
            C: "whole",
            "quantile_ranges": {"quantiles": [0, 0.33, 0.5, 1], "value_ranges": [[1, 1], [2, 2], [2, 2], [9, 9]]},
        },
    ),
    (
        "column_quantile_values_to_be_between",
        {
            C: "real",
            "allow_relative_error": "linear",
            "quantile_ranges": {"quantiles": [0.1, 0.9], "value_ranges": [[-1, 0], [0, 1]]},
        },
    ),
    ("column_stdev_to_be_between", {C: "whole", "min_value": 2, "max_value": 3}),
    ("column_stdev_to_be_between", {C: "money", "max_value": 30}),
    ("column_sum_to_be_between", {C: "whole", "min_value": 24, "max_value": 24}),
    ("column_sum_to_be_between", {C: "money", "min_value": 116.3, "max_value": 116.32}),
    ("column_to_exist", {C: "whole"}),
    ("column_unique_value_count_to_be_between", {C: "text", "min_value": 7}),
    ("column_value_lengths_to_be_between", {C: "text", "max_value": 3}),
    ("column_value_lengths_to_equal", {C: "text", "value": 1, "mostly": 0.2}),
    ("column_value_z_scores_to_be_less_than", {C: "real", "threshold": 2, "double_sided": True}),
    ("column_value_z_scores_to_be_less_than", {C: "whole", "threshold": 1, "double_sided": False}),
    ("column_values_to_be_between", {C: "whole", "min_value": 2, "max_value": 5}),
    ("column_values_to_be_between", {C: "real", "min_value": 0, "mostly": 0.85}),
    ("column_values_to_be_between", {C: "real", "min_value": 0, "mostly": 0.86}),
    ("column_values_to_be_between", {C: "money", "min_value": 0.1, "max_value": 50, "strict_min": True}),
    ("column_values_to_be_between", {C: "moment", "max_value": "2026-01-05T00:00:00+00:00"}),
    ("column_values_to_be_dateutil_parseable", {C: "text"}),
    ("column_values_to_be_decreasing", {C: "up"}),
    ("column_values_to_be_in_set", {C: "whole", "value_set": [1, 2, 3, 5]}),
    ("column_values_to_be_in_set", {C: "text", "value_set": ["a", "a1"]}),
    ("column_values_to_be_increasing", {C: "up"}),
    ("column_values_to_be_increasing", {C: "up", "strictly": True, "mostly": 0.7}),
    ("column_values_to_be_increasing", {C: "moment", "strictly": True}),
    ("column_values_to_be_json_parseable", {C: "text"}),
    ("column_values_to_be_null", {C: "real", "mostly": 0.2}),
    ("column_values_to_be_null", {C: "whole"}),
    ("column_values_to_be_of_type", {C: "real", "type_": "float64"}),
    ("column_values_to_be_of_type", {C: "real", "type_": "int64"}),
    ("column_values_to_be_in_type_list", {C: "id", "type_list": ["int64", "Int64"]}),
    ("column_type_to_be", {C: "id", "type_": "int64"}),
    ("column_values_to_be_unique", {C: "whole"}),
    ("column_values_to_be_unique", {C: "real", "mostly": 0.7}),
    ("column_values_to_be_unique", {C: "moment"}),
    ("column_values_to_match_json_schema", {C: "json", "json_schema": {"type": "object"}}),
    ("column_values_to_match_regex", {C: "text", "regex": "^a"}),
    ("column_values_to_match_regex_list", {C: "text", "regex_list": ["^a", "b"]}),
    ("column_values_to_match_strftime_format", {C: "text", "strftime_format": "%Y-%m-%d"}),
    ("column_values_to_not_be_in_set", {C: "whole", "value_set": [9, 11]}),
    ("column_values_to_not_be_null", {C: "real", "mostly": 0.77}),
    ("column_values_to_not_be_null", {C: "real", "mostly": 0.78}),
    ("column_values_to_not_be_outliers", {C: "real", "method": "iqr", "multiplier": 1.5}),
    ("column_values_to_not_match_regex", {C: "text", "regex": "^a"}),
    ("column_values_to_not_match_regex_list", {C: "text", "regex_list": ["^a", "b"]}),
    ("compound_columns_to_be_unique", {"column_list": ["whole", "flag"]}),
    ("compound_columns_to_be_unique", {"column_list": ["whole", "flag"], "ignore_row_if": "any_value_is_missing"}),
    ("compound_columns_to_be_unique", {"column_list": ["whole", "flag"], "ignore_row_if": "never"}),
    ("multicolumn_sum_to_equal", {**LIST, "sum_total": 6}),
    ("multicolumn_values_to_be_equal", {**LIST}),
    ("select_column_values_to_be_unique_within_record", {**LIST, "ignore_row_if": "any_value_is_missing"}),
    ("table_column_count_to_be_between", {"min_value": 10, "max_value": 10}),
    ("table_column_count_to_equal", {"value": 8}),
    ("table_columns_to_match_ordered_list", {"column_list": ROWS.column_names}),
    ("table_columns_to_match_set", {"column_set": [*ROWS.column_names[1:]], "exact_match": False}),
    ("table_columns_to_match_set", {"column_set": ["id", "nope"]}),
    ("table_row_count_to_be_between", {"min_value": 10}),
    ("table_row_count_to_equal", {"value": 9}),
]


BINS = [n for n, (_, kwargs) in enumerate(CASES) if "bins" in kwargs.get("partition_object", {})]
CONDITION = {"row_condition": "id > 1 and id != 5", "condition_parser": "pandas"}


def cases(condition: dict[str, Any]) -> list[Expectation]:
    """All cases, with a condition those that take one."""
    made = [Expectation.model_validate(expect(kind, **kwargs, **condition)) for kind, kwargs in CASES]
    plain = ("expect_table_column", "expect_column_to_exist", "expect_column_type_to_be")
    return [each for each in made if not condition or not each.type.startswith(plain)]


@pytest.fixture(scope="module", params=[{}, CONDITION], ids=["all rows", "some rows"])
def both(request: pytest.FixtureRequest) -> list[tuple[Expectation, RuleResult, Any]]:
    """Each expectation, what it came to in frames of two rows, and what Great Expectations says of all rows."""
    expectations = cases(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "BATCH_ROWS", 2)
        rules = run(ROWS, *[each.model_dump(include={"type", "kwargs"}) for each in expectations])
    rules = [rule for rule in rules if rule.rule != rule.kind][1:]
    # Great Expectations converts decimals wrongly where it selects rows itself: it is given the selected ones
    rows = selected(ROWS, CONDITION["row_condition"], "pandas") if request.param else ROWS
    plain = [{name: value for name, value in each.kwargs.items() if name not in CONDITION} for each in expectations]
    frames, whole = Frames(), dict[int, Any]()
    for floats in (False, True):
        built = {n: build("here", each, plain[n]) for n, each in enumerate(expectations)}
        several = {n: one for n, one in built.items() if (form_of(one).name == "FLOATS" or n in BINS) == floats}
        whole |= frames.validate(rows, several, form=Form.FLOATS if floats else Form.EXACT)
    return [(each, rules[n], whole[n]) for n, each in enumerate(expectations)]


def test_the_same_results_as_great_expectations_on_the_whole_frame(
    both: list[tuple[Expectation, RuleResult, Any]],
) -> None:
    differing = []
    for expectation, found, reference in both:
        holds = RuleOutcome.HOLDS if reference.success else RuleOutcome.BROKEN
        said = reference.result
        expected: list[Any] = [holds]
        seen: list[Any] = [found.outcome]
        if "element_count" in said:
            expected += [said["unexpected_count"], said["element_count"] - said.get("missing_count", 0)]
            seen += [found.unexpected, found.total]
        observed = said.get("observed_value")
        if isinstance(observed, int | float) and not isinstance(observed, bool):
            expected.append(pytest.approx(float(observed)))
            seen.append(found.observed)
        if seen != expected or reference.exception_info.get("raised_exception", False):
            differing.append(
                (expectation.type, expectation.kwargs, seen, expected, found.sentence, reference.exception_info)
            )
    assert differing == []
    assert len(both) > 60


def test_every_expectation_that_great_expectations_has_is_compared_or_known() -> None:
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    compared = {f"expect_{kind}" for kind, _ in CASES}
    sql = {
        "unexpected_rows_expectation",
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table",
    }
    patterns = {f"expect_column_values_to_{n}match_like_pattern{m}" for n in ("", "not_") for m in ("", "_list")}
    assert {*list_registered_expectation_implementations()} - compared - sql == patterns, "pandas knows no LIKE"
