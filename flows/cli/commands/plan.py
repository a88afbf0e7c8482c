"""The plan group of commands: keep plans where the Prefect UI can pick them."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from blocks.errors import ConfigurationError
from blocks.plan.plan import read_plan
from flows.cli import options
from flows.cli.output import say, say_json
from flows.cli.running import answering_server


def save_plan_arguments(command: ArgumentParser) -> None:
    """Declare what `plan save` takes."""
    command.add_argument("plan", metavar="PLAN", help="Path of a YAML plan.")
    options.value(command, "--name", "NAME", "Name of the block; that of the plan if not given.")
    options.json(command)


def save_plan(plan: str, *, name: str | None, json: bool) -> None:
    """Save a plan as a Backup Plan block, so that the Prefect UI can pick it; a block of that name is replaced."""
    opened = read_plan(Path(plan))
    server = answering_server()
    if server is None:
        raise ConfigurationError(
            "no Prefect server answers, so the plan cannot be saved there",
            hint="Start one with `prefect server start` and set PREFECT_API_URL, or go on using the file.",
        )
    block = name or opened.name
    try:
        opened.save(block, overwrite=True, _sync=True)
    except ValueError as exc:
        raise ConfigurationError(
            f"the plan cannot be saved as {block!r}: {exc}",
            hint="Names of blocks have letters, digits and dashes: give one with --name.",
        ) from exc
    if json:
        say_json({"block": f"backup-plan/{block}", "plan": opened.name, "server": server})
    else:
        say(f"plan {opened.name} is saved as the block backup-plan/{block} at {server}")


COMMANDS = {"save": options.Command("Save a plan as a Backup Plan block.", save_plan_arguments, save_plan)}
