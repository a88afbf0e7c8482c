"""Commands around Prefect: plan save, serve, demo. What runs them is imported when they are typed."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Sequence
from pathlib import Path

from blocks.errors import ConfigurationError
from blocks.plan import read_plan
from blocks.reference import is_path
from flows.cli import options
from flows.cli.console import say, say_json
from flows.cli.planning import answering_server, open_plan


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
        opened.save(block, overwrite=True, _sync=True)  # type: ignore[call-arg]
    except ValueError as exc:
        raise ConfigurationError(
            f"the plan cannot be saved as {block!r}: {exc}",
            hint="Names of blocks have letters, digits and dashes: give one with --name.",
        ) from exc
    if json:
        say_json({"block": f"backup-plan/{block}", "plan": opened.name, "server": server})
    else:
        say(f"plan {opened.name} is saved as the block backup-plan/{block} at {server}")


def serve_arguments(command: ArgumentParser) -> None:
    """Declare what `serve` takes."""
    command.add_argument(
        "plans", metavar="PLAN", nargs="*", help="Path of a YAML plan, or name of a saved Backup Plan block."
    )


def serve(plans: Sequence[str]) -> None:
    """Run the schedules of one or more plans in this process, until it is stopped."""
    if not plans:
        raise ConfigurationError("there is nothing to serve", hint="Name at least one plan.")
    for plan in filter(is_path, plans):  # a name is asked for on the server that serves
        open_plan(plan)  # a wrong plan is refused before a server is started for it
    from deployments.serve import serve as serve_plans  # what runs the flows is above them

    serve_plans(list(plans))


def demo_arguments(command: ArgumentParser) -> None:
    """Declare what `demo` takes."""
    options.value(
        command,
        "--dir",
        "PATH",
        "Where the demo lives; what an earlier one left there goes.",
        dest="folder",
        type=Path,
    )
    command.add_argument(
        "--keep", action=BooleanOptionalAction, default=True, help="Leave the demo's Prefect server running, or not."
    )
    options.flag(command, "--stop", "Only stop the servers that an earlier demo left running.")


def demo(*, folder: Path | None, keep: bool, stop: bool) -> int:
    """Tell the whole story on an embedded example: back up, lose, restore, prove; exit code 1 where a proof fails."""
    from deployments.demo.story import DEFAULT_FOLDER, run_demo, stop_demo  # what runs the flows is above them

    if stop:
        stopped = stop_demo(folder or DEFAULT_FOLDER)
        say("what the demo left running is stopped" if stopped else "nothing of a demo is running")
        return 0
    return 0 if run_demo(folder or DEFAULT_FOLDER, keep_server=keep) else 1
