"""A first quality suite for a collection, from what a backup and some before it hold.

Bounds are set outside of all that was seen: a suite holds on the backup that it was made from. What it says is what
seems to be so; a person reads it, and says more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import pairwise
from statistics import fmean, stdev

from pydantic import JsonValue

from blocks.plan.parameters import BACKUP_TIMESTAMP, PREVIOUS_ROWS, PREVIOUS_VERIFIED, PREVIOUS_VERIFIED_ROWS
from blocks.verification import CollectionProfile, ColumnProfile
from flows.proving.column_facts import ENOUGH_ROWS, FEW_VALUES, FORMATS, ISO_TIME, MOJIBAKE, TextFacts
from flows.proving.profile import EXACT_ROWS, Kind, read_value

Rule = dict[str, JsonValue]

AHEAD = timedelta(minutes=5)
"""How far clocks may be apart: a time so long after the backup is none from the future."""
_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_AGES = [
    *(15 * _MINUTE, 30 * _MINUTE, _HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY),
]
"""How old the newest time may be, in steps that people would write."""
_FRESH = 10 * _DAY
"""Columns whose newest time is older say nothing of how fresh a backup is."""
_AMOUNTS = (ISO_TIME, "ISO date", "decimal number")
"""Formats of text that is unique by chance."""
_MOMENTS = ("expires_ms", "mtime_ns")
"""Numbers that are times: they go on with the clock, so that no bounds of theirs hold for long."""
_STEADY = 3
"""From how many backups on a number of them is believed to be steady."""


@dataclass(frozen=True)
class Seen:
    """A backup, as far as it says what a collection should look like.

    Attributes:
        timestamp: The moment that it restores to.
        profile: Numbers of the collection.
    """

    timestamp: datetime
    profile: CollectionProfile


@dataclass(frozen=True)
class Evidence:
    """What a suite is made from.

    Attributes:
        head: What the suite is about, as its file has it: `name`, `collection`, and where it is so `keys` and `format`.
        key: Columns that identify a row.
        tracking: Columns that only show that a row changed, of which nothing is said.
        kinds: By column what can be said of its values.
        seen: The backup, then earlier ones, newest first.
        rows: Rows of the collection in the backup and all before it in a row, newest first.
        texts: By column of text, what its values have in common.
        pairs: Columns of which the first is never less than the second.
        mixed: Columns that hold values which are not of the type that most of them have, of which nothing is said.
    """

    head: Mapping[str, JsonValue]
    key: Sequence[str]
    kinds: Mapping[str, Kind]
    seen: Sequence[Seen]
    rows: Sequence[int]
    tracking: Sequence[str] = ()
    texts: Mapping[str, TextFacts] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    mixed: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether it is about all rows of a collection, as the manifest counts them."""
        return self.head.keys() <= {"name", "collection"}

    @property
    def profile(self) -> CollectionProfile:
        """The numbers of the backup itself."""
        return self.seen[0].profile

    def of(self, column: str) -> list[tuple[Seen, ColumnProfile]]:
        """Return the backups that have a column with rows, newest first, and its numbers there."""
        return [(one, one.profile.columns[column]) for one in self.seen if column in one.profile.columns]

    @property
    def columns(self) -> list[str]:
        """Columns that a rule may be about: those of data of one type, not what only shows that a row changed."""
        return [name for name in self.profile.columns if name not in self.tracking and name not in self.mixed]


def suggested(evidence: Evidence) -> dict[str, JsonValue]:
    """Return a suite as its file has it."""
    rules = [*_row_count(evidence), *_keys(evidence)]
    for column in evidence.columns:
        rules += [*_nulls(evidence, column), *_values(evidence, column)]
    rules += [
        _rule(
            "expect_column_pair_values_a_to_be_greater_than_b",
            f"it never is less in {evidence.profile.rows:,} rows",
            column_A=one,
            column_B=other,
            or_equal=True,
        )
        for one, other in evidence.pairs
        if {one, other} <= {*evidence.columns}
    ]
    types: dict[str, JsonValue] = {
        column: "timestamp" for column in evidence.columns if column in evidence.texts and evidence.texts[column].times
    }
    expectations: list[JsonValue] = [*rules]
    said: dict[str, JsonValue] = {"types": types} if types else {}
    if not evidence.profile.rows:
        said["may_be_empty"] = True
    return {**evidence.head, **said, "expectations": expectations}


