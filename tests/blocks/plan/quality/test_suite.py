from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.plan.quality import QualitySuite, load_suites
from tests.blocks.plan.quality.support import expect, query, suite_of

BIG = 2**60 + 1
UNIQUE = expect("column_values_to_be_unique", column="id")


def write(folder: Path, content: object, name: str = "suite.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def refused(folder: Path, content: object, name: str = "suite.json") -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_suites([write(folder, content, name)])
    assert name in caught.value.message
    return caught.value.message


def test_nothing_is_imported_for_a_plan_without_suites() -> None:
    code = (
        "import sys; from blocks.plan.quality import load_suites; assert load_suites([]) == []\n"
        "assert not {'great_expectations', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_example_of_the_docstring_is_a_suite(tmp_path: Path) -> None:
    example = (QualitySuite.__doc__ or "").split("```json")[1].split("```")[0]
    assert [suite.name for suite in load_suites([write(tmp_path, example)])] == ["orders"]


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "another suite 'orders'" in refused(tmp_path, [suite_of(UNIQUE), suite_of(UNIQUE)])


def test_a_suite_is_known_by_what_it_says() -> None:
    one, other = (QualitySuite.model_validate(suite_of(UNIQUE, examples=each)) for each in (True, False))
    assert one.sha256 == QualitySuite.model_validate(suite_of(UNIQUE, examples=True)).sha256 != other.sha256


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("ledger/*", ["ledger/a", "ledger/b[1]"]),
        ("*/a", ["ledger/a", "other/a"]),
        ("ledger/b[1]", ["ledger/b[1]"]),
        ("none/*", []),
    ],
)
def test_a_glob_names_collections(glob: str, found: list[str]) -> None:
    suite = QualitySuite.model_validate({**suite_of(UNIQUE), "collection": glob})
    assert suite.collections(["ledger/a", "ledger/b[1]", "other/a"]) == found


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
        ({"expectations": [expect("table_row_count_to_equal", value={"$PARAMETER": "rows"})]}, "'rows'"),
        ({"expectations": [expect("column_max_to_be_between", column="id", max_value=BIG)]}, "max_value"),
        ({"expectations": [query("x")]}, "expectations.0 "),
        ({"expectations": [query("DELETE FROM {batch}")]}, "SELECT"),
        ({"expectations": [query("SELECT 1; SELECT 2")]}, "statement"),
        ({"expectations": [expect("column_values_to_be_unique", column="id", row_condition="id ==")]}, "row_condition"),
        ({"expectations": [{**UNIQUE, "may_be_emty": True}]}, "may_be_emty"),
        ({"format": "xml"}, "format"),
        ({"delimiter": ";"}, "delimiter"),
        ({"types": {"id": "money"}}, "types"),
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


@pytest.mark.parametrize(
    ("expectation", "named"),
    [
        (expect("column_values_to_be_unique", column="gone"), "gone"),
        (expect("column_pair_values_to_be_equal", column_A="id", column_B="gone"), "gone"),
        (expect("column_values_to_be_unique", column="id", row_condition="gone > 1 and id < 3"), "gone"),
        (expect("column_values_to_be_unique", column="id", row_condition="`my note` == 'a'"), "my note"),
    ],
)
def test_columns_that_the_collection_does_not_have_are_a_fault(expectation: dict[str, Any], named: str) -> None:
    suite = QualitySuite.model_validate(suite_of(expectation))
    suite.check()
    suite.check(["id", "gone", "my note"])
    with pytest.raises(ConfigurationError, match=f"there is no column {named}"):
        suite.check(["id"])
    QualitySuite.model_validate(suite_of(expectation, format="csv")).check(["id"])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM {batch}, read_text('x')",
        "SELECT (SELECT count(*) FROM glob('*'))",
        "SELECT 1 FROM {batch}; -- all of it",
    ],
)
def test_queries_read_restored_rows_and_end_where_they_end(sql: str) -> None:
    with pytest.raises(ConfigurationError):
        QualitySuite.model_validate(suite_of(query(sql))).check()


@pytest.mark.parametrize("seconds", [float("inf"), 1e12, 0])
def test_a_query_has_a_time_that_a_clock_can_measure(seconds: float) -> None:
    with pytest.raises(ValidationError):
        QualitySuite.model_validate(suite_of(query("SELECT 1"), query_seconds=seconds))
