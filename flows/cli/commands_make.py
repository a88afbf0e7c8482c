"""Commands that make backups: init, backup."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from blocks.manifest import BackupMetadata, BackupStatus, BackupType
from blocks.repository import RecoveryKit
from flows.backup import backup as backup_flow
from flows.backup import make_backup
from flows.cli import options
from flows.cli.console import note, say, say_json, stdout
from flows.cli.planning import open_plan, run_reference
from flows.cli.render import backup_json, changed, collections_table, fields
from flows.cli.running import run_verb
from flows.units import human_bytes, human_seconds, human_time

if TYPE_CHECKING:
    from rich.panel import Panel

_KIT_WIDTH = 110
"""Columns that the recovery kit needs for a key on one line."""

_KEEP = (
    "Print this or write it down, and keep it away from this machine: it is shown only this once. With the repository "
    "and this key anybody can restore; without any key nobody can. To use it, put the recovery key into a file that "
    "only you can read and name that file in the plan: encryption: {credential: {key_file: PATH}}."
)
_PLAIN = "The backups are not encrypted: whoever can read the repository can read them, and no key is needed."


def init_arguments(command: ArgumentParser) -> None:
    """Declare what `init` takes."""
    options.plan(command)
    options.json(command)


def init(plan: str, *, json: bool) -> None:
    """Create the repository and its keys, and print the recovery kit once."""
    opened = open_plan(plan)
    kit = opened.repository.initialize(opened.encryption)
    if json:
        say_json(_kit_json(kit))
    else:
        say(_kit_panel(kit))
        note(f"next: lastgood backup {plan}")


def _kit_panel(kit: RecoveryKit) -> Panel:
    # shown once in the life of a repository
    from rich.box import HORIZONTALS
    from rich.panel import Panel

    width = min(stdout().width, _KIT_WIDTH)
    rows = [("repository", kit.url), ("id", kit.repository_id), ("recovery key", _key_text(kit, width))]
    table = fields(rows)
    table.add_row("", "")
    table.add_row("what to do", _KEEP if kit.recovery_key else _PLAIN)
    # no lines at the sides, so that what is copied from the terminal is the key and nothing else
    return Panel(table.on_terminal(), title="lastgood recovery kit", box=HORIZONTALS, width=width)


def _key_text(kit: RecoveryKit, width: int) -> str:
    """Write the key on one line, or on two that break between groups; both are accepted when it is typed back."""
    groups = (kit.recovery_key or "").split("-")
    if width >= _KIT_WIDTH:
        return "-".join(groups)
    half = len(groups) // 2 + 1
    return "-".join(groups[:half]) + "\n" + "-".join(groups[half:])


def _kit_json(kit: RecoveryKit) -> JsonValue:
    return {
        "url": kit.url,
        "repository_id": kit.repository_id,
        "recovery_key": kit.recovery_key,
        "what_to_do": _KEEP if kit.recovery_key else _PLAIN,
    }


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
    options.no_server(command)
    options.json(command)


def backup(
    plan: str,
    *,
    backup_type: BackupType,
    tags: Sequence[str],
    wait: float,
    no_server: bool,
    json: bool,
) -> None:
    """Back up all sources of a plan, or none."""
    opened, tags = open_plan(plan), list(tags)
    made = run_verb(
        backup_flow,
        lambda progress: make_backup(opened, backup_type, tags, wait, progress),
        no_server,
        {"plan": run_reference(plan), "backup_type": backup_type, "tags": tags, "wait_seconds": wait},
    )
    if json:
        say_json(backup_json(made, BackupStatus.COMPLETED))
    else:
        _say_backup(made)


def _say_backup(made: BackupMetadata) -> None:
    if made.promoted_because:
        note(f"asked for {made.requested_type.value}, made {made.backup_type.value}: {made.promoted_because}")
    for source in made.sources:
        for warning in source.warnings:
            note(f"warning: {source.name}: {warning}")
    say(
        fields(
            [
                ("backup", made.backup_id),
                ("type", made.backup_type.value),
                ("state as of", human_time(made.timestamp)),
                ("base", made.base or "none, it stands alone"),
                ("rows", f"{made.rows:,}, changed {changed(made.upserts, made.tombstones)}"),
                ("stored", f"{human_bytes(made.size_stored)} of {human_bytes(made.size_bytes)}"),
                ("took", human_seconds(made.backup_duration_seconds)),
            ]
        )
    )
    say("")
    say(collections_table(made))
