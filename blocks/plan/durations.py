"""Spans of time as people write them in a plan: `90d`, `6mo`, `12h`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WRITTEN = re.compile(r"([0-9]+)\s*([A-Za-z]+)")
_DAY = timedelta(days=1)

_DAYS = {
    1: ("d", "day", "days"),
    7: ("w", "week", "weeks"),
    30: ("mo", "month", "months"),
    365: ("y", "year", "years"),
}
"""What a unit of an age counts in days: a month 30, a year 365, as ISO 8601 durations are read too."""


def unit(letter: str) -> timedelta:
    """Return the span that `s`, `m`, `h`, `d` or `w` stands for."""
    return timedelta(**{_UNITS[letter]: 1})


def parse_duration(value: object) -> object:
    """Read `90d`, `12h`, `15m`, `4w` or `30s`; anything else is left to pydantic (ISO 8601, a timedelta).

    A bare number is refused, because it does not say of what.
    """
    _refuse_bare_number(value)
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+)([smhdw])", value.strip())):
        return _span(int(match[1]), unit(match[2]))
    return value


def parse_age(value: object, read: ValidatorFunctionWrapHandler) -> timedelta:
    """Read how long a backup is kept: `90d`, `4w`, `6mo`, `1 year`, or what ISO 8601 or pydantic writes.

    What is written in units under a day is refused: `6m` would be six minutes, and the user meant months.
    """
    _refuse_bare_number(value)
    if isinstance(value, str) and (match := _WRITTEN.fullmatch(value.strip())):
        return _age(match[1], match[2].lower(), value)
    span: timedelta = read(value)
    if isinstance(value, str) and timedelta(0) < span < _DAY:
        raise ValueError(f"{value} is less than a day: how long backups are kept is counted in days, such as 7d")
    return span


def parse_window(value: object, read: ValidatorFunctionWrapHandler) -> timedelta:
    """Read a span as `parse_age` does, or of hours: `30d`, `4w`, `6mo`, `12h`."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+)\s*(?:h|hours?)", value.strip().lower())):
        return _span(int(match[1]), unit("h"))
    if isinstance(value, str) and (match := _WRITTEN.fullmatch(value.strip())):
        return _age(match[1], match[2].lower(), value)
    _refuse_bare_number(value)
    span: timedelta = read(value)
    return span


def format_duration(span: timedelta) -> str:
    """Write a duration as `parse_duration` reads it: a saved block holds `90d`, not a bare number."""
    for name in "dhms":
        if not span % unit(name):
            return f"{span // unit(name)}{name}"
    return f"PT{span.total_seconds():f}S"


def format_age(span: timedelta) -> str:
    """Write an age as `parse_age` reads it: whole days, or the form of ISO 8601."""
    days, rest = divmod(span, _DAY)
    return f"P{days}DT{rest.total_seconds():f}S" if rest else f"{days}d"


def _refuse_bare_number(value: object) -> None:
    if isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdigit()):
        raise ValueError(f"{value} needs a unit, for instance {value}d")


def _age(number: str, unit: str, written: str) -> timedelta:
    for days, spellings in _DAYS.items():
        if unit in spellings:
            return _span(int(number), timedelta(days=days))
    if unit in ("m", "min", "mins", "minute", "minutes"):
        raise ValueError(
            f"{written} would be minutes: write {number}mo for months, or days such as {int(number) * 30}d"
        )
    if unit in ("s", "h") or any(unit.startswith(word) for word in ("sec", "hour", "hr")):
        raise ValueError(f"{written}: how long backups are kept is counted in days or longer, such as 7d or 6mo")
    raise ValueError(f"{written} has no unit of time that is known: write d, w, mo or y, such as 90d or 6mo")


def _span(number: int, unit: timedelta) -> timedelta:
    try:
        return number * unit
    except OverflowError as exc:
        raise ValueError(f"{number} of these is longer than time can be counted") from exc


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("a duration must be longer than nothing")
    return value


def _at_least_an_hour(value: timedelta) -> timedelta:
    if value < timedelta(hours=1):
        raise ValueError("it must be an hour at least, such as 12h or 30d")
    return value


Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), AfterValidator(_positive), PlainSerializer(format_duration)
]

Age = Annotated[timedelta, WrapValidator(parse_age), AfterValidator(_positive), PlainSerializer(format_age)]
"""How long a backup is kept; a `timedelta` is taken as it is, text never means less than a day."""

Window = Annotated[
    timedelta, WrapValidator(parse_window), AfterValidator(_at_least_an_hour), PlainSerializer(format_duration)
]
"""Within what time something has to be done: an age, or hours; one at least."""
