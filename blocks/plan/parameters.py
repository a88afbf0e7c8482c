"""What stands in `{"$PARAMETER": "..."}` of a quality suite: names of numbers and times, and arithmetic with them.

    expected_rows                       rows that the collection has by the manifest
    previous_rows                       rows that it had in the plan's backup before
    backup_timestamp                    the moment that the backup restores to, in UTC
    previous_verified.rows              rows in the newest earlier backup whose quality was proved good
    previous_verified.COLUMN.NUMBER     of a column there: nulls, null_share, distinct, min, max, mean

`blocks.plan.expression` says how they are computed with: `previous_rows * 0.9`, `backup_timestamp - 15m`. A column
whose name is no word is written `previous_verified["my column"].min`. Great Expectations has expressions of its own,
in which names have no dots and numbers are floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.plan.expression import Expression, Value

EXPECTED_ROWS = "expected_rows"
PREVIOUS_ROWS = "previous_rows"
BACKUP_TIMESTAMP = "backup_timestamp"
PREVIOUS_VERIFIED = "previous_verified"
PREVIOUS_VERIFIED_ROWS = f"{PREVIOUS_VERIFIED}.rows"
NAMES = (EXPECTED_ROWS, PREVIOUS_ROWS, BACKUP_TIMESTAMP, PREVIOUS_VERIFIED_ROWS)
"""The names that hold no column's."""
COLUMN_NUMBERS = ("nulls", "null_share", "distinct", "min", "max", "mean")
"""What `previous_verified.COLUMN.` may end with."""

_HINT = (
    f"Names are {', '.join(NAMES)} and {PREVIOUS_VERIFIED}.COLUMN.({' | '.join(COLUMN_NUMBERS)}), or "
    f'{PREVIOUS_VERIFIED}["COLUMN"].min; write for instance `previous_rows * 0.9` or `backup_timestamp - 15m`.'
)


@dataclass(frozen=True)
class Missing:
    """Stands for a number that is not known yet.

    Attributes:
        kind: Why not, in a few words that stay the same: "no earlier verification", "no earlier backup".
    """

    kind: str


class Unvalued(Exception):
    """An expression needs a number that is not known yet, which says nothing against the suite or the data.

    Attributes:
        name: The name that stands for it.
        kind: Why it is not known, in a few words that stay the same.
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"{name}: {kind}")
        self.name, self.kind = name, kind


def expressions(value: JsonValue) -> Iterator[str]:
    """Yield the expressions in the arguments of an expectation, however deep they stand.

    Raises:
        ConfigurationError: What stands in the place of one is no text, or something stands beside it.
    """
    if isinstance(value, dict) and "$PARAMETER" in value:
        text = value["$PARAMETER"]
        if not isinstance(text, str) or len(value) > 1:
            raise ConfigurationError('a parameter is {"$PARAMETER": "expression"} and nothing else', hint=_HINT)
        yield text
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from expressions(inner)


def names_in(value: JsonValue) -> frozenset[str]:
    """Return the names in all expressions of the arguments of an expectation.

    Raises:
        ConfigurationError: One is not written as it must be, or holds a name that is not known.
    """
    return frozenset(name for text in expressions(value) for name in _opened(text)[1].values())


def column_of(name: str) -> tuple[str, str] | None:
    """Return the column and the number that a name asks for; None for a name that holds no column's."""
    if name in NAMES:
        return None
    column, _, number = name.removeprefix(f"{PREVIOUS_VERIFIED}.").rpartition(".")
    return column, number


def evaluate(text: str, values: Mapping[str, Value | Missing]) -> JsonValue:
    """Compute an expression.

    Args:
        text: The expression.
        values: For each name in it a value.

    Returns:
        A whole number, a float, or a time as ISO 8601 text; a number that no float holds exactly is rounded to one.

    Raises:
        ConfigurationError: It is wrong, or does not fit the values (a time times a number).
        Unvalued: It needs a value that is `Missing`.
    """
    expression, names = _opened(text)

    def value_of(words: tuple[str, ...]) -> Value:
        value = values[names[words]]
        if isinstance(value, Missing):
            raise Unvalued(names[words], value.kind)
        return value

    try:
        result = expression.evaluate(value_of)
    except ValueError as exc:
        raise _wrong(text, str(exc)) from None
    if isinstance(result, timedelta):
        raise _wrong(text, "it is a length of time, no number and no time")
    if isinstance(result, date):
        return result.isoformat()
    if isinstance(result, Decimal):
        return int(result) if result == result.to_integral_value() else float(result)
    return result


def substituted(arguments: Mapping[str, JsonValue], values: Mapping[str, Value | Missing]) -> dict[str, JsonValue]:
    """Put values in the place of all expressions in the arguments of an expectation.

    Raises:
        ConfigurationError: As `evaluate` does.
        Unvalued: As `evaluate` does.
    """

    def put(value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            if "$PARAMETER" in value:
                return evaluate(next(expressions(value)), values)
            return {key: put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return {key: put(value) for key, value in arguments.items()}


def stand_ins(arguments: Mapping[str, JsonValue]) -> dict[str, Value]:
    """Return a value for each name in the arguments of an expectation, with which all that it says can be computed.

    It is for checks of a suite before there is any value. Whether the least and the greatest value of a column are
    numbers or times is found out by trying.

    Raises:
        ConfigurationError: No value makes sense of it.
    """
    asked, now = names_in(dict(arguments)), datetime.now(UTC)
    wrong: list[ConfigurationError] = []
    for extreme in (Decimal(1), now, now.date(), now.replace(tzinfo=None)):
        values = {name: _stand_in(name, now, extreme) for name in asked}
        try:
            substituted(arguments, values)
        except ConfigurationError as exc:
            wrong.append(exc)
        else:
            return values
    raise wrong[0]


def _stand_in(name: str, now: datetime, extreme: Value) -> Value:
    if name == BACKUP_TIMESTAMP:
        return now
    asked = column_of(name)
    return extreme if asked is not None and asked[1] in ("min", "max") else 1


def _opened(text: str) -> tuple[Expression, dict[tuple[str, ...], str]]:
    """Take an expression apart, and return the names in it by their words."""
    try:
        expression = Expression(text)
        return expression, {words: _known(words) for words in expression.names}
    except ValueError as exc:
        raise _wrong(text, str(exc)) from None


def _known(words: tuple[str, ...]) -> str:
    name = ".".join(words)
    if name in NAMES:
        return name
    if words[0] == PREVIOUS_VERIFIED and len(words) > 2:
        if words[-1] in COLUMN_NUMBERS:
            return name
        known = ", ".join(COLUMN_NUMBERS)
        raise ValueError(f"{words[-1]!r} is not known of a column, but {known}{_meant(words[-1], COLUMN_NUMBERS)}")
    raise ValueError(f"{name!r} is not known{_meant(name, NAMES)}")


def _meant(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _wrong(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"parameter {text!r}: {why}", hint=_HINT)
