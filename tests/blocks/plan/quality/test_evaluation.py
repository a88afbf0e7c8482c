from __future__ import annotations

import datetime as dt
import logging
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.plan.quality import evaluation, table
from blocks.plan.quality.findings import evaluated, faults, findings, is_fault, oddities, untried
from blocks.rows.variant import encode_variant, variant_field
from blocks.verification import RuleOutcome, RuleResult
from tests.blocks.plan.quality.support import Known, broken, expect, outcomes, query, run, run_on, suite_of

BIG = 2**60 + 1
ORDERS = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "quantity": pa.array([5, None, 7], pa.int64()),
        "note": pa.array(["a", None, "c"], pa.large_string()),
    }
)
EMPTY = pa.table({"id": pa.nulls(2), "quantity": pa.nulls(2)}).set_column(0, "id", pa.array([1, 2]))
UNIQUE = expect("column_values_to_be_unique", column="id")
BETWEEN = "column_values_to_be_between"
C_IS_C = {"row_condition": 'note=="c"', "condition_parser": "pandas"}
C_IS_Z = {"row_condition": 'note=="z"', "condition_parser": "pandas"}


def sentences(*expectations: dict[str, Any], rows: pa.Table = ORDERS, **more: Any) -> list[str]:
    return [rule.sentence for rule in run(rows, *expectations, **more) if rule.sentence]


def holds(column: pa.Array, kind: str, **kwargs: Any) -> bool:
    rows = pa.table({"id": pa.array(range(len(column)), pa.int64()), "c": column})
    return not broken(run(rows, expect(kind, column="c", **kwargs)))


def test_good_rows_pass_and_the_row_count_is_counted_among_the_expectations() -> None:
    rules = run(ORDERS, UNIQUE, expect(BETWEEN, column="quantity", min_value=5))
    assert outcomes(rules) == ["holds"] * 3
    assert evaluated(rules) == 3
    assert rules[0].bound == "equal to 3"


@pytest.mark.parametrize(
    ("expectation", "sentence"),
    [
        (expect(BETWEEN, column="quantity", min_value=6), "1 of 2 values of quantity are not at least 6 (50 %)"),
        (
            expect(BETWEEN, column="quantity", min_value=6, max_value=9, mostly=0.75),
            "1 of 2 values of quantity are not between 6 and 9 (50 %; at least 75 % asked for)",
        ),
        (
            expect(BETWEEN, column="quantity", min_value=8, **C_IS_C),
            "1 of 1 values of quantity are not at least 8 (100 %)",
        ),
        (
            expect("column_mean_to_be_between", column="quantity", max_value=5),
            "the mean of quantity is 6, not at most 5",
        ),
        (expect("column_values_to_not_be_null", column="note"), "1 of 3 values of note are NULL (33.3 %)"),
        (expect("column_values_to_be_null", column="note"), "2 of 3 values of note are not NULL (66.7 %)"),
        (
            expect("column_values_to_be_in_set", column="note", value_set=["a", "b"]),
            "1 of 2 values of note are not one of 'a', 'b' (50 %)",
        ),
        (
            expect("column_values_to_match_regex", column="note", regex="^a"),
            "1 of 2 values of note are not with a match of ^a (50 %)",
        ),
        (
            expect("column_max_to_be_between", column="quantity", max_value=6),
            "the greatest quantity is 7, not at most 6",
        ),
        (expect("table_row_count_to_equal", value=4), "the number of rows is 3, not equal to 4"),
        (
            expect("column_pair_values_to_be_equal", column_A="id", column_B="quantity"),
            "3 of 3 rows (id, quantity) are not equal (100 %)",
        ),
        (query("SELECT * FROM {batch} WHERE id > 1"), "the query finds 2 rows that it should not find"),
        (
            query("SELECT * FROM {batch} WHERE id > 1", meta={"rule": "few orders"}),
            "the query finds 2 rows that break the rule 'few orders'",
        ),
        (
            expect("column_values_to_be_unique", column="gone"),
            "column gone is missing, which expect_column_values_to_be_unique on gone looks at",
        ),
        (
            expect(BETWEEN, column="quantity", min_value=1, **C_IS_Z),
            "no row meets the condition of expect_column_values_to_be_between on quantity",
        ),
    ],
)
def test_a_broken_expectation_is_said_in_one_line(expectation: dict[str, Any], sentence: str) -> None:
    assert sentences(expectation) == [f"ledger/orders: {sentence}"]


