"""The accept command: a person says that suspicious backups are right. It needs no Prefect server."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from pydantic import JsonValue

from flows.accept import accept_suspicions
from flows.cli import options
from flows.cli.output import note, say, say_json
from flows.cli.running import open_plan


def accept_arguments(command: ArgumentParser) -> None:
    """Declare what `accept` takes."""
    options.plan(command)
    command.add_argument(
        "backups",
        metavar="BACKUP",
        nargs="*",
        default=(),  # else one that misses the plan is told that these are missing, too
        help="Ids of suspicious backups, or their ends; all of them if none.",
    )
    options.json(command)


def accept(plan: str, backups: Sequence[str], *, json: bool) -> None:
    """Say that what is suspicious about backups is right: retention then treats them, and those before, as all others.

    It is put on record for good. Nothing is removed by it.
    """
    opened = open_plan(plan)
    found = accept_suspicions(opened, backups)
    if json:
        accepted: list[JsonValue] = [{"id": one.backup_id, "suspicions": list(one.suspicions)} for one in found]
        say_json({"plan": opened.name, "accepted": accepted})
        return
    for one in found:
        say(f"accepted: {one.backup_id}")
        for sentence in one.suspicions:
            say(f"  {sentence}")
    if not found:
        note(f"no {'such ' if backups else ''}backup of plan {opened.name} is suspicious and not accepted yet")


COMMAND = options.Command("Say that what is suspicious about backups is right.", accept_arguments, accept)
