"""Arithmetic with names, as it stands in a quality suite: numbers, times and lengths of time.

    sum      = term { ("+" | "-") term }     term = factor { ("*" | "/") factor }     factor = ["-"] atom
    atom     = name | number | length | function "(" sum { "," sum } ")" | "(" sum ")"
    length   = 30s, 15m, 2h, 3d, 1w, or timedelta(minutes=15)
    function = abs, max, min, round, trunc

Python's own parser takes it apart, and nothing of it is run. Numbers are decimal and exact, times keep their zone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Context, Decimal, localcontext
from math import isfinite
from typing import Any

from blocks.plan.durations import unit

MAX_CHARACTERS = 1000
"""Longest expression: one of any length could be nested deeper than Python can follow."""

Value = int | float | Decimal | date | timedelta
"""What a name or an expression stands for; `date` includes `datetime`."""

_LENGTH = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?<![\w.])([0-9]+(?:\.[0-9]+)?)([smhdw])\b""")
_SECONDS = "_seconds"
_DIGITS = 60
"""Enough for the decimals of databases as they occur, and for a share of them."""


class Expression:
    """An expression, taken apart.

    Args:
        text: As it is written.

    Attributes:
        names: Each name in it as its words: `a.b` and `a["b"]` are both ("a", "b").

    Raises:
        ValueError: It is not written like that; says why.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
        if _SECONDS in text:
            raise ValueError(f"{_SECONDS} is not known")
        try:
            self._tree = ast.parse(_LENGTH.sub(_in_seconds, text.strip()), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise ValueError("it cannot be read") from None
        self.names = frozenset(leaf for leaf in _leaves(self._tree) if isinstance(leaf, tuple))

    def evaluate(self, value_of: Callable[[tuple[str, ...]], Value]) -> Value:
        """Compute it.

        Args:
            value_of: Returns the value of a name.

        Raises:
            ValueError: It does not fit the values; says why.
        """
        with localcontext(Context(prec=_DIGITS)):
            try:
                return _value(self._tree, value_of)
            except ZeroDivisionError:
                raise ValueError("it divides by zero") from None
            except TypeError as exc:
                raise ValueError(str(exc)) from None
            except ArithmeticError:
                raise ValueError("its result is too large") from None


def _in_seconds(found: re.Match[str]) -> str:
    """Write a length of time in seconds, which Python can read; what stands in quotes is a name."""
    if found[1]:
        return found[1]
    return f"{_SECONDS}({Decimal(found[2]) * int(unit(found[3]).total_seconds())})"


def _leaves(node: ast.expr) -> Iterator[tuple[str, ...] | Decimal | int]:
    """Yield the names and numbers of an expression, and refuse all that is none."""
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            yield from _leaves(left)
            yield from _leaves(right)
        case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
            yield from _leaves(operand)
        case ast.Call(ast.Name(function), arguments, words) if function in _FUNCTIONS:
            for inner in (*arguments, *(word.value for word in words)):
                yield from _leaves(inner)
        case ast.Call(ast.Name("now")):
            raise ValueError("now() is not known: a backup would be good or bad by when it is looked at")
        case ast.Call():
            known = ", ".join(sorted(_FUNCTIONS.keys() - {_SECONDS}))
            raise ValueError(f"there is no such function; there are {known}")
        case _:
            yield _leaf(node)


def _leaf(node: ast.expr) -> tuple[str, ...] | Decimal | int:
    match node:
        case ast.Constant(int() as number) if not isinstance(number, bool):
            return number
        case ast.Constant(float() as number) if isfinite(number):
            return Decimal(repr(number))
        case ast.Name(name):
            return (name,)
        case ast.Attribute(inner, name) | ast.Subscript(inner, ast.Constant(str() as name)):
            before = _leaf(inner)
            if isinstance(before, tuple):
                return (*before, name)
    raise ValueError("it holds what is no name, no number and none of + - * / ( )")


def _value(node: ast.expr, value_of: Callable[[tuple[str, ...]], Value]) -> Value:
    match node:
        case ast.BinOp(left, operator, right):
            return _computed(type(operator), _value(left, value_of), _value(right, value_of))
        case ast.UnaryOp(ast.UAdd(), operand):
            return _value(operand, value_of)
        case ast.UnaryOp(_, operand):
            return _computed(ast.Mult, -1, _value(operand, value_of))
        case ast.Call(ast.Name(function), arguments, words):
            values = [_value(inner, value_of) for inner in arguments]
            named = {str(word.arg): _value(word.value, value_of) for word in words}
            return _called(function, values, named)
    leaf = _leaf(node)
    value = value_of(leaf) if isinstance(leaf, tuple) else leaf
    return Decimal(repr(value)) if isinstance(value, float) else value


def _called(function: str, values: list[Value], named: dict[str, Value]) -> Value:
    try:
        result: Value = _FUNCTIONS[function](*values, **named)
    except TypeError:
        raise TypeError(
            f"{'a length of time' if function == _SECONDS else function} is not written like that"
        ) from None
    return result


def _computed(operator: type[ast.operator], one: Value, other: Value) -> Value:
    for moment, length in ((one, other), (other, one)):
        whole_day = isinstance(moment, date) and not isinstance(moment, datetime)
        if whole_day and isinstance(length, timedelta) and length % timedelta(days=1):
            raise TypeError("a date has no time of day: add or take whole days")
    # lengths of time are multiplied by floats only
    first, second = _beside(one, other), _beside(other, one)
    if isinstance(first, int) and isinstance(second, int):
        first = Decimal(first) if operator is ast.Div else first
    symbol, compute = _OPERATORS[operator]
    try:
        result: Value = compute(first, second)
    except TypeError:
        raise TypeError(f"{_kind(one)} {symbol} {_kind(other)} has no meaning") from None
    return result


def _beside(one: Value, other: Value) -> Value:
    return float(one) if isinstance(one, Decimal) and isinstance(other, timedelta) else one


def _kind(value: Value) -> str:
    match value:
        case datetime():
            return "a time" if value.tzinfo else "a time without zone"
        case date():
            return "a date"
        case timedelta():
            return "a length of time"
    return "a number"


_OPERATORS: Mapping[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.Div: ("/", lambda a, b: a / b),
}


def _timedelta(**lengths: Any) -> timedelta:
    return timedelta(**{name: float(number) for name, number in lengths.items()})


def _round(number: Any, digits: Any = 0) -> Decimal:
    return round(Decimal(number), int(digits))


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    _SECONDS: lambda number: timedelta(seconds=float(number)),
    "abs": abs,
    "max": max,
    "min": min,
    "round": _round,
    "timedelta": _timedelta,
    "trunc": lambda number: int(Decimal(number)),
}