def test_numbers_of_a_broken_expectation_are_kept() -> None:
    rule = broken(run(ORDERS, expect(BETWEEN, column="quantity", min_value=6, mostly=0.9)))[0]
    assert (rule.rule, rule.columns, rule.unexpected, rule.total) == (f"expect_{BETWEEN}", ("quantity",), 1, 2)
    assert rule.bound == "at least 6, at least 90 % of them"


def test_lost_rows_are_found_though_no_expectation_asks() -> None:
    assert sentences(UNIQUE, expected_rows=4) == ["ledger/orders: the number of rows is 3, not equal to 4"]


NOTHING: list[tuple[str, pa.Table, dict[str, Any], str]] = [
    ("no rows", ORDERS.slice(0, 0), UNIQUE, "broken: no rows"),
    ("no rows", ORDERS.slice(0, 0), expect("column_values_to_be_null", column="note"), "broken: no rows"),
    ("no rows", ORDERS.slice(0, 0), query("SELECT * FROM {batch}"), "broken: no rows"),
    ("no rows and a mean", ORDERS.slice(0, 0), expect("column_mean_to_be_between", column="id"), "broken: no rows"),
    ("no column is needed", ORDERS.slice(0, 0), expect("column_to_exist", column="id"), "holds"),
    ("only NULL", EMPTY, expect(BETWEEN, column="quantity", min_value=1), "broken: only NULL"),
    ("only NULL", EMPTY, expect("column_values_to_be_unique", column="quantity"), "broken: only NULL"),
    ("only NULL", EMPTY, expect("column_mean_to_be_between", column="quantity", min_value=1), "broken: only NULL"),
    ("NULL is meant", EMPTY, expect("column_values_to_be_null", column="quantity"), "holds"),
    ("NULL is meant", EMPTY, expect("column_values_to_not_be_null", column="quantity"), "broken"),
    (
        "pairs",
        EMPTY,
        expect("column_pair_values_to_be_equal", column_A="quantity", column_B="quantity"),
        "broken: only NULL",
    ),
    ("no row selected", ORDERS, expect(BETWEEN, column="id", min_value=0, **C_IS_Z), "broken: no rows selected"),
    (
        "no row selected",
        ORDERS,
        expect("column_max_to_be_between", column="id", min_value=0, **C_IS_Z),
        "broken: no rows selected",
    ),
    ("no column", ORDERS, expect(BETWEEN, column="gone", min_value=0), "broken: missing column"),
    (
        "no column in the condition",
        ORDERS,
        expect(BETWEEN, column="id", min_value=0, row_condition="gone > 1", condition_parser="pandas"),
        "broken: missing column",
    ),
]


@pytest.mark.parametrize(("rows", "expectation", "outcome"), [case[1:] for case in NOTHING])
def test_nothing_passes_emptily(rows: pa.Table, expectation: dict[str, Any], outcome: str) -> None:
    assert outcomes(run(rows, expectation))[-1] == outcome


@pytest.mark.parametrize("where", ["suite", "expectation"])
def test_a_suite_may_say_that_there_may_be_nothing(where: str) -> None:
    lenient = {"may_be_empty": True}
    for _, rows, expectation, outcome in NOTHING:
        said = {**expectation, **lenient} if where == "expectation" else expectation
        more = lenient if where == "suite" else {}
        expected = outcome if outcome in ("broken", "broken: missing column") else "holds"
        assert outcomes(run(rows, said, **more))[-1] == expected


