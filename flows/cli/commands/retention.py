"""The retention command: remove the backups that the plan's policy no longer keeps."""

from __future__ import annotations

from argparse import ArgumentParser

from blocks.host.log_lines import told_of
from flows.cli import options
from flows.cli.manner import manner
from flows.cli.output import say, say_json, warn
from flows.cli.running import open_plan, run_reference, run_verb
from flows.cli.tables import Table, grid
from flows.pipeline.results import RetentionResult
from flows.reporting.units import human_bytes
from flows.retention import apply_retention
from flows.retention import retention as retention_flow


def retention_arguments(command: ArgumentParser) -> None:
    """Declare what `retention` takes."""
    options.plan(command)
    options.flag(command, "--dry-run", "Only report what would go, and why.")
    options.flag(command, "--accept-clock", "Go on although the storage, or what is on record, contradicts the clock.")
    options.flag(
        command, "--adopt", "Take backups of other sources (moved, upgraded) for the plan's own; once is enough."
    )
    options.no_server(command)
    options.json(command)


def retention(plan: str, *, dry_run: bool, accept_clock: bool, adopt: bool, no_server: bool, json: bool) -> None:
    """Remove the backups that the plan's policy no longer keeps, and what unfinished ones left behind."""
    opened = open_plan(plan)
    result = run_verb(
        retention_flow,
        lambda _: apply_retention(opened, dry_run, accept_clock=accept_clock, adopt=adopt),
        no_server,
        {"plan": run_reference(plan), "dry_run": dry_run, "accept_clock": accept_clock, "adopt": adopt},
    )
    if json:
        say_json(result.model_dump(mode="json"))
        return
    if not manner().quiet or result.dry_run:
        say(_retention_table(result))
        _say_retention(result)
    with told_of("retention"):
        for one in result.notes:
            warn(one)


def _retention_table(result: RetentionResult) -> Table:
    table = grid("id", "decision", ">stored", "why")
    table.columns[0].whole = True
    for one in result.decisions:
        goes = "would go" if result.dry_run else "removed"
        table.add_row(one.backup_id, goes if one.remove else "kept", human_bytes(one.size_stored), one.reason)
    return table


def _say_retention(result: RetentionResult) -> None:
    freed = human_bytes(sum(one.size_stored for one in result.removed))
    verb = "would be removed" if result.dry_run else "removed"
    say(f"\n{len(result.removed)} of {len(result.decisions)} backups {verb} ({freed})")
    if result.swept:
        say(f"{len(result.swept)} leftovers of unfinished runs removed")


COMMAND = options.Command("Remove what the plan's policy no longer keeps.", retention_arguments, retention)
