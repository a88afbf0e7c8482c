"""Suites that are suggested: what they say of which columns, and that their bounds lie outside of all that was seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blocks.verification import CollectionProfile, ColumnProfile
from flows.proving.column_facts import FORMATS, MOJIBAKE, TextFacts
from flows.proving.profile import Kind
from flows.proving.suggest import Evidence, Seen, suggested

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BETWEEN, MEAN = "expect_column_values_to_be_between", "expect_column_mean_to_be_between"
NOT_NULL, UNIQUE = "expect_column_values_to_not_be_null", "expect_column_values_to_be_unique"
NEWEST, ROW_COUNT = "expect_column_max_to_be_between", "expect_table_row_count_to_be_between"
LENGTHS, FEW = "expect_column_value_lengths_to_be_between", "expect_column_unique_value_count_to_be_between"


HEAD = {"name": "s/t", "collection": "s/t"}


def numbers(low: Any, high: Any, mean: float | None = None, nulls: int = 0, distinct: int = 60) -> ColumnProfile:
    return ColumnProfile(nulls=nulls, distinct=distinct, minimum=low, maximum=high, mean=mean)


def suite_of(kind: Kind, *seen: ColumnProfile, rows: int = 100, facts: TextFacts | None = None) -> dict[str, Any]:
    """The suite for a column `c`, of backups that are a day apart, newest first."""
    days = [
        Seen(NOW - timedelta(days=n), CollectionProfile(rows=rows, columns={"c": one})) for n, one in enumerate(seen)
    ]
    texts = {} if facts is None else {"c": facts}
    return suggested(Evidence(HEAD, ["id"], {"c": kind}, days, [rows] * len(days), texts=texts))


def rules(suite: dict[str, Any], column: str | None = "c") -> dict[str, dict[str, Any]]:
    """The arguments of a suite's expectations by their type, without the column."""
    found = [rule for rule in suite["expectations"] if rule["kwargs"].get("column") == column]
    assert all(rule["meta"]["why"] for rule in found)
    return {rule["type"]: {k: v for k, v in rule["kwargs"].items() if k != "column"} for rule in found}


def rules_of(kind: Kind, *seen: ColumnProfile, **more: Any) -> dict[str, dict[str, Any]]:
    return rules(suite_of(kind, *seen, **more))


def parameter(text: str) -> dict[str, str]:
    return {"$PARAMETER": text}


LATEST = parameter("backup_timestamp + 5m")


def from_before(lower: str, upper: str) -> dict[str, Any]:
    return {"min_value": parameter(lower), "max_value": parameter(f"round(previous_rows * {upper}) + 10")}


@pytest.mark.parametrize(
    ("rows", "bounds"),
    [
        ([101], {"min_value": 51}),
        ([0], None),
        ([100, 0], {"min_value": 50}),
        (
            [100, 100],
            {
                "min_value": parameter("trunc(previous_rows * 0.95)"),
                "max_value": parameter("round(previous_rows * 1.25) + 10"),
            },
        ),
        (
            [90, 100, 100],
            {
                "min_value": parameter("trunc(previous_rows * 0.85)"),
                "max_value": parameter("round(previous_rows * 1.25) + 10"),
            },
        ),
        (
            [400, 200, 100, 100],
            from_before("previous_rows", "4.0"),
        ),
        (
            [1, 100],
            {
                "min_value": parameter("trunc(previous_rows * 0.0)"),
                "max_value": parameter("round(previous_rows * 1.25) + 10"),
            },
        ),
    ],
)
def test_how_many_rows(rows: list[int], bounds: dict[str, Any] | None) -> None:
    seen = [Seen(NOW, CollectionProfile(rows=rows[0]))]
    assert rules(suggested(Evidence(HEAD, ["id"], {}, seen, rows)), None).get(ROW_COUNT) == bounds