FAULTS: list[tuple[dict[str, Any], str]] = [
    (expect("column_values_to_match_regex", column="note", regex="("), "could not be evaluated"),
    (expect(BETWEEN, column="note", min_value=1), "could not be evaluated"),
    (expect("column_mean_to_be_between", column="note", min_value=1), "could not be evaluated"),
    (
        expect(BETWEEN, column="id", min_value=1, row_condition="id > note", condition_parser="pandas"),
        "condition could not be evaluated",
    ),
    (query("SELECT * FROM {batch} WHERE nowhere > 1"), "query could not be evaluated"),
    (query('SELECT * FROM "ledger"."nothing"'), "query could not be evaluated"),
    (query("SELECT * FROM '/etc/passwd'"), "query could not be evaluated"),
    (query("SELECT * FROM {batch} WHERE CAST(note AS INTEGER) > 1"), "query could not be evaluated"),
]


@pytest.mark.parametrize(("expectation", "kind"), FAULTS)
def test_a_fault_of_a_suite_says_nothing_of_the_data_and_is_no_pass(expectation: dict[str, Any], kind: str) -> None:
    rules = run(ORDERS, expectation, UNIQUE)
    assert outcomes(rules) == ["holds", f"unjudged: {kind}", "holds"]
    assert findings(rules) == []
    assert len(faults(rules)) == 1
    assert evaluated(rules) == 2


TOO_LARGE = "SELECT * FROM (SELECT string_agg(repeat('x', 1000000), '') AS s FROM range(500)) WHERE length(s) < 1"


@pytest.mark.parametrize(
    "expectation",
    [
        query(TOO_LARGE),
        expect("query_results_to_match_comparison", base_query=TOO_LARGE, comparison_query="SELECT 1"),
    ],
)
def test_too_little_memory_is_no_fault_of_the_suite_and_keeps_no_other_rule_from_being_judged(
    expectation: dict[str, Any],
) -> None:
    rules = run(ORDERS, expectation, UNIQUE)
    assert outcomes(rules) == ["holds", "unjudged: could not be tried", "holds"]
    assert (findings(rules), faults(rules), oddities(rules)) == ([], [], [])
    (sentence,) = untried(rules)
    assert sentence.startswith("suite orders: ledger/orders: ")
    assert sentence.endswith("could not be tried (not enough memory, or room for what does not fit into it)")
    assert evaluated(rules) == 2


def test_a_fault_of_lesser_severity_is_a_fault_all_the_same() -> None:
    rules = run(ORDERS, expect(BETWEEN, "info", column="note", min_value=1))
    assert len(faults(rules)) == 1


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_lesser_severities_warn_without_failing(severity: str) -> None:
    rules = run(ORDERS, expect("column_values_to_not_be_null", severity, column="note"))
    assert findings(rules) == []
    assert oddities(rules) == [f"{severity}: ledger/orders: 1 of 3 values of note are NULL (33.3 %)"]


def test_the_same_expectation_twice_is_evaluated_twice() -> None:
    assert evaluated(run(ORDERS, UNIQUE, UNIQUE)) == 3


def test_results_keep_the_order_of_the_file() -> None:
    names = ("note", "id", "note", "quantity")
    rules = run(ORDERS, *[expect("column_values_to_be_null", column=name) for name in names])
    assert [rule.columns for rule in rules[1:]] == [(name,) for name in names]


def test_parameters_take_their_values_from_the_run() -> None:
    limits = {"min_value": {"$PARAMETER": "expected_rows"}, "max_value": {"$PARAMETER": "previous_rows + 1"}}
    expectation = expect("column_unique_value_count_to_be_between", column="id", **limits)
    assert outcomes(run(ORDERS, expectation, known=Known(previous_rows=2)))[-1] == "holds"
    assert outcomes(run(ORDERS, expectation, known=Known(previous_rows=1)))[-1] == "broken"


def test_a_parameter_without_a_value_yet_is_no_fault_and_no_pass() -> None:
    rules = run(ORDERS, expect("table_row_count_to_equal", value={"$PARAMETER": "previous_verified.rows"}))
    assert outcomes(rules)[-1] == "unjudged: no earlier verification"
    assert not is_fault(rules[-1])
    assert (findings(rules), faults(rules)) == ([], [])
    [warning] = oddities(rules)
    assert "no earlier verification" in warning


