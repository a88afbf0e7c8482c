from __future__ import annotations

import datetime as dt
import json
import logging
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import great_expectations as gx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import ConfigurationError
from blocks.plan.quality import QualityResult, QualitySuite, load_suites
from blocks.rows import pandas_frame
from blocks.rows.variant import encode_variant, variant_field

assert gx.__version__, "imported once here, because it takes seconds"

BIG = 2**60 + 1
ORDERS = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "quantity": pa.array([5, None, 7], pa.int64()),
        "note": pa.array(["a", None, "c"], pa.large_string()),
    }
)


def expect(kind: str, severity: str | None = None, **kwargs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": f"expect_{kind}", "kwargs": kwargs}
    return made if severity is None else {**made, "severity": severity}


def suite_of(*expectations: dict[str, Any]) -> dict[str, Any]:
    return {"name": "orders", "collection": "ledger/orders", "expectations": list(expectations)}


def run(rows: pa.Table, *expectations: dict[str, Any], expected_rows: int | None = None) -> QualityResult:
    suite = QualitySuite.model_validate(suite_of(*expectations))
    return suite.run(rows, {"expected_rows": rows.num_rows if expected_rows is None else expected_rows})


def holds(column: pa.Array, kind: str, **kwargs: Any) -> bool:
    return not run(pa.table({"c": column}), expect(kind, column="c", **kwargs)).findings


def write(folder: Path, content: object, name: str = "suite.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def refused(folder: Path, content: object, name: str = "suite.json") -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_suites([write(folder, content, name)])
    assert name in caught.value.message
    return caught.value.message


UNIQUE = expect("column_values_to_be_unique", column="id")


def test_good_rows_pass_and_the_row_count_is_counted_among_the_expectations() -> None:
    result = run(ORDERS, UNIQUE, expect("column_values_to_be_between", column="quantity", min_value=5))
    assert result == QualityResult(evaluated=3, findings=())


def test_a_broken_expectation_is_named_with_its_column_and_counts() -> None:
    result = run(ORDERS, UNIQUE, expect("column_values_to_be_between", column="quantity", min_value=6))
    assert result.findings == ("expect_column_values_to_be_between on quantity: 1 of 3 rows are not as expected",)
    assert result.evaluated == 3


def test_lost_rows_are_found_though_no_expectation_asks() -> None:
    assert run(ORDERS, UNIQUE, expected_rows=4).findings == (
        "expect_table_row_count_to_equal: there are 3 rows, 4 were expected",
    )
    assert run(ORDERS.slice(0, 0), UNIQUE, expected_rows=3).findings


def test_no_rows_where_none_are_expected_pass() -> None:
    assert run(ORDERS.slice(0, 0), UNIQUE) == QualityResult(evaluated=2, findings=())


def test_no_columns_at_all_are_a_finding() -> None:
    assert run(pa.table({}), UNIQUE).findings == ("expect_column_values_to_be_unique on id: column id is missing",)


def test_a_missing_column_is_a_finding_and_the_rest_is_evaluated() -> None:
    result = run(ORDERS.drop(["note"]), expect("column_values_to_be_null", column="note"), UNIQUE)
    assert result == QualityResult(3, ("expect_column_values_to_be_null on note: column note is missing",))


def test_an_expectation_that_raises_is_a_finding() -> None:
    result = run(ORDERS, expect("column_values_to_match_regex", column="note", regex="("), UNIQUE)
    assert result.findings == (
        "expect_column_values_to_match_regex on note: could not be evaluated on values of type large_string",
    )
    assert result.evaluated == 3


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_lesser_severities_warn_without_failing(severity: str) -> None:
    result = run(ORDERS, expect("column_values_to_not_be_null", severity, column="note"))
    assert result.findings == ()
    assert result.warnings == (
        f"{severity}: expect_column_values_to_not_be_null on note: 1 of 3 rows are not as expected",
    )


def test_the_same_expectation_twice_is_evaluated_twice() -> None:
    assert run(ORDERS, UNIQUE, UNIQUE).evaluated == 3


def test_findings_keep_the_order_of_the_file() -> None:
    broken = [expect("column_values_to_be_null", column=name) for name in ("note", "id", "note")]
    assert [finding.split(":")[0].split()[-1] for finding in run(ORDERS, *broken).findings] == ["note", "id", "note"]


def test_parameters_take_their_values_from_the_run() -> None:
    suite = QualitySuite.model_validate(
        suite_of(
            expect(
                "column_unique_value_count_to_be_between",
                column="id",
                min_value={"$PARAMETER": "expected_rows"},
                max_value={"$PARAMETER": "expected_rows + 1"},
            )
        )
    )
    suite.check()
    assert suite.run(ORDERS, {"expected_rows": 3}).findings == ()
    assert len(suite.run(ORDERS, {"expected_rows": 4}).findings) == 2
    assert suite.run(ORDERS, {"expected_rows": 3}).findings == ()


def test_a_run_without_the_number_of_expected_rows_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected rows"):
        QualitySuite.model_validate(suite_of(UNIQUE)).run(ORDERS, {})


SECRET = "hunter2-secret"


def test_no_value_of_a_row_reaches_a_finding_a_log_or_the_terminal(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = pa.table(
        {
            "plain": pa.array([SECRET, SECRET, "x"], pa.large_string()),
            "mixed": encode_variant([SECRET, 1, SECRET.encode()]),
        },
        schema=pa.schema([pa.field("plain", pa.large_string()), variant_field("mixed")]),
    )
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("column_values_to_be_unique", {}),
        ("column_values_to_be_null", {}),
        ("column_values_to_be_in_set", {"value_set": ["y"]}),
        ("column_distinct_values_to_be_in_set", {"value_set": ["y"]}),
        ("column_most_common_value_to_be_in_set", {"value_set": ["y"]}),
        ("column_max_to_be_between", {"max_value": 1}),
        ("column_mean_to_be_between", {"max_value": 1}),
        ("column_values_to_match_regex", {"regex": "^y$"}),
        ("column_values_to_be_dateutil_parseable", {}),
        ("column_values_to_be_json_parseable", {}),
    ]
    with caplog.at_level(logging.DEBUG):
        result = run(rows, *[expect(kind, column=name, **more) for name in ("plain", "mixed") for kind, more in kinds])
    out, err = capfd.readouterr()
    assert result.evaluated == 21
    assert len(result.findings) == 19, "only the mixed column is unique"
    assert SECRET not in "\n".join([*result.findings, *result.warnings, caplog.text])
    assert (out, err) == ("", "")


def test_rows_that_cannot_be_evaluated_at_all_are_a_finding_without_the_words_of_the_error() -> None:
    twins = pa.table([pa.array([SECRET]), pa.array([SECRET])], names=["id", "id"])
    result = run(twins, UNIQUE)
    assert result == QualityResult(0, ("suite 'orders': nothing was evaluated (KeyError)",))


def test_integers_stay_exact_beside_nulls() -> None:
    column = pa.array([BIG, None, 2], pa.int64())
    assert holds(column, "column_values_to_be_in_set", value_set=[BIG, 2])
    assert not holds(column, "column_values_to_be_in_set", value_set=[BIG - 1, 2])
    assert holds(column, "column_values_to_be_of_type", type_="int64")
    assert holds(column.drop_null(), "column_values_to_be_of_type", type_="int64")


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
    result = run(pa.table(columns), *[expect("column_values_to_not_be_null", column=name) for name in columns])
    assert result.findings == tuple(
        f"expect_column_values_to_not_be_null on {name}: 1 of 2 rows are not as expected" for name in columns
    )
    assert not holds(pa.nulls(2), "column_values_to_not_be_null")
    assert holds(pa.nulls(2), "column_values_to_be_null")


def test_times_dates_and_decimals_are_compared_as_what_they_are() -> None:
    moments = pa.array([dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC"))
    between = "column_values_to_be_between"
    assert holds(moments, between, min_value="2026-01-01T00:00:00+00:00")
    assert not holds(moments, between, min_value="2026-01-01T00:00:00-01:00")
    assert holds(pa.array([dt.date(2026, 1, 2), None]), between, min_value="2026-01-02")
    assert not holds(pa.array([dt.date(2026, 1, 1), None]), between, min_value="2026-01-02")
    money = pa.array([Decimal("1.50"), None, Decimal("2.25")], pa.decimal128(10, 2))
    assert holds(money, "column_sum_to_be_between", min_value=3.75, max_value=3.75)
    assert not holds(money, between, min_value=2)
    assert holds(pa.array([dt.time(9, 30)], pa.time64("us")), "column_values_to_match_regex", regex=r"^09:30:")


def test_a_variant_column_is_checked_as_the_values_it_holds() -> None:
    values = encode_variant([1, "x", 2.5, b"\xff", bytearray(b"\xfe"), None])
    rows = pa.table([values], schema=pa.schema([variant_field("v")]))
    assert run(rows, expect("column_values_to_be_unique", column="v")).findings == ()
    result = run(rows, expect("column_values_to_be_in_type_list", column="v", type_list=["int", "str", "float"]))
    assert result.findings == ("expect_column_values_to_be_in_type_list on v: 2 of 6 rows are not as expected",)
    result = run(rows, expect("column_values_to_be_between", column="v", min_value=1))
    assert "could not be evaluated on values of type variant" in result.findings[0]


def test_a_mixed_column_too_large_to_check_fails_instead_of_filling_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pandas_frame, "MIXED_LIMIT_BYTES", 1000)
    rows = pa.table([encode_variant([1, "x" * 200])], schema=pa.schema([variant_field("v")]))
    assert run(rows, expect("column_values_to_be_unique", column="v")).findings


def test_a_row_condition_reads_the_columns_it_names() -> None:
    condition = {"row_condition": 'note=="c"', "condition_parser": "pandas"}
    between = expect("column_values_to_be_between", column="quantity", min_value=8, **condition)
    assert run(ORDERS, between).findings == (
        "expect_column_values_to_be_between on quantity: 1 of 1 rows are not as expected",
    )


def test_columns_that_no_expectation_names_are_there_by_name_only() -> None:
    assert run(ORDERS, expect("table_columns_to_match_set", column_set=ORDERS.column_names)).findings == ()
    frame = pandas_frame.make_frame(ORDERS, {"id"})
    assert list(frame.columns) == ORDERS.column_names
    assert frame["quantity"].isna().all()
    assert frame["quantity"].memory_usage(index=False) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3) | st.binary(max_size=3)))