def test_rows_of_some_keys_are_compared_with_those_that_were_verified() -> None:
    seen = [Seen(NOW, CollectionProfile(rows=100)), Seen(NOW, CollectionProfile(rows=100))]
    head = HEAD | {"keys": "quote:*", "format": "json"}
    suite = suggested(Evidence(head, ["key"], {}, seen, [100, 100]))
    assert {name: suite[name] for name in head} == head
    assert rules(suite, None)[ROW_COUNT]["min_value"] == parameter("trunc(previous_verified.rows * 0.95)")


@pytest.mark.parametrize(
    ("nulls", "bounds"),
    [
        ([0, 0], {}),
        ([0, 1], {"mostly": 0.98}),
        ([10], {"mostly": 0.875}),
        ([10, 30], {"mostly": 0.5}),
        ([100], None),
        ([90], None),
    ],
)
def test_how_many_nulls(nulls: list[int], bounds: dict[str, Any] | None) -> None:
    found = rules_of(Kind.OTHER, *(numbers(None, None, nulls=count) for count in nulls))
    assert found.get(NOT_NULL) == bounds


@pytest.mark.parametrize(
    ("kind", "seen", "bounds"),
    [
        (Kind.NUMBER, [(100, 200)], {"min_value": 50, "max_value": 250}),
        (Kind.NUMBER, [(1, 500)], {"min_value": 0, "max_value": 750, "strict_min": True}),
        (Kind.NUMBER, [(0, 500)], {"min_value": 0, "max_value": 750}),
        (Kind.NUMBER, [(-10, 10)], {"min_value": -20, "max_value": 20}),
        (Kind.NUMBER, [(-20, -10)], {"min_value": -25, "max_value": -5}),
        (Kind.NUMBER, [(7, 7)], {"min_value": 3.5, "max_value": 10.5}),
        (Kind.NUMBER, [(0, 1)], {"min_value": 0, "max_value": 1}),
        (Kind.NUMBER, [("0.01", "99.99")], {"min_value": 0, "max_value": 150, "strict_min": True}),
        (Kind.FLOAT, [(10.0, 20.0), (12.0, 30.0)], {"min_value": 0, "max_value": 40, "strict_min": True}),
        (Kind.NUMBER, [("1" + "0" * 30, "2" + "0" * 30)], {"min_value": 5 * 10**29, "max_value": 25 * 10**29}),
    ],
)
def test_numbers_have_half_of_their_span_around_them(kind: Kind, seen: list[tuple[Any, Any]], bounds: Any) -> None:
    assert rules_of(kind, *(numbers(low, high) for low, high in seen))[BETWEEN] == bounds


@pytest.mark.parametrize(
    ("means", "bounds", "severity"),
    [
        ([50.0], {"min_value": 37, "max_value": 63}, "warning"),
        ([50.0, 50.0, 50.0], {"min_value": 45, "max_value": 55}, "critical"),
        ([52.0, 50.0, 52.0], {"min_value": 44.8, "max_value": 57.9}, "critical"),
        (
            [60.0, 55.0, 50.0],
            {
                "min_value": parameter('previous_verified["c"].mean - 15'),
                "max_value": parameter('previous_verified["c"].mean + 15'),
            },
            "critical",
        ),
    ],
)
def test_means_stay_in_a_band_that_goes_with_them(means: list[float], bounds: Any, severity: str) -> None:
    suite = suite_of(Kind.NUMBER, *(numbers(0, 100, mean) for mean in means))
    assert rules(suite)[MEAN] == bounds
    said = [rule.get("severity", "critical") for rule in suite["expectations"] if rule["type"] == MEAN]
    assert said == [severity]


def test_numbers_that_count_have_no_greatest_one() -> None:
    found = rules_of(Kind.NUMBER, numbers(1, 100, 50.5, distinct=100), numbers(1, 100, 50.5, distinct=100))
    assert found == {NOT_NULL: {}, UNIQUE: {}, BETWEEN: {"min_value": 1}}