def test_freshness_is_said_without_a_date() -> None:
    moments = pa.array([dt.datetime(2026, 7, 1, hour, tzinfo=dt.UTC) for hour in (3, 9)], pa.timestamp("us", "UTC"))
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "made": moments})
    for hours, outcome in ((4, "holds"), (2, "broken")):
        limit = {"$PARAMETER": f"backup_timestamp - {hours}h"}
        assert outcomes(run(rows, expect("column_max_to_be_between", column="made", min_value=limit)))[-1] == outcome


SECRET = "hunter2-secret"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_value_of_a_row_reaches_a_result_a_log_or_the_terminal(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "plain": pa.array([SECRET, SECRET, "x"], pa.large_string()),
            "mixed": encode_variant([SECRET, 1, SECRET.encode()]),
        },
        schema=pa.schema([("id", pa.int64()), pa.field("plain", pa.large_string()), variant_field("mixed")]),
    )
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("column_values_to_be_unique", {}),
        ("column_values_to_be_null", {}),
        ("column_values_to_be_in_set", {"value_set": ["y"]}),
        ("column_distinct_values_to_be_in_set", {"value_set": ["y"]}),
        ("column_most_common_value_to_be_in_set", {"value_set": ["y"]}),
        ("column_max_to_be_between", {"max_value": 1}),
        ("column_max_to_be_between", {"max_value": "2026-01-01"}),
        ("column_min_to_be_between", {"max_value": "2026-01-01"}),
        ("column_mean_to_be_between", {"max_value": 1}),
        ("column_values_to_match_regex", {"regex": "^y$"}),
        ("column_values_to_be_dateutil_parseable", {}),
        ("column_values_to_be_json_parseable", {}),
        ("column_values_to_match_json_schema", {"json_schema": {}}),
        (
            "column_kl_divergence_to_be_less_than",
            {"threshold": 0, "partition_object": {"values": ["y"], "weights": [1]}},
        ),
    ]
    expectations = [expect(kind, column=name, **more) for name in ("plain", "mixed") for kind, more in kinds]
    expectations.append(query("SELECT CAST(plain AS INTEGER) FROM {batch}"))
    with caplog.at_level(logging.DEBUG):
        rules = run(rows, *expectations, examples=True)
    out, err = capfd.readouterr()
    assert len([rule for rule in rules if rule.rule != rule.kind]) == 30, "one for each, and the number of rows"
    assert SECRET not in "\n".join(rule.model_dump_json() for rule in rules) + caplog.text
    assert (out, err) == ("", "")


def test_integers_stay_exact_beside_nulls() -> None:
    column = pa.array([BIG, None, 2], pa.int64())
    assert holds(column, "column_values_to_be_in_set", value_set=[BIG, 2])
    assert not holds(column, "column_values_to_be_in_set", value_set=[BIG - 1, 2])
    assert holds(column, "column_distinct_values_to_equal_set", value_set=[BIG, 2])
    assert not holds(column, "column_distinct_values_to_equal_set", value_set=[BIG - 1, 2])