def _rule(type: str, why: str, /, severity: str = "critical", **arguments: JsonValue) -> Rule:
    more: Rule = {} if severity == "critical" else {"severity": severity}
    given: dict[str, JsonValue] = {name: value for name, value in arguments.items() if value is not None}
    return {"type": type, "kwargs": given, **more, "meta": {"why": why}}


def _parameter(text: str) -> JsonValue:
    return {"$PARAMETER": text}


def _row_count(evidence: Evidence) -> Iterator[Rule]:
    rows = evidence.rows
    pairs = [(now, before) for now, before in pairwise(rows) if before]
    if not pairs or not rows[1]:
        if rows[0]:
            yield _rule("expect_table_row_count_to_be_between", f"half of {rows[0]:,} rows", min_value=-(-rows[0] // 2))
        return
    least, most = min(now / before for now, before in pairs), max(now / before for now, before in pairs)
    before_it = PREVIOUS_ROWS if evidence.whole else PREVIOUS_VERIFIED_ROWS
    if least >= 1 and len(pairs) >= _STEADY:
        lower = before_it
    else:
        share = max(min(least, 1) - max(0.05, (1 - min(least, 1)) / 2), 0)
        lower = f"trunc({before_it} * {_down(share)})"
    upper = max(most, 1) + max(0.25, 2 * (max(most, 1) - 1))
    yield _rule(
        "expect_table_row_count_to_be_between",
        f"{_down(least)} to {_up(most)} times the rows of the backup before, in {len(rows)} backups",
        min_value=_parameter(lower),
        max_value=_parameter(f"round({before_it} * {_up(upper)}) + 10"),
    )


def _keys(evidence: Evidence) -> Iterator[Rule]:
    key = evidence.key
    if not key or not {*key} <= {*evidence.columns}:
        return
    distinct = evidence.profile.columns[key[0]].distinct
    if len(key) == 1 and distinct is not None and distinct < 0.9 * evidence.profile.rows:
        return  # the path of a file with many lines
    if len(key) == 1:
        yield _rule("expect_column_values_to_be_unique", "the key", column=key[0])
    else:
        yield _rule("expect_compound_columns_to_be_unique", "the key", column_list=[*key])


def _nulls(evidence: Evidence, column: str) -> Iterator[Rule]:
    shares = [numbers.nulls / one.profile.rows for one, numbers in evidence.of(column) if one.profile.rows]
    if not shares or min(shares) == 1:
        return
    if max(shares) == 0:
        yield _rule("expect_column_values_to_not_be_null", f"no NULL in {_backups(shares)}", column=column)
        return
    most = max(shares)
    allowed = most + max(0.005, most / 4, most - min(shares))
    if allowed < 1:
        why = f"at most {_percent(most)} NULL in {_backups(shares)}"
        yield _rule("expect_column_values_to_not_be_null", why, column=column, mostly=_down(1 - allowed))


def _values(evidence: Evidence, column: str) -> Iterator[Rule]:
    if not evidence.profile.columns[column].distinct:
        return
    unique = _is_unique(evidence, column)
    if unique and [*evidence.key] != [column]:
        why = f"no value twice in {evidence.profile.rows:,} rows"
        yield _rule("expect_column_values_to_be_unique", why, column=column)
    match evidence.kinds[column]:
        case Kind.NUMBER if column in _MOMENTS:
            return
        case Kind.NUMBER | Kind.FLOAT:
            yield from _range(evidence, column, counting=unique or column in evidence.key)
        case Kind.TIME | Kind.LOCAL_TIME | Kind.DATE:
            yield from _times(column, _moments(evidence, column), evidence.kinds[column] is Kind.DATE)
        case Kind.TEXT if column in evidence.texts:
            yield from _texts(evidence, column, evidence.texts[column], unique)


def _is_unique(evidence: Evidence, column: str) -> bool:
    """Whether a column that names things (numbers or text, not amounts or times) never held a value twice."""
    facts = evidence.texts.get(column)
    if facts is not None and facts.format in _AMOUNTS:
        return False
    whole = [read_value(numbers.minimum) for _, numbers in evidence.of(column)]
    naming = evidence.kinds[column] is Kind.TEXT or all(isinstance(one, int) for one in whole)
    if not naming or evidence.kinds[column] not in (Kind.TEXT, Kind.NUMBER) or evidence.profile.rows < ENOUGH_ROWS:
        return False
    each = evidence.of(column)
    # of many rows distinct values are estimated
    near = 0.9 if evidence.profile.rows > EXACT_ROWS else 1
    return all((one.distinct or 0) >= near * (seen.profile.rows - one.nulls) > 0 for seen, one in each)


def _range(evidence: Evidence, column: str, counting: bool) -> Iterator[Rule]:
    """Yield bounds of numbers, half of what they span outside of it, and a band of their mean.

    Args:
        evidence: What was seen.
        column: The column.
        counting: Its numbers only go up, so that nothing is said of the greatest.
    """
    each = [
        (low, high, numbers.mean)
        for _, numbers in evidence.of(column)
        if (low := _decimal(numbers.minimum)) is not None and (high := _decimal(numbers.maximum)) is not None
    ]
    if not each:
        return
    least, most = min(low for low, _, _ in each), max(high for _, high, _ in each)
    why = f"{_plain(least)} to {_plain(most)} in {_backups(each)}"
    kind = "expect_column_values_to_be_between"
    if counting:
        if least >= 0:
            yield _rule(kind, why, column=column, min_value=min(1, int(least)))
        return
    span = most - least
    truth = {least, most} <= {Decimal(0), Decimal(1)}
    margin = Decimal(0) if truth else (span or abs(most)) / 2
    # what never was negative does not become so
    lower = least - margin if least < 0 else max(least - margin, Decimal(0))
    upper = most + margin if most > 0 else min(most + margin, Decimal(0))
    strictly = True if least > 0 and not lower else None
    yield _rule(
        kind,
        why,
        column=column,
        min_value=_rounded(lower, margin, ROUND_FLOOR),
        max_value=_rounded(upper, margin, ROUND_CEILING),
        strict_min=strictly,
    )
    means = [mean for _, _, mean in each if mean is not None]
    if means and margin:
        yield _mean(column, means, float(span))


def _mean(column: str, means: Sequence[float], span: float) -> Rule:
    """Return a band of a mean: around those that were seen, or around the last good one where it only ever went up."""
    steady, middle = len(means) >= _STEADY, fmean(means)
    steps = [now - before for now, before in pairwise(means)]
    why = f"{min(means):.6g} to {max(means):.6g} in {_backups(means)}"
    kind = "expect_column_mean_to_be_between"
    if steady and (min(steps) > 0 or max(steps) < 0) and abs(means[0] - means[-1]) > 0.1 * abs(middle):
        size = Decimal(repr(max(3 * max(map(abs, steps)), 0.1 * abs(middle))))
        margin = _rounded(size, size, ROUND_CEILING)
        before = f"{PREVIOUS_VERIFIED}[{json.dumps(column, ensure_ascii=False)}].mean"
        low, high = _parameter(f"{before} - {margin}"), _parameter(f"{before} + {margin}")
        return _rule(kind, f"{why}, in one direction", column=column, min_value=low, max_value=high)
    around = max(3 * stdev(means), 0.1 * abs(middle), 0.02 * span) if steady else max(abs(middle) / 4, span / 10)
    around += max(abs(mean - middle) for mean in means)
    size = Decimal(repr(around))
    return _rule(
        kind,
        why,
        severity="critical" if steady else "warning",
        column=column,
        min_value=_rounded(Decimal(repr(middle - around)), size, ROUND_FLOOR),
        max_value=_rounded(Decimal(repr(middle + around)), size, ROUND_CEILING),
    )


Moments = Sequence[tuple[datetime, datetime, datetime]]
"""For each backup its own time, and the first and the last of a column."""


def _moments(evidence: Evidence, column: str) -> Moments:
    """Return the times of a column; those without zone are taken for UTC, days for their beginning."""
    return [
        (seen.timestamp, low, high)
        for seen, numbers in evidence.of(column)
        if (low := _moment(numbers.minimum)) is not None and (high := _moment(numbers.maximum)) is not None
    ]


def _moment(kept: JsonValue) -> datetime | None:
    value = read_value(kept)
    if not isinstance(value, date):
        return None
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _times(column: str, each: Moments, days: bool) -> Iterator[Rule]:
    """Yield bounds of times; how fresh the newest is, where it never is from the future and never is old.

    Args:
        column: The column.
        each: What was seen of it.
        days: They are days.
    """
    if not each:
        return
    first, last, ahead = min(low for _, low, _ in each), max(high for _, _, high in each), _DAY if days else AHEAD
    ages = [timestamp - high for timestamp, _, high in each]
    kind, why = "expect_column_values_to_be_between", f"{first:%Y-%m-%d %H:%M} is the first in {_backups(each)}"
    if min(ages) < -ahead:  # times to come: of an expiry, say
        margin = max(last - first, _DAY)
        bounds = {"min_value": _text(first - margin, days), "max_value": _text(last + margin, days)}
        yield _rule(kind, f"{why}, {last:%Y-%m-%d %H:%M} the last", column=column, **bounds)
        return
    latest = _parameter(f"{BACKUP_TIMESTAMP} + {_span(ahead)}")
    why = f"{why}, none after the backup"
    yield _rule(kind, why, column=column, min_value=_text(first, days), max_value=latest)
    if max(ages) > _FRESH:
        return
    wanted = max(3 * max(ages), 2 * _DAY if days else _AGES[0])
    allowed = next((age for age in _AGES if age >= wanted), _AGES[-1])
    newest = _parameter(f"{BACKUP_TIMESTAMP} - {_span(allowed)}")
    why = f"the newest was at most {_minutes(max(ages))} old in {_backups(each)}"
    yield _rule("expect_column_max_to_be_between", why, column=column, min_value=newest)


def _text(moment: datetime, days: bool) -> str:
    return moment.date().isoformat() if days else moment.isoformat()


def _texts(evidence: Evidence, column: str, facts: TextFacts, unique: bool) -> Iterator[Rule]:
    distinct = [numbers.distinct or 0 for _, numbers in evidence.of(column)]
    few = evidence.profile.rows >= ENOUGH_ROWS and max(distinct) <= FEW_VALUES and not unique
    if facts.values:
        why = f"these are all in {evidence.profile.rows:,} rows"
        yield _rule("expect_column_values_to_be_in_set", why, column=column, value_set=[*facts.values])
        return
    if facts.times is not None:
        yield from _times(column, [(evidence.seen[0].timestamp, *facts.times)], days=False)
        return
    if facts.format == "JSON":
        yield _rule("expect_column_values_to_be_json_parseable", "all are JSON", column=column)
    elif facts.format is not None:
        why = f"each is of the form: {facts.format}"
        yield _rule("expect_column_values_to_match_regex", why, column=column, regex=FORMATS[facts.format])
    elif facts.clean:
        why = "no text was read in a wrong encoding"
        yield _rule("expect_column_values_to_not_match_regex", why, column=column, regex=MOJIBAKE)
    if facts.shortest and (facts.format is None or facts.format.endswith("word")):
        same = facts.shortest == facts.longest and min(distinct) > FEW_VALUES
        yield _rule(
            "expect_column_value_lengths_to_be_between",
            f"{facts.shortest:,} to {facts.longest:,} characters",
            column=column,
            min_value=facts.shortest if same else max(facts.shortest // 2, 1),
            max_value=facts.longest if same else 2 * facts.longest,
        )
    if few:
        why = f"{min(distinct)} to {max(distinct)} values in {_backups(distinct)}"
        kind = "expect_column_unique_value_count_to_be_between"
        yield _rule(kind, why, column=column, min_value=-(-min(distinct) // 2), max_value=2 * max(distinct))


def _decimal(kept: JsonValue) -> Decimal | None:
    value = read_value(kept)
    if value is None or isinstance(value, date | timedelta):
        return None
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def _rounded(value: Decimal, margin: Decimal, direction: str) -> JsonValue:
    """Round a bound to two digits of the margin that it has, away from the values."""
    step = Decimal(1).scaleb(margin.adjusted() - 1) if margin else Decimal(1)
    rounded = (value / step).to_integral_value(rounding=direction) * step
    return int(rounded) if rounded == rounded.to_integral_value() else float(rounded)


def _down(share: float) -> float:
    return float(Decimal(repr(share)).quantize(Decimal("0.001"), rounding=ROUND_FLOOR))


def _up(share: float) -> float:
    return float(Decimal(repr(share)).quantize(Decimal("0.001"), rounding=ROUND_CEILING))


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def _plain(number: Decimal) -> str:
    return f"{number:.6g}"


def _backups(seen: Sequence[object]) -> str:
    return f"{len(seen)} backups" if len(seen) > 1 else "one backup"


def _span(length: timedelta) -> str:
    """Write a length of time as expressions have it."""
    for letter, size in (("d", _DAY), ("h", _HOUR)):
        if not length % size:
            return f"{length // size}{letter}"
    return f"{length // _MINUTE}m"


def _minutes(age: timedelta) -> str:
    minutes = max(age // _MINUTE, 0)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