@pytest.mark.parametrize(
    ("kind", "low"), [(Kind.FLOAT, 0.5), (Kind.NUMBER, "0.50"), (Kind.TIME, NOW.isoformat()), (Kind.OTHER, None)]
)
def test_amounts_and_times_are_unique_by_chance(kind: Kind, low: Any) -> None:
    assert UNIQUE not in rules_of(kind, numbers(low, low, distinct=100))


@pytest.mark.parametrize(
    ("distinct", "rows", "format", "unique"),
    [
        (100, 100, "UUID", True),
        (99, 100, "UUID", False),
        (20, 20, "UUID", False),
        (100, 100, "ISO date", False),
        (290_000, 300_000, None, True),
        (200_000, 300_000, None, False),
    ],
)
def test_texts_that_name_something_are_unique(distinct: int, rows: int, format: str | None, unique: bool) -> None:
    found = rules_of(Kind.TEXT, numbers(None, None, distinct=distinct), rows=rows, facts=TextFacts(5, 9, format))
    assert (UNIQUE in found) is unique


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        (("id",), {"type": UNIQUE, "kwargs": {"column": "id"}}),
        (("a", "b"), {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["a", "b"]}}),
        (("a", "far to the right"), None),
    ],
)
def test_a_key_is_unique(key: tuple[str, ...], rule: Any) -> None:
    columns = {name: numbers(None, None) for name in ("id", "a", "b")}
    seen = [Seen(NOW, CollectionProfile(rows=10, columns=columns))]
    found = suggested(Evidence(HEAD, key, dict.fromkeys(columns, Kind.OTHER), seen, [10]))["expectations"]
    assert isinstance(found, list)
    unique = [one for one in found if isinstance(one, dict) and "unique" in str(one["type"])]
    assert [{"type": one["type"], "kwargs": one["kwargs"]} for one in unique] == ([rule] if rule else [])