def test_nulls_are_null_in_every_canonical_type() -> None:
    day, moment = dt.date(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns = {
        "bool": pa.array([True, None]),
        "int": pa.array([1, None], pa.int64()),
        "float": pa.array([1.0, None]),
        "text": pa.array(["", None], pa.large_string()),
        "bytes": pa.array([b"\xff", None], pa.large_binary()),
        "moment": pa.array([moment, None], pa.timestamp("us", "UTC")),
        "day": pa.array([day, None]),
        "time": pa.array([dt.time(9), None], pa.time64("us")),
        "money": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        "wide": pa.array([Decimal("1.50"), None], pa.decimal256(50, 2)),
    }
    rules = run(pa.table(columns), *[expect("column_values_to_not_be_null", column=name) for name in columns])
    assert [(rule.columns, rule.unexpected, rule.total) for rule in broken(rules)] == [((n,), 1, 2) for n in columns]


def test_times_dates_and_decimals_are_compared_as_what_they_are() -> None:
    moments = pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC"))
    assert holds(moments, BETWEEN, min_value="2026-01-01T00:00:00+00:00")
    assert holds(moments, BETWEEN, min_value="2026-01-01")
    assert not holds(moments, BETWEEN, min_value="2026-01-01T00:00:00-01:00")
    assert holds(moments, "column_max_to_be_between", min_value="2026-01-01")
    days = pa.array([dt.date(2026, 1, 2), None])
    assert holds(days, BETWEEN, min_value="2026-01-02")
    assert not holds(days, BETWEEN, min_value="2026-01-03")
    assert holds(days, "column_max_to_be_between", min_value="2026-01-02", max_value="2026-01-02")
    assert not holds(days, "column_min_to_be_between", min_value="2026-01-03")
    money = pa.array([Decimal("1.50"), None, Decimal("2.25")], pa.decimal128(10, 2))
    assert holds(money, "column_sum_to_be_between", min_value=3.75, max_value=3.75)
    assert holds(money, BETWEEN, min_value=1.5, max_value=2.25)
    assert not holds(money, BETWEEN, min_value=2)
    assert holds(pa.array([dt.time(9, 30)], pa.time64("us")), "column_values_to_match_regex", regex=r"^09:30:")


def test_sums_of_decimals_are_exact() -> None:
    dimes = pa.array([Decimal("0.10")] * 1_000, pa.decimal128(10, 2))
    assert sum([0.10] * 1_000) != 100
    assert holds(dimes, "column_sum_to_be_between", min_value=100, max_value=100)


def test_values_of_another_type_are_counted_and_their_keys_named_where_that_is_allowed() -> None:
    values = pa.table(
        [pa.array(range(5), pa.int64()), encode_variant([1, 2, "x", b"\xff", None])],
        schema=pa.schema([pa.field("id", pa.int64()), variant_field("v")]),
    )
    expectation = expect(BETWEEN, column="v", min_value=1)
    for examples, more, keys in ((False, "", ()), (True, "; for example 2, 3", ("2", "3"))):
        rules = run(values, expectation, examples=examples)
        assert outcomes(rules) == ["broken: wrong type", "holds", "holds"]
        assert rules[0].sentence == f"ledger/orders: 2 values of v are no BIGINT, or out of its range{more}"
        assert (rules[0].unexpected, rules[0].total, rules[0].examples) == (2, 5, keys)


def test_types_that_a_suite_says_hold_for_text() -> None:
    rows = pa.table(
        {"id": ["1", "2", "3"], "price": ["1.10", "2.20", "cheap"], "day": ["2026-01-01", "2026-01-02", None]}
    )
    rules = run(
        rows,
        expect("column_sum_to_be_between", column="price", min_value=3.3, max_value=3.3),
        expect("column_max_to_be_between", column="day", max_value="2026-01-02"),
        types={"price": "decimal", "day": "date"},
        examples=True,
    )
    assert outcomes(rules) == ["broken: wrong type", "holds", "holds", "holds"]
    assert rules[0].examples == ("3",)


def test_what_is_no_number_is_said_and_is_null() -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "c": pa.array([1.5, float("nan")])})
    rules = run(rows, expect("column_values_to_not_be_null", column="c"))
    assert outcomes(rules) == ["broken: not a number", "holds", "broken"]
    assert rules[0].severity == "warning"


def test_keys_of_rows_are_named_only_where_the_suite_allows_it() -> None:
    rows = pa.table({"id": pa.array(range(20), pa.int64()), "c": pa.array([5] * 10 + list(range(10)), pa.int64())})
    expectations = [
        expect(BETWEEN, column="c", max_value=7),
        expect("column_values_to_be_unique", column="c"),
        expect(
            "column_values_to_not_be_in_set",
            column="c",
            value_set=[0],
            row_condition="id > 3",
            condition_parser="pandas",
        ),
        expect("column_pair_values_to_be_equal", column_A="id", column_B="c"),
        query("SELECT * FROM {batch} WHERE c = 9"),
    ]
    shown = [rule.examples for rule in broken(run(rows, *expectations, examples=True))]
    assert shown == [("18", "19"), ("0", "1", "15", "2", "3"), ("10",), ("0", "1", "2", "3", "4"), ("19",)]
    assert [rule.examples for rule in broken(run(rows, *expectations))] == [()] * 5


