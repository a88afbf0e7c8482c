"""Metrics as text, in Prometheus' exposition format 0.0.4.

prometheus_client cannot write them: it appends `_total` to names of counters that are published without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


@dataclass
class Family:
    """One metric with all its series.

    Attributes:
        name: Its name.
        kind: Its type.
        meaning: What it says, for `HELP`.
        samples: What stands behind the name, the labels and the value of each series.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a series with one value."""
        self.samples.append(("", labels, value))

    def add_histogram(self, buckets: Mapping[float, int], total: float, bounds: Sequence[float], **labels: str) -> None:
        """Add a series of a histogram.

        Args:
            buckets: How many values lie below each upper bound, and above the one before; bounds may be others than
                those that are shown.
            total: Sum of all values.
            bounds: The upper bounds that are shown, ascending, without the infinite one.
            labels: Those of the series.
        """
        for bound in (*bounds, math.inf):
            below = sum(count for upper, count in buckets.items() if upper <= bound)
            self.samples.append(("_bucket", {**labels, "le": _number(bound)}, below))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, sum(buckets.values())))


def exposition(families: Iterable[Family]) -> str:
    """Write metrics as text; those without any series are left out."""
    return "".join(line for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    name = family.name
    meaning = family.meaning.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {meaning}\n# TYPE {name} {family.kind}\n"
    for suffix, labels, value in family.samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        shown = f"{{{told}}}" if told else ""
        yield f"{name}{suffix}{shown} {_number(value)}\n"


def _escaped(text: str) -> str:
    # names of files and places need not be Unicode
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