def test_any_variant_values_count_their_nulls_and_repeats_rightly(values: list[Any]) -> None:
    rows = pa.table([encode_variant(values)], schema=pa.schema([variant_field("v")]))
    nulls = run(rows, expect("column_values_to_not_be_null", column="v")).findings
    assert bool(nulls) == (None in values)
    present = [value for value in values if value is not None]
    repeats = run(rows, expect("column_values_to_be_unique", column="v")).findings
    assert bool(repeats) == (len(set(present)) < len(present))


def test_nothing_is_imported_for_a_plan_without_suites() -> None:
    code = (
        "import sys; from blocks.plan.quality import load_suites; assert load_suites([]) == []\n"
        "assert not {'great_expectations', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_example_of_the_docstring_is_a_suite_that_runs(tmp_path: Path) -> None:
    example = (QualitySuite.__doc__ or "").split("```json")[1].split("```")[0]
    [suite] = load_suites([write(tmp_path, example)])
    result = suite.run(ORDERS, {"expected_rows": 3})
    assert (result.evaluated, result.findings, result.warnings) == (5, (), ())


def test_yaml_and_lists_of_suites_are_read(tmp_path: Path) -> None:
    text = """
    - name: first
      collection: ledger/orders
      expectations:
        - type: expect_column_values_to_be_unique
          kwargs: {column: id}
    - name: second
      collection: ledger/lines
      expectations:
        - {type: expect_column_to_exist, kwargs: {column: id}, severity: info, meta: {why: it is the key}}
    """
    plain = write(tmp_path, suite_of(UNIQUE))
    suites = load_suites([write(tmp_path, text, "suites.yaml"), plain])
    assert [(suite.name, suite.collection) for suite in suites] == [
        ("first", "ledger/orders"),
        ("second", "ledger/lines"),
        ("orders", "ledger/orders"),
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"expectations": []}, "expectations"),
        ({"expectations": None}, "expectations"),
        ({"collection": None}, "collection"),
        ({"collection": "orders"}, "collection"),
        ({"name": ""}, "name"),
        ({"expectation": []}, "expectation"),
        ({"expectations": [{"type": "expect_column_values_to_be_unique"}]}, "expectations.0.kwargs"),
        ({"expectations": [{**UNIQUE, "sevrity": "info"}]}, "expectations.0.sevrity"),
        ({"expectations": [UNIQUE, {**UNIQUE, "severity": "fatal"}]}, "expectations.1.severity"),
        ({"expectations": [UNIQUE, expect("column_values_to_be_unicorns", column="id")]}, "expectations.1 "),
        ({"expectations": [expect("column_values_to_be_unique", colunm="id")]}, "colunm"),
        ({"expectations": [expect("column_values_to_be_between", column="id")]}, "expectations.0 "),
        ({"expectations": [expect("column_values_to_be_unique", column="id", mostly=7)]}, "mostly"),
        ({"expectations": [{**UNIQUE, "kwargs": {"column": "id", "severity": "info"}}]}, "severity"),
        ({"expectations": [expect("column_values_to_be_unique", column="id", result_format="COMPLETE")]}, "result_"),
        ({"expectations": [expect("table_row_count_to_equal", value={"$PARAMETER": "rows"})]}, "rows"),
        ({"expectations": [expect("column_max_to_be_between", column="id", max_value=BIG)]}, "max_value"),
        ({"expectations": [{"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "x"}}]}, "data"),
    ],
)
def test_a_wrong_suite_is_refused_naming_file_and_field(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    raw = {key: value for key, value in {**suite_of(UNIQUE), **change}.items() if value is not None}
    assert named in refused(tmp_path, raw)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("{", "a.json"),
        ("a: [", "a.yaml"),
        ("[]", "a.json"),
        ("", "a.yaml"),
        ("just text", "a.yaml"),
        ("[1]", "a.json"),
        ("name: n\ncollection: a/b\nexpectations:\n- {type: x, kwargs: {min_value: 2026-01-01}}", "a.yaml"),
    ],
)
def test_a_file_that_holds_no_suite_is_refused(tmp_path: Path, content: str, name: str) -> None:
    refused(tmp_path, content, name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.json"):
        load_suites([str(tmp_path / "nowhere.json")])