def test_what_takes_all_rows_at_once_is_not_evaluated_beyond_a_number_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    outliers = expect("column_values_to_not_be_outliers", column="id", method="iqr", multiplier=1.5)
    assert outcomes(run(ORDERS, outliers)) == ["holds", "holds"]
    monkeypatch.setattr(evaluation, "WHOLE_ROWS", 2)
    rules = run(ORDERS, outliers)
    assert outcomes(rules) == ["holds", "unjudged: not evaluated"]
    assert is_fault(rules[1])


def test_broken_json_is_counted_by_a_schema() -> None:
    texts = pa.array(['{"a": 1}', '{"a": ', None, '{"a": "x"}'], pa.large_string())
    rows = pa.table({"id": pa.array(range(4), pa.int64()), "c": texts})
    schema = {"type": "object", "properties": {"a": {"type": "number"}}}
    [rule] = broken(run(rows, expect("column_values_to_match_json_schema", column="c", json_schema=schema)))
    assert (rule.unexpected, rule.total) == (2, 3)


def test_a_missing_collection_is_a_finding() -> None:
    [rule] = run_on({"ledger/lines": ORDERS}, suite_of(UNIQUE))
    assert rule.outcome is RuleOutcome.BROKEN
    assert rule.sentence == "ledger/orders: the backup holds no collection ledger/orders, which suite orders is about"


def test_a_glob_runs_for_each_collection() -> None:
    tables = {"ledger/orders": ORDERS, "ledger/lines": ORDERS.slice(0, 2), "other/orders": ORDERS}
    rules = run_on(tables, {**suite_of(expect("table_row_count_to_equal", value=3)), "collection": "ledger/*"})
    assert [(rule.collection, rule.outcome.value) for rule in rules] == [
        ("ledger/orders", "holds"),
        ("ledger/orders", "holds"),
        ("ledger/lines", "holds"),
        ("ledger/lines", "broken"),
    ]


def test_a_condition_on_keys_of_redis_selects_them_and_finds_a_broken_text() -> None:
    keys = pa.array([b"quote:1", b"quote:2"], pa.large_binary())
    rows = pa.table({"key": keys, "value": pa.array([b'{"bid": 1', b'{"bid": 1}'], pa.large_binary())})
    one = {"row_condition": 'key=="quote:1"', "condition_parser": "pandas"}
    suite = {**suite_of(expect("column_values_to_be_json_parseable", column="value", **one)), "collection": "cache/db0"}
    [rule] = broken(run_on({"cache/db0": rows}, suite, cache="redis"))
    assert (rule.unexpected, rule.total) == (1, 1)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1), st.integers(1, 5))
def test_any_integers_count_their_nulls_and_repeats_rightly(values: list[int | None], size: int) -> None:
    rows = pa.table({"id": pa.array(range(len(values)), pa.int64()), "c": pa.array(values, pa.int64())})
    present = [value for value in values if value is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "BATCH_ROWS", size)
        nulls, repeats, low = run(
            rows,
            expect("column_values_to_not_be_null", column="c"),
            expect("column_values_to_be_unique", column="c"),
            expect(BETWEEN, column="c", min_value=0),
            may_be_empty=True,
        )[1:]
    assert nulls.unexpected == len(values) - len(present)
    if present:
        assert repeats.unexpected == sum(present.count(value) > 1 for value in present)
        assert low.unexpected == sum(value < 0 for value in present)


def on_postgres(
    declared: str, values: list[object], *expectations: dict[str, Any], other: tuple[str, list[object]] | None = None
) -> list[RuleResult]:
    columns = {"id": "integer", "a": declared, **({"b": other[0]} if other else {})}
    held: dict[str, list[Any]] = {"id": list(range(len(values))), "a": values, **({"b": other[1]} if other else {})}
    arrays = {
        name: pa.array(each, pa.large_string()) if isinstance(each[0], str) else pa.array(each)
        for name, each in held.items()
    }
    rules = run_on(
        {"ledger/orders": pa.table(arrays)},
        suite_of(*expectations),
        columns={"ledger/orders": columns},
        ledger="postgres",
    )
    return rules[1:]


