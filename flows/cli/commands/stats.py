"""The stats command: counts, sizes, durations and the share of good backups, by type."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime

from pydantic import JsonValue

from flows.cli import options
from flows.cli.output import note, say, say_json, say_lines
from flows.cli.running import open_plan
from flows.cli.tables import fields, grid
from flows.reading.stats import TypeNumbers, backup_stats, numbers_by_type
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes, human_seconds


def stats_arguments(command: ArgumentParser) -> None:
    """Declare what `stats` takes."""
    options.plan(command)
    options.json(command)


def stats(plan: str, *, json: bool) -> None:
    """Show how many backups of each type there are, how large, how long they took, and how many are good.

    A run that failed leaves no backup, so it is not counted; where runs are recorded, the Prefect UI has it.
    """
    opened = open_plan(plan)
    told, types = backup_stats(opened), numbers_by_type(opened)
    if json:
        say_json(told | {"types": {kind: one.model_dump(mode="json") for kind, one in types.items()}})
        return
    table = grid(
        "type", ">backups", ">stored", ">mean stored", ">mean size", ">mean time", ">longest", ">looked at", ">good"
    )
    table.columns[4].spare, table.columns[6].spare = 2, 1  # on a terminal that is too narrow
    for kind, one in types.items():
        table.add_row(kind, *_cells(one))
    say_lines(table, table)
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
        human_bytes(one.mean_size_stored),
        human_bytes(one.mean_size_bytes),
        human_seconds(one.mean_seconds),
        human_seconds(one.max_seconds),
        f"{one.looked_at:,}",
        "" if one.good_share is None else f"{one.good_share:.0%}",
    ]


COMMAND = options.Command("Show counts, sizes, durations and what is good, by type.", stats_arguments, stats)
