"""Small charts: numbers that become the paths of an SVG, or an image for Markdown."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.verification import RuleOutcome

STEP = 7
"""Width of one verification."""
_MARK = 5
_LINE = 18
"""Height of a line."""

# top and height; shapes differ, so that nobody has to tell colours apart
_SHAPES: dict[RuleOutcome | None, tuple[int, int]] = {
    RuleOutcome.HOLDS: (11, 5),
    RuleOutcome.BROKEN: (0, 16),
    RuleOutcome.UNJUDGED: (5, 5),
    None: (15, 1),
}


@dataclass(frozen=True)
class Chart:
    """What an SVG is drawn from.

    Attributes:
        width: Of the drawing.
        height: Of the drawing.
        label: What it shows, in words.
        marks: By the name of an outcome (or `none`) the path of its marks.
        line: The path of a line; empty without one.
        end: Where the last value is, or None.
    """

    width: int
    height: int
    label: str
    marks: tuple[tuple[str, str], ...] = ()
    line: str = ""
    end: tuple[float, float] | None = None


def history_chart(outcomes: Sequence[RuleOutcome | None], values: Sequence[float | None], label: str) -> Chart:
    """Draw a mark for each verification and, where two numbers are known, a line of them below."""
    marks: dict[RuleOutcome | None, str] = {}
    for number, outcome in enumerate(outcomes):
        top, height = _SHAPES[outcome]
        marks[outcome] = marks.get(outcome, "") + f"M{number * STEP + 1} {top}h{_MARK}v{height}h-{_MARK}z"
    named = tuple((outcome.value if outcome else "none", path) for outcome, path in marks.items())
    line, end = _line(values, 20)
    return Chart(_width(outcomes), 20 + _LINE if line else 16, label, named, line, end)


def line_chart(values: Sequence[float | None], label: str) -> Chart | None:
    """Draw a line; None where there are not two numbers for one."""
    line, end = _line(values, 1)
    return Chart(_width(values), _LINE + 1, label, (), line, end) if line else None


def _width(values: Sequence[object]) -> int:
    return max(len(values) * STEP, STEP)


def _line(values: Sequence[float | None], top: int) -> tuple[str, tuple[float, float] | None]:
    """Return the path of a line, which has gaps where values are missing, and its end."""
    points = _points(values, top)
    if sum(point is not None for point in points) < 2:
        return "", None
    path, pen = "", "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        path, pen = f"{path}{pen}{point[0]:g} {point[1]:g}", "L"
    return path, next(point for point in reversed(points) if point is not None)


def _points(values: Sequence[float | None], top: int) -> list[tuple[float, float] | None]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return [None for _ in values]
    least, most = min(known), max(known)
    # halves first: the difference of two numbers may be more than the greatest one
    span = most / 2 - least / 2
    points: list[tuple[float, float] | None] = []
    for number, value in enumerate(values):
        if value is None or not math.isfinite(value):
            points.append(None)
            continue
        part = (value / 2 - least / 2) / span if span else 0.5
        points.append((number * STEP + 3.5, round(top + 2 + (1 - part) * (_LINE - 4), 1)))
    return points


def image(values: Sequence[float | None], wrong: Sequence[int]) -> str:
    """Draw a line of numbers above bars of counts, as the address of an image that Markdown can show.

    Args:
        values: Numbers by verification, oldest first.
        wrong: How many findings each had; the logarithm is shown, so that one is seen beside a thousand.
    """
    # the colours are seen on white and on black: an image knows nothing of the page that shows it
    line, _ = _line(values, 2)
    floor, width = _LINE + 20, _width(values)
    bars, none = "", ""
    for number, count in enumerate(wrong):
        height = round(min(16.0, 4 + 4 * math.log10(count)), 1) if count else 1
        bar = f"M{number * STEP + 1} {floor - height:g}h{_MARK}v{height:g}h-{_MARK}z"
        bars, none = (bars + bar, none) if count else (bars, none + bar)
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {floor + 2}" width="{width * 2}" '
        f'height="{(floor + 2) * 2}"><path d="{line}" fill="none" stroke="#3b82c4" stroke-width="1.5"/>'
        f'<path d="{bars}" fill="#d9534f"/><path d="{none}" fill="#8a949e"/></svg>'
    )
    return f"data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()}"
