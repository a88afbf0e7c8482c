"""What evaluating an expectation came to, in a record and in one line for people; never a value of a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from pydantic import JsonValue

from blocks.plan.quality.suite import Expectation, QualitySuite
from blocks.verification import RuleOutcome, RuleResult

# kinds of findings about the data
NO_ROWS = "no rows"
NONE_SELECTED = "no rows selected"
ONLY_NULL = "only NULL"
MISSING_COLUMN = "missing column"
NO_COLLECTION = "no collection"
WRONG_TYPE = "wrong type"
NOT_A_NUMBER = "not a number"
TOO_MANY_DIGITS = "too many digits"
UNPARSED = "does not parse"
# kinds of faults of a suite
NOT_EVALUATED = "not evaluated"
NO_SENSE = "could not be evaluated"
BAD_CONDITION = "condition could not be evaluated"
BAD_QUERY = "query could not be evaluated"
TOO_SLOW = "query took too long"
BAD_PARAMETER = "parameter does not fit"
NOT_TRIED = "could not be tried"
"""No fault of anything that was verified: there was no room, say."""
FAULTS = frozenset({NOT_EVALUATED, NO_SENSE, BAD_CONDITION, BAD_QUERY, TOO_SLOW, BAD_PARAMETER})

_CONSTRUCTED = "expect_"
_SUBJECTS = {
    "expect_column_mean_to_be_between": "the mean of {}",
    "expect_column_sum_to_be_between": "the sum of {}",
    "expect_column_min_to_be_between": "the least {}",
    "expect_column_max_to_be_between": "the greatest {}",
    "expect_column_median_to_be_between": "the median of {}",
    "expect_column_stdev_to_be_between": "the standard deviation of {}",
    "expect_column_unique_value_count_to_be_between": "the number of distinct values of {}",
    "expect_column_proportion_of_unique_values_to_be_between": "the share of distinct values of {}",
    "expect_column_proportion_of_non_null_values_to_be_between": "the share of values of {} that are not NULL",
    "expect_column_kl_divergence_to_be_less_than": "the divergence of {} from its partition",
    "expect_table_row_count_to_equal": "the number of rows",
    "expect_table_row_count_to_be_between": "the number of rows",
    "expect_table_column_count_to_equal": "the number of columns",
    "expect_table_column_count_to_be_between": "the number of columns",
}
"""What is compared, of expectations that compare one number."""
_BOUNDS = {
    "expect_column_values_to_be_unique": "unique",
    "expect_compound_columns_to_be_unique": "unique together",
    "expect_column_values_to_be_null": "NULL",
    "expect_column_values_to_not_be_null": "not NULL",
    "expect_column_values_to_be_json_parseable": "JSON",
    "expect_column_values_to_be_dateutil_parseable": "dates",
    "expect_column_values_to_be_increasing": "increasing",
    "expect_column_values_to_be_decreasing": "decreasing",
    "expect_column_pair_values_to_be_equal": "equal",
    "expect_column_to_exist": "there",
    "unexpected_rows_expectation": "no row that the query finds",
    "expect_query_results_to_match_comparison": "the same rows of both queries",
}
_SHOWN = 5
"""Most values of a set that are written out."""


@dataclass(frozen=True)
class Judgement:
    """What an expectation came to.

    Attributes:
        outcome: Whether it holds.
        kind: What kind of fault, where it is more than a broken bound.
        observed: What was compared, where that is no value of a row.
        unexpected: How many rows are not as expected.
        total: Of how many.
        examples: Keys of some of them.
        why: What more there is to say, of faults.
    """

    outcome: RuleOutcome
    kind: str = ""
    observed: JsonValue = None
    unexpected: int | None = None
    total: int | None = None
    examples: tuple[str, ...] = ()
    why: str = ""


def fault(kind: str, why: str = "") -> Judgement:
    """Say that a rule cannot be judged, and why: by how its suite is written, or for want of memory or room."""
    return Judgement(RuleOutcome.UNJUDGED, kind, why=why)


def rule_result(
    suite: QualitySuite, collection: str, expectation: Expectation, kwargs: Mapping[str, JsonValue], found: Judgement
) -> RuleResult:
    """Make the record of one expectation.

    Args:
        suite: Its suite.
        collection: Full name of the collection that it was evaluated on.
        expectation: The expectation.
        kwargs: Its arguments with values in the place of parameters.
        found: What it came to.
    """
    limit = bound(expectation.type, kwargs)
    return RuleResult(
        suite=suite.name,
        collection=collection,
        rule=expectation.type,
        columns=tuple(expectation.columns),
        severity=expectation.severity,
        outcome=found.outcome,
        kind=found.kind,
        observed=_recordable(found.observed),
        bound=limit,
        unexpected=found.unexpected,
        total=found.total,
        examples=found.examples if suite.examples else (),
        sentence=""
        if found.outcome is RuleOutcome.HOLDS
        else f"{collection}: {_sentence(expectation, kwargs, found)}" + _examples(suite, found.examples),
    )


def _recordable(observed: JsonValue) -> JsonValue:
    """Write as text what records have no number for: the mean of infinities, say."""
    if isinstance(observed, dict):
        return {name: _recordable(value) for name, value in observed.items()}
    if isinstance(observed, list):
        return [_recordable(value) for value in observed]
    return str(observed) if isinstance(observed, float) and not isfinite(observed) else observed


def own_rule(
    suite: QualitySuite, collection: str, columns: tuple[str, ...], sentence: str, found: Judgement, severity: str = ""
) -> RuleResult:
    """Make the record of what is looked at without being asked (types, formats)."""
    return RuleResult(
        suite=suite.name,
        collection=collection,
        rule=found.kind,
        columns=columns,
        severity=severity or "critical",
        outcome=found.outcome,
        kind=found.kind,
        unexpected=found.unexpected,
        total=found.total,
        examples=found.examples if suite.examples else (),
        sentence=f"{collection}: {sentence}{_examples(suite, found.examples)}",
    )


def is_fault(rule: RuleResult) -> bool:
    """Whether a rule says nothing because of how its suite is written; else the data, or the time, are to blame."""
    return rule.outcome is RuleOutcome.UNJUDGED and rule.kind in FAULTS


def evaluated(rules: Iterable[RuleResult]) -> int:
    """Count the expectations that could be judged, without what is looked at unasked."""
    return sum(rule.rule != rule.kind and rule.outcome is not RuleOutcome.UNJUDGED for rule in rules)


def findings(rules: Iterable[RuleResult]) -> list[str]:
    """Return the sentences of critical rules that are broken."""
    return [rule.sentence for rule in rules if rule.outcome is RuleOutcome.BROKEN and rule.severity == "critical"]


def faults(rules: Iterable[RuleResult]) -> list[str]:
    """Return the sentences of what is wrong with suites, whatever the severity."""
    return [f"suite {rule.suite}: {rule.sentence}" for rule in rules if is_fault(rule)]


def untried(rules: Iterable[RuleResult]) -> list[str]:
    """Return the sentences of what could not be tried here, which says nothing of the data or of the suite."""
    return [f"suite {rule.suite}: {rule.sentence}" for rule in rules if is_untried(rule)]


def is_untried(rule: RuleResult) -> bool:
    """Whether a rule could not be tried here."""
    return rule.outcome is RuleOutcome.UNJUDGED and rule.kind == NOT_TRIED


def oddities(rules: Iterable[RuleResult]) -> list[str]:
    """Return the sentences of broken rules of lesser severity, and of those that have nothing to compare with yet."""
    lesser = [r for r in rules if r.outcome is RuleOutcome.BROKEN and r.severity != "critical"]
    later = [r for r in rules if r.outcome is RuleOutcome.UNJUDGED and not (is_fault(r) or is_untried(r))]
    return [f"{r.severity}: {r.sentence}" for r in lesser] + [r.sentence for r in later]


def bound(kind: str, kwargs: Mapping[str, JsonValue]) -> str:
    """Say in words what an expectation asks for."""
    if kind in _BOUNDS:
        words = _BOUNDS[kind]
    elif kind.endswith("_between"):
        words = _between(kwargs)
    elif "value_set" in kwargs:
        given = kwargs["value_set"]
        values = given if isinstance(given, list) else [given]
        shown = ", ".join(_value(value) for value in values[:_SHOWN])
        some = shown if len(values) <= _SHOWN else f"{shown} or {len(values) - _SHOWN:,} more values"
        words = f"{'none' if 'not_be_in' in kind else 'one'} of {some}" if "values_to" in kind else f"the set {some}"
    elif "value" in kwargs or "sum_total" in kwargs:
        words = f"equal to {_value(kwargs.get('value', kwargs.get('sum_total')))}"
    elif "regex" in kwargs or "like_pattern" in kwargs:
        pattern = kwargs.get("regex", kwargs.get("like_pattern"))
        words = f"{'without' if 'not_match' in kind else 'with'} a match of {pattern}"
    elif "threshold" in kwargs:
        words = f"less than {_value(kwargs['threshold'])}"
    elif "strftime_format" in kwargs:
        words = f"of the form {kwargs['strftime_format']}"
    elif "other_table_name" in kwargs:
        words = f"as many rows as {kwargs['other_table_name']}"
    else:
        words = kind.removeprefix(_CONSTRUCTED).replace("_", " ")
    mostly = kwargs.get("mostly", 1)
    asked = isinstance(mostly, int | float) and mostly < 1
    return f"{words}, at least {_percent(float(mostly))} of them" if asked else words  # type: ignore[arg-type]


def _sentence(expectation: Expectation, kwargs: Mapping[str, JsonValue], found: Judgement) -> str:
    columns = ", ".join(expectation.columns)
    what = expectation.type + (f" on {columns}" if columns else "")
    if found.outcome is RuleOutcome.UNJUDGED:
        return f"{what}: {found.kind}" + (f" ({found.why})" if found.why else "")
    said = {
        NO_ROWS: f"there are no rows, so nothing is known of {what}",
        NONE_SELECTED: f"no row meets the condition of {what}",
        ONLY_NULL: f"there are only NULLs in {columns or 'what it looks at'}, so nothing is known of {what}",
        MISSING_COLUMN: f"column {found.why} is missing, which {what} looks at",
    }
    if found.kind in said:
        return said[found.kind]
    if isinstance(found.observed, list) and "other_table_name" in kwargs:
        here, there = found.observed
        return f"there are {_value(here)} rows, and {_value(there)} in {kwargs['other_table_name']}"
    if expectation.type in _SUBJECTS:
        observed = "" if found.observed is None else f" {_value(found.observed)},"
        return f"{_SUBJECTS[expectation.type].format(columns)} is{observed} not {bound(expectation.type, kwargs)}"
    if expectation.type == "unexpected_rows_expectation":
        about = expectation.meta.get("rule")
        rule = f" that break the rule {about!r}" if isinstance(about, str) else " that it should not find"
        return f"the query finds {_count(found.unexpected)} rows{rule}"
    if found.unexpected is None or found.total is None:
        return f"{what} does not hold"
    return f"{_count(found.unexpected)} of {_count(found.total)} {_verb(expectation, kwargs)}{_asked(kwargs, found)}"


def _verb(expectation: Expectation, kwargs: Mapping[str, JsonValue]) -> str:
    limit = bound(expectation.type, {name: value for name, value in kwargs.items() if name != "mostly"})
    columns = expectation.columns
    values = f"values of {columns[0]}" if len(columns) == 1 else f"rows ({', '.join(columns)})" if columns else "rows"
    if expectation.type == "expect_column_values_to_not_be_null":
        return f"{values} are NULL"
    return f"{values} are not {limit}"


def _asked(kwargs: Mapping[str, JsonValue], found: Judgement) -> str:
    share = (found.unexpected or 0) / found.total if found.total else 0.0
    mostly = kwargs.get("mostly", 1)
    asked = f"; at least {_percent(float(mostly))} asked for" if isinstance(mostly, float) and mostly < 1 else ""
    return f" ({_percent(share)}{asked})"


def _examples(suite: QualitySuite, keys: tuple[str, ...]) -> str:
    return f"; for example {', '.join(keys)}" if keys and suite.examples else ""


def _between(kwargs: Mapping[str, JsonValue]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    strict = (kwargs.get("strict_min"), kwargs.get("strict_max"))
    if low is not None and high is not None and not any(strict):
        return f"between {_value(low)} and {_value(high)}"
    words = []
    if low is not None:
        words.append(f"{'more than' if strict[0] else 'at least'} {_value(low)}")
    if high is not None:
        words.append(f"{'less than' if strict[1] else 'at most'} {_value(high)}")
    return " and ".join(words) or "within its ranges"


def _value(value: JsonValue | datetime) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}".removesuffix(".00")
    return repr(value) if isinstance(value, str) and not value[:4].isdigit() else str(value)


def _count(number: int | None) -> str:
    return f"{number or 0:,}"


def _percent(share: float) -> str:
    percent = round(share * 100, 10)
    return f"{percent:.2g} %" if percent < 1 else f"{percent:.6g} %" if percent > 99 else f"{percent:.3g} %"