@pytest.mark.parametrize("declared", ["numeric(10,2)", "numeric(18,2)", "numeric(38,18)", "numeric"])
@pytest.mark.parametrize("most", ["0.50", "1234567890123456.01"])
def test_a_decimal_meets_a_limit_that_is_written_like_it(declared: str, most: str) -> None:
    if declared == "numeric(10,2)" and len(most) > 11:
        most = "0.75"
    among = {"row_condition": "a == 9.99", "condition_parser": "pandas"}
    rules = on_postgres(
        declared,
        ["0.01", "9.99", most],
        expect("column_values_to_be_between", column="a", min_value=0.01),
        expect("column_values_to_be_in_set", column="a", value_set=[0.01, 9.99], mostly=0.6),
        expect("column_values_to_not_be_in_set", column="a", value_set=[9.99]),
        *([expect("column_values_to_be_between", column="a", max_value=9.99, **among)] if len(most) < 6 else []),
    )
    assert outcomes(rules)[:3] == ["holds", "holds", "broken"]
    assert outcomes(rules)[3:] in ([], ["holds"])


def test_decimals_of_many_digits_are_added_to_those_of_few() -> None:
    rules = on_postgres(
        "numeric(18,2)",
        ["0.25", "1.50"],
        expect("multicolumn_sum_to_equal", column_list=["a", "b"], sum_total=1.75),
        other=("numeric(10,2)", ["1.50", "0.25"]),
    )
    assert outcomes(rules) == ["holds"]


@pytest.mark.parametrize(
    ("declared", "held"),
    [
        ("date", "2026-01-01"),
        ("timestamp without time zone", "2026-01-01 00:00:00"),
        ("timestamp with time zone", "2026-01-01 02:00:00+02"),
    ],
)
@pytest.mark.parametrize("written", ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"])
def test_a_set_of_times_holds_moments(declared: str, held: str, written: str) -> None:
    later = {"row_condition": 'a < "2026-01-02"', "condition_parser": "pandas"}
    rules = on_postgres(
        declared,
        [held],
        expect("column_values_to_be_in_set", column="a", value_set=[written]),
        expect("column_most_common_value_to_be_in_set", column="a", value_set=[written]),
        expect("column_values_to_not_be_in_set", column="a", value_set=[written]),
        expect("column_values_to_be_between", column="a", max_value="2026-01-01", **later),
    )
    assert outcomes(rules) == ["holds", "holds", "broken", "holds"]


@pytest.mark.parametrize(
    ("values", "value_set"), [([1, 2], ["1", "2"]), (["1", "2"], [1, 2]), ([True, False], ["true", "false"])]
)
def test_a_set_of_another_type_is_a_fault_of_the_suite(values: list[object], value_set: list[object]) -> None:
    rules = run(
        pa.table({"id": [1, 2], "a": values}),
        expect("column_values_to_be_in_set", column="a", value_set=value_set),
        expect("column_values_to_not_be_in_set", column="a", value_set=value_set),
    )
    assert outcomes(rules)[1:] == ["unjudged: could not be evaluated"] * 2


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [("SELECT id FROM {batch} WHERE id > 5", "no rows"), ("SELECT sum(id) FROM {batch} WHERE id > 5", "only NULL")],
)
def test_queries_that_both_find_nothing_are_not_the_same(wanted: str, kind: str) -> None:
    same = expect("query_results_to_match_comparison", base_query=wanted, comparison_query=wanted)
    assert outcomes(run(pa.table({"id": [1, 2]}), same))[1:] == [f"broken: {kind}"]
    assert outcomes(run(pa.table({"id": [1, 2]}), {**same, "may_be_empty": True}))[1:] == ["holds"]


def test_a_mean_that_is_no_number_can_be_recorded() -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "c": pa.array([1.0, float("inf")])})
    (rule,) = broken(run(rows, expect("column_mean_to_be_between", column="c", max_value=9)))
    assert (rule.observed, rule.outcome) == ("inf", RuleOutcome.BROKEN)
    assert "the mean of c is inf, not at most 9" in rule.sentence


