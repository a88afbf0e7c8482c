"""The stats command: counts, sizes, durations and the share of good backups, by type."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import datetime

from pydantic import JsonValue

from flows.cli import options
from flows.cli.output import note, say, say_json, say_lines
from flows.cli.running import open_plan
from flows.cli.tables import fields, grid
from flows.reading.stats import PlanStats, TypeNumbers
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes, human_seconds

_NUMBERS = (
    "backups", "stored", "mean stored", "mean size", "mean time", "longest", "looked at", "good", "runs", "succeeded"
)  # fmt: skip
_SPARED = {"mean size": 3, "longest": 2, "mean stored": 1}
"""Columns that a narrow terminal does without, the one with the highest number first."""


def stats_arguments(command: ArgumentParser) -> None:
    """Declare what `stats` takes."""
    options.plan(command)
    options.json(command)


def stats(plan: str, *, json: bool) -> None:
    """Show how many backups of each type there are, how large, how long they took, and how many are good.

    A run that failed leaves no backup; the share of runs that succeeded is what this machine's journal knows of.
    """
    found = PlanStats(open_plan(plan))
    told, types = found.totals(), found.by_type()
    if json:
        say_json(told | {"types": {kind: one.model_dump(mode="json") for kind, one in types.items()}})
        return
    table = grid("type", *(f">{name}" for name in _NUMBERS))
    for column in table.columns:
        column.spare = _SPARED.get(column.header, 0)
    for kind, one in types.items():
        table.add_row(kind, *_cells(one))
    say_lines(table, lambda: table)
    say("")
    say(
        fields(
            [
                ("backups", f"{told['total_backups']}"),
                ("oldest", _moment(told["oldest"], "")),
                ("newest", _moment(told["newest"], "")),
                ("verified", _moment(told["newest_verified"], "never")),
            ]
        )
    )
    findings = told["findings"]
    for finding in findings if isinstance(findings, list) else []:
        note(f"damaged: {finding}")


def _moment(text: JsonValue, absent: str) -> str:
    return local_time(datetime.fromisoformat(text)) if isinstance(text, str) else absent


def _cells(one: TypeNumbers) -> list[str]:
    return [
        f"{one.backups:,}",
        human_bytes(one.size_stored),
        _known(one.mean_size_stored, human_bytes),
        _known(one.mean_size_bytes, human_bytes),
        _known(one.mean_seconds, human_seconds),
        _known(one.max_seconds, human_seconds),
        f"{one.looked_at:,}",
        _known(one.good_share, percent),
        f"{one.runs:,}" if one.runs else "",
        _known(one.success_share, percent),
    ]


def _known(value: float | None, text: Callable[[float], str]) -> str:
    return "" if value is None else text(value)


def percent(share: float) -> str:
    """Return whole percents; 100 % is said of all of them only, and 0 % of none."""
    if share in (0, 1):
        return f"{share:.0%}"
    return f"{min(max(round(share * 100), 1), 99)}%"


COMMAND = options.Command("Show counts, sizes, durations and what is good, by type.", stats_arguments, stats)