def at(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat()


@pytest.mark.parametrize(
    ("low", "high", "bounds", "newest"),
    [
        (
            at(days=9),
            at(minutes=1),
            (at(days=9), LATEST),
            parameter("backup_timestamp - 15m"),
        ),
        (
            at(days=9),
            at(minutes=-1),
            (at(days=9), LATEST),
            parameter("backup_timestamp - 15m"),
        ),
        (at(days=9), at(hours=5), (at(days=9), LATEST), parameter("backup_timestamp - 1d")),
        (at(days=99), at(days=50), (at(days=99), LATEST), None),
        (at(days=2), at(days=-8), (at(days=12), at(days=-18)), None),
    ],
)
def test_how_old_the_newest_time_may_be(low: str, high: str, bounds: tuple[Any, Any], newest: Any) -> None:
    found = rules_of(Kind.TIME, numbers(low, high))
    assert found[BETWEEN] == {"min_value": bounds[0], "max_value": bounds[1]}
    assert found.get(NEWEST) == (newest and {"min_value": newest})


def test_the_oldest_that_was_seen_says_how_old_the_newest_may_be() -> None:
    before = (NOW - timedelta(days=1, hours=2)).isoformat()  # two hours old then
    found = rules_of(Kind.LOCAL_TIME, numbers(at(days=9), at(minutes=1)), numbers(at(days=9), before))
    assert found[NEWEST] == {"min_value": parameter("backup_timestamp - 8h")}


def test_days_are_fresh_by_days() -> None:
    found = rules_of(Kind.DATE, numbers("2026-01-01", "2026-03-01"))
    assert found[BETWEEN] == {"min_value": "2026-01-01", "max_value": parameter("backup_timestamp + 1d")}
    assert found[NEWEST] == {"min_value": parameter("backup_timestamp - 2d")}


@pytest.mark.parametrize(
    ("facts", "distinct", "expected"),
    [
        (TextFacts(36, 36, "UUID"), 60, {"expect_column_values_to_match_regex": {"regex": FORMATS["UUID"]}}),
        (TextFacts(9, 99, "JSON"), 60, {"expect_column_values_to_be_json_parseable": {}}),
        (
            TextFacts(4, 10, None),
            60,
            {
                "expect_column_values_to_not_match_regex": {"regex": MOJIBAKE},
                LENGTHS: {"min_value": 2, "max_value": 20},
            },
        ),
        (TextFacts(0, 10, None, clean=False), 60, {}),
        (TextFacts(64, 64, None, clean=False), 60, {LENGTHS: {"min_value": 64, "max_value": 64}}),
        (
            TextFacts(4, 4, "upper case word"),
            3,
            {
                "expect_column_values_to_match_regex": {"regex": FORMATS["upper case word"]},
                LENGTHS: {"min_value": 2, "max_value": 8},
                FEW: {"min_value": 2, "max_value": 6},
            },
        ),
        (
            TextFacts(4, 4, "upper case word", values=("AAPL", "MSFT", "TSLA")),
            3,
            {"expect_column_values_to_be_in_set": {"value_set": ["AAPL", "MSFT", "TSLA"]}},
        ),
    ],
)
def test_what_is_said_of_texts(facts: TextFacts, distinct: int, expected: dict[str, Any]) -> None:
    found = rules_of(Kind.TEXT, numbers(None, None, distinct=distinct), facts=facts)
    assert found == {NOT_NULL: {}} | expected


def test_texts_that_are_times_become_times() -> None:
    facts = TextFacts(20, 32, "ISO time", times=(NOW - timedelta(days=2), NOW - timedelta(minutes=2)))
    suite = suite_of(Kind.TEXT, numbers(None, None, distinct=100), facts=facts)
    assert suite["types"] == {"c": "timestamp"}
    assert rules(suite)[NEWEST] == {"min_value": parameter("backup_timestamp - 15m")}


def test_nothing_is_said_of_a_column_without_values_and_of_what_only_tracks() -> None:
    assert rules_of(Kind.TEXT, numbers(None, None, nulls=100, distinct=0)) == {}
    seen = [Seen(NOW, CollectionProfile(rows=10, columns={"inode": numbers(1, 9, 5.0)}))]
    evidence = Evidence(HEAD, ["path"], {"inode": Kind.NUMBER}, seen, [10], ["inode"])
    assert rules(suggested(evidence), "inode") == {}


def test_the_order_of_two_columns_is_kept() -> None:
    columns = {"ask": numbers(2.0, 9.0, 5.0), "bid": numbers(1.0, 8.0, 4.0)}
    seen = [Seen(NOW, CollectionProfile(rows=10, columns=columns))]
    kinds = dict.fromkeys(columns, Kind.FLOAT)
    suite: Any = suggested(Evidence(HEAD, ["id"], kinds, seen, [10], pairs=[("ask", "bid")]))
    assert suite["expectations"][-1]["kwargs"] == {"column_A": "ask", "column_B": "bid", "or_equal": True}


def test_a_path_of_many_lines_is_no_key() -> None:
    columns = {"path": numbers(None, None, distinct=1), "line": numbers(1, 100, distinct=100)}
    seen = [Seen(NOW, CollectionProfile(rows=100, columns=columns))]
    suite: Any = suggested(Evidence(HEAD, ["path"], dict.fromkeys(columns, Kind.OTHER), seen, [100]))
    unique = [rule for rule in suite["expectations"] if rule["type"] == "expect_column_values_to_be_unique"]
    assert [rule["kwargs"]["column"] for rule in unique if rule["kwargs"]["column"] == "path"] == []


def test_times_that_are_numbers_have_no_bounds_that_time_breaks() -> None:
    columns = {"expires_ms": numbers(1_795_000_000_000, 1_796_000_000_000, mean=1_795_500_000_000.0)}
    seen = [Seen(NOW, CollectionProfile(rows=100, columns=columns))]
    suite: Any = suggested(Evidence(HEAD, ["key"], {"expires_ms": Kind.NUMBER}, seen, [100]))
    assert rules(suite, "expires_ms").keys() == {"expect_column_values_to_not_be_null"}