NARROW, WIDE = pa.decimal128(12, 4), pa.decimal128(24, 8)
PRICES = ["95.4845", "0.1", "180.3333", None, None]
"""Among them numbers that a double does not hold."""


@pytest.mark.parametrize(
    "other",
    [
        pa.array([Decimal(n) if n else None for n in PRICES], WIDE),
        pa.array([Decimal(n) if n else None for n in PRICES], pa.decimal128(38, 20)),
        pa.array([float(n) if n else None for n in PRICES], pa.float64()),
    ],
    ids=["wide", "widest", "double"],
)
def test_equal_numbers_of_several_types_are_equal(other: pa.Array) -> None:
    one = pa.array([Decimal(n) if n else None for n in PRICES], NARROW)
    rows = pa.table({"id": pa.array(range(len(PRICES)), pa.int64()), "price": one, "amount": other})
    pair = [{"column_A": a, "column_B": b} for a, b in (("price", "amount"), ("amount", "price"))]
    greater, equal = "column_pair_values_a_to_be_greater_than_b", "column_pair_values_to_be_equal"
    rules = [expect(greater, or_equal=True, **each) for each in pair] + [expect(equal, **each) for each in pair]
    assert outcomes(run(rows, *rules)) == ["holds"] * 5
    strictly = run(rows, *(expect(greater, or_equal=False, **each) for each in pair), examples=True)
    assert [(rule.unexpected, rule.total, rule.examples) for rule in broken(strictly)] == [(3, 3, ("0", "1", "2"))] * 2


def test_decimals_that_differ_in_the_last_digit_are_told_apart() -> None:
    more = pa.array([Decimal("1234567890123456.00000001")], WIDE)
    rows = pa.table({"id": [1], "price": pa.array([1234567890123456], pa.int64()), "amount": more})
    greater = expect("column_pair_values_a_to_be_greater_than_b", column_A="price", column_B="amount", or_equal=True)
    assert outcomes(run(rows, greater)) == ["holds", "broken"]


def test_a_row_that_lacks_one_of_two_numbers_counts_unless_that_is_said() -> None:
    one, other = pa.array([Decimal(1), None, None], NARROW), pa.array([Decimal(1), Decimal(2), None], WIDE)
    rows = pa.table({"id": [1, 2, 3], "price": one, "amount": other})
    found = {
        how: broken(run(rows, expect("column_pair_values_to_be_equal", ignore_row_if=how, **PRICE_AND_AMOUNT)))
        for how in ("both_values_are_missing", "either_value_is_missing", "neither")
    }
    assert {how: [(r.unexpected, r.total) for r in rules] for how, rules in found.items()} == {
        "both_values_are_missing": [(1, 2)],
        "either_value_is_missing": [],
        "neither": [(2, 3)],
    }


PRICE_AND_AMOUNT = {"column_A": "price", "column_B": "amount"}


def test_sums_of_decimals_over_columns_are_exact() -> None:
    money = {"price": pa.array([Decimal("0.1")], NARROW), "amount": pa.array([Decimal("0.2")], WIDE)}
    rows = pa.table({"id": [1], **money})
    total = {"column_list": ["price", "amount"]}
    rules = [expect("multicolumn_sum_to_equal", sum_total=each, **total) for each in (0.3, 0.30001, 3)]
    assert outcomes(run(rows, *rules)) == ["holds", "holds", "broken", "broken"]


@pytest.mark.parametrize("kind", [NARROW, WIDE])
def test_a_decimal_is_equal_to_a_bound_that_is_written_as_it(kind: pa.DataType) -> None:
    column = pa.array([Decimal("0.1"), None, Decimal("95.4845")], kind)
    assert holds(column, BETWEEN, min_value=0.1, max_value=95.4845)
    assert holds(column, "column_values_to_be_in_set", value_set=[0.1, 95.4845])
    assert not holds(column, BETWEEN, min_value=0.1, strict_min=True)
