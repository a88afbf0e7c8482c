"""What a workload found, as a table of text and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.measure import Ratio, Series, ratio_of

_HEAD = ("", "seconds", "range", "processor s", "stored MB", "peak MB")
_COLORS = ("#2f6f4f", "#b5651d", "#6b7a8f", "#8f6b8a")


@dataclass
class Outcome:
    """The result of one workload.

    Attributes:
        code: Its short name.
        title: What was measured.
        series: The contestants, ours first.
        bar: The ratio that must not be exceeded, where there is one.
        goal: The ratio to strive for.
        facts: Other numbers, each with what it is measured against.
        notes: What a reader has to know to judge the numbers.
    """

    code: str
    title: str
    series: list[Series] = field(default_factory=list)
    bar: float | None = None
    goal: float | None = None
    facts: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def best_peer(self) -> Series | None:
        """The quickest contestant that is not ours."""
        return min(self.series[1:], key=lambda one: one.seconds, default=None)

    @property
    def ratio(self) -> Ratio | None:
        """Ours against the best peer."""
        return ratio_of(self.series[0], self.best_peer) if self.best_peer else None

    def markdown(self) -> str:
        """Write the section of a report."""
        lines = [f"### {self.code}: {self.title}", ""]
        if self.series:
            lines += _table(_HEAD, [_cells(one) for one in self.series])
        if self.ratio and self.best_peer:
            against = f"bar {self.bar}, goal {self.goal}" if self.bar else "no bar"
            lines += [f"Ours / {self.best_peer.name}: **{self.ratio}**; {against}.", ""]
        if self.facts:
            lines += _table(("", "measured", "asked for"), self.facts)
        lines += [f"- {note}" for note in self.notes] + ([""] if self.notes else [])
        return "\n".join(lines)

    def picture(self) -> str:
        """Draw the medians as bars, with the range of the runs."""
        longest = max(run.seconds for one in self.series for run in one.runs)
        height = 46 + 34 * len(self.series)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif">',
            f'<rect width="760" height="{height}" fill="white"/>',
            f'<text x="12" y="22" font-size="14">{escape(f"{self.code}: {self.title}")} (seconds)</text>',
        ]
        for n, one in enumerate(self.series):
            parts += _bar(one, n, 430 / longest)
        return "\n".join([*parts, "</svg>", ""])


def _bar(one: Series, n: int, unit: float) -> list[str]:
    top, seconds = 36 + 34 * n, [run.seconds for run in one.runs]
    low, high = 190 + min(seconds) * unit, 190 + max(seconds) * unit
    label = f"{one.seconds:.2f} s, {one.peak_bytes / 1e6:.0f} MB"
    return [
        f'<text x="180" y="{top + 17}" font-size="13" text-anchor="end">{escape(one.name)}</text>',
        f'<rect x="190" y="{top}" width="{one.seconds * unit:.1f}" height="24" fill="{_COLORS[n % len(_COLORS)]}"/>',
        f'<path d="M{low:.1f} {top + 12}H{high:.1f}M{low:.1f} {top + 7}v10M{high:.1f} {top + 7}v10" stroke="black"/>',
        f'<text x="{high + 8:.1f}" y="{top + 17}" font-size="12">{label}</text>',
    ]


def _cells(one: Series) -> tuple[str, ...]:
    seconds = [run.seconds for run in one.runs]
    stored = "" if one.stored_bytes is None else f"{one.stored_bytes / 1e6:.1f}"
    return (
        one.name,
        f"{one.seconds:.2f}",
        f"{min(seconds):.2f}..{max(seconds):.2f}",
        f"{one.cpu_seconds:.2f}",
        stored,
        f"{one.peak_bytes / 1e6:.0f}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    top = "| " + " | ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)) + " |"
    return [top, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines, ""]
