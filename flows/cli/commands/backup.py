"""The backup command: back up all sources of a plan, or none."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.records import BackupMetadata, BackupType
from blocks.repository.verdict import Verdict
from flows.backup import backup as backup_flow
from flows.backup import make_backup
from flows.cli import options
from flows.cli.given_state import read_given_state
from flows.cli.manner import manner
from flows.cli.output import fields, remark, say, say_json, warn
from flows.cli.render import backup_json, changed, collections_table, held_log
from flows.cli.running import open_plan, run_reference, run_verb
from flows.reading.state import plan_of_given
from flows.reporting.moments import local_time
from flows.reporting.units import human_bytes, human_seconds


def backup_arguments(command: ArgumentParser) -> None:
    """Declare what `backup` takes."""
    options.plan(command)
    options.kind(
        command,
        "--type",
        BackupType,
        "What to make, incremental if not given; where it needs a base and finds none it becomes a full one.",
        dest="backup_type",
        default=BackupType.INCREMENTAL,
    )
    options.values(command, "--tag", "WORD", "A word to keep with it; may be repeated.", dest="tags")
    options.value(
        command, "--wait", "SECONDS", "How long to wait where another run holds the plan.", type=float, default=0.0
    )
    options.value(
        command, "--state", "FILE", "State to back up in place of the live sources: a JSON object, or - for stdin."
    )
    options.no_server(command)
    options.json(command)


def backup(
    plan: str,
    *,
    backup_type: BackupType,
    tags: Sequence[str],
    wait: float,
    state: str | None,
    no_server: bool,
    json: bool,
) -> None:
    """Back up all sources of a plan, or none."""
    given = read_given_state(state) if state is not None else None
    opened, tags = open_plan(plan), list(tags)
    if given is not None:
        opened = plan_of_given(opened, given)
    made = run_verb(
        backup_flow,
        lambda progress: make_backup(opened, backup_type, tags, wait, progress),
        no_server or given is not None,  # a run in Prefect would have to keep the state as a parameter
        {"plan": run_reference(plan), "backup_type": backup_type, "tags": tags, "wait_seconds": wait},
    )
    _warn(made)
    if json:
        say_json(backup_json(made, Verdict()))
    elif manner().watched:
        _say_backup(made)
    elif not manner().quiet:
        _say_briefly(made)


def _warn(made: BackupMetadata) -> None:
    if made.clock_doubt:
        warn(made.clock_doubt)
    for source in made.sources:
        for warning in source.warnings:
            warn(f"{source.name}: {warning}")


def _say_briefly(made: BackupMetadata) -> None:
    """Say in a line what was made, for a log or a mail."""
    why = f" ({made.promoted_because})" if made.promoted_because else ""
    kind, changes = f"{made.backup_type.value}{why}", changed(made.upserts, made.tombstones)
    stored, took = human_bytes(made.size_stored), human_seconds(made.backup_duration_seconds)
    say(f"backup {made.backup_id}: {kind}, {made.rows:,} rows, {changes}, stored {stored}, took {took}")


def _say_backup(made: BackupMetadata) -> None:
    if made.promoted_because:
        remark(f"asked for {made.requested_type.value}, made {made.backup_type.value}: {made.promoted_because}")
    for source in made.sources:
        if held := held_log(source):
            remark(f"{source.name}: {held}")
    say(
        fields(
            [
                ("backup", made.backup_id),
                ("type", made.backup_type.value),
                ("state as of", local_time(made.timestamp)),
                ("base", made.base or "none, it stands alone"),
                ("rows", f"{made.rows:,}, changed {changed(made.upserts, made.tombstones)}"),
                ("stored", f"{human_bytes(made.size_stored)} of {human_bytes(made.size_bytes)}"),
                ("took", human_seconds(made.backup_duration_seconds)),
            ]
        )
    )
    say("")
    say(collections_table(made))


COMMAND = options.Command("Back up all sources of a plan, or none.", backup_arguments, backup)
