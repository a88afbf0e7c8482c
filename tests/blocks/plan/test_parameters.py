"""Parameters of quality suites: what can be computed, and what is refused before any work."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.plan.parameters import Missing, Unvalued, column_of, evaluate, names_in, stand_ins, substituted

VALUES: dict[str, Any] = {
    "expected_rows": 0,
    "previous_rows": 100,
    "backup_timestamp": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "previous_verified.rows": Missing("no earlier verification"),
    "previous_verified.amount.mean": 0.1,
    "previous_verified.amount.min": Decimal("12.34"),
    "previous_verified.my column 2m.max": 7,
    'previous_verified.a " 2m.max': 8,
    "previous_verified.json.price.max": 9,
    "previous_verified.day.max": date(2026, 1, 1),
    "previous_verified.local.max": datetime(2026, 1, 1),
}


@pytest.mark.parametrize(
    ("text", "value"),
    {
        "previous_rows": 100,
        "previous_rows * 0.9": 90,
        "-previous_rows + 1": -99,
        "+previous_rows / 8": 12.5,
        "1 / 4": 0.25,
        "(previous_rows + 20) * 2": 240,
        "round(previous_rows * 0.333)": 33,
        "round(previous_rows * 0.3333, 1)": 33.3,
        "trunc(previous_rows * 0.339)": 33,
        "max(previous_rows * 0.9, previous_rows - 5)": 95,
        "min(abs(-3), 5)": 3,
        "backup_timestamp": "2026-01-01T12:00:00+00:00",
        "backup_timestamp - 15m": "2026-01-01T11:45:00+00:00",
        "backup_timestamp-1.5h": "2026-01-01T10:30:00+00:00",
        "backup_timestamp + 2 * 1d": "2026-01-03T12:00:00+00:00",
        "backup_timestamp + 1d * 0.5": "2026-01-02T00:00:00+00:00",
        "backup_timestamp - timedelta(minutes=15)": "2026-01-01T11:45:00+00:00",
        "(backup_timestamp - backup_timestamp + 1w) / 1d": 7.0,
        "previous_verified.amount.mean * 3": 0.3,  # which floats would make 0.30000000000000004
        "previous_verified.amount.min - 0.34": 12,
        "previous_verified['my column 2m'].max": 7,
        'previous_verified["my column 2m"].max': 7,
        r'previous_verified["a \" 2m"].max': 8,
        "previous_verified.json.price.max": 9,
        "previous_verified.day.max + 1d": "2026-01-02",
        "previous_verified.local.max + 1h": "2026-01-01T01:00:00",
    }.items(),
)
def test_what_an_expression_comes_to(text: str, value: object) -> None:
    found = evaluate(text, VALUES)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "previous_rowz": "'previous_rowz' is not known; did you mean previous_rows?",
        "previous_verified.amount.maen": "did you mean mean?",
        "previous_verified.min": "'previous_verified.min' is not known",
        "previous_rows.real": "'previous_rows.real' is not known",
        "now() - 1d": "now() is not known",
        "__import__('os')": "there is no such function; there are abs, max, min, round, timedelta, trunc",
        "previous_rows ** 99": "no name, no number",
        "[1]": "no name, no number",
        "True": "no name, no number",
        "'text'": "no name, no number",
        "1e400": "no name, no number",
        "previous_rows[0]": "no name, no number",
        "max(1": "it cannot be read",
        "": "it cannot be read",
        "-" * 1001: "it is longer than 1000 characters",
        "_seconds(1)": "_seconds is not known",
    }.items(),
)
def test_what_is_not_written_as_it_must_be_is_named_before_there_is_any_value(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        names_in({"min_value": {"$PARAMETER": text}})
    assert said in wrong.value.message
    assert repr(text) in wrong.value.message
    assert "previous_verified.COLUMN.(nulls" in wrong.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "15m": "it is a length of time",
        "1 / expected_rows": "it divides by zero",
        "backup_timestamp * 2": "a time * a number has no meaning",
        "-backup_timestamp": "a number * a time has no meaning",
        "backup_timestamp - previous_verified.local.max": "a time - a time without zone has no meaning",
        "previous_verified.day.max + 1h": "a date has no time of day",
        "backup_timestamp - 99999999999d": "its result is too large",
        "round()": "round is not written like that",
        "round(backup_timestamp)": "round is not written like that",
        "timedelta(fortnights=1)": "timedelta is not written like that",
    }.items(),
)
def test_what_does_not_fit_its_values_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        evaluate(text, VALUES)
    assert said in wrong.value.message


@pytest.mark.parametrize("beside", [{"$PARAMETER": 5}, {"$PARAMETER": "previous_rows", "default": 3}])
def test_a_parameter_is_one_text(beside: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="and nothing else"):
        names_in({"row_condition": {"inner": [beside]}})


def test_values_are_put_wherever_expressions_stand() -> None:
    arguments: dict[str, Any] = {
        "column": "at",
        "min_value": {"$PARAMETER": "backup_timestamp - 1h"},
        "value_set": [1, {"$PARAMETER": "previous_rows + 1"}],
        "deeper": {"one": {"$PARAMETER": "expected_rows"}},
    }
    assert names_in(arguments) == {"backup_timestamp", "previous_rows", "expected_rows"}
    assert substituted(arguments, VALUES) == {
        "column": "at",
        "min_value": "2026-01-01T11:00:00+00:00",
        "value_set": [1, 101],
        "deeper": {"one": 0},
    }


def test_a_number_that_is_not_known_yet_is_told_apart_from_a_fault() -> None:
    with pytest.raises(Unvalued) as unvalued:
        evaluate("previous_verified.rows * 0.9", VALUES)
    assert (unvalued.value.name, unvalued.value.kind) == ("previous_verified.rows", "no earlier verification")


def test_a_name_says_which_column_it_asks_for() -> None:
    (name,) = names_in({"$PARAMETER": "previous_verified['a.b'].null_share"})
    assert column_of(name) == ("a.b", "null_share")
    assert column_of("previous_rows") is column_of("previous_verified.rows") is None


@pytest.mark.parametrize(
    "text",
    [
        "previous_verified.at.max - 1h",
        "previous_verified.n.max * 2",
        "previous_verified.day.min + 1d",
        "backup_timestamp - 1d",
        "previous_rows",
    ],
)
def test_a_suite_can_be_checked_before_there_is_any_value(text: str) -> None:
    arguments: dict[str, Any] = {"min_value": {"$PARAMETER": text}}
    assert substituted(arguments, stand_ins(arguments))["min_value"] is not None


def test_what_no_value_makes_sense_of_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a number - a time has no meaning"):
        stand_ins({"min_value": {"$PARAMETER": "previous_rows - backup_timestamp"}})
