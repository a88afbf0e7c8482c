"""Commands around Prefect: plan save, serve, demo. What runs them is imported when they are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from blocks.errors import ConfigurationError
from blocks.plan import read_plan
from blocks.reference import is_path
from flows.cli.console import say, say_json
from flows.cli.options import Json, Plan
from flows.cli.planning import answering_server, open_plan


def save_plan(
    plan: Annotated[Path, Parameter(help="Path of a YAML plan.")],
    /,
    *,
    name: Annotated[str | None, Parameter(help="Name of the block; that of the plan if not given.")] = None,
    json: Json = False,
) -> None:
    """Save a plan as a Backup Plan block, so that the Prefect UI can pick it; a block of that name is replaced."""
    opened = read_plan(plan)
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


def serve(*plans: Plan) -> None:
    """Run the schedules of one or more plans in this process, until it is stopped."""
    if not plans:
        raise ConfigurationError("there is nothing to serve", hint="Name at least one plan.")
    for plan in filter(is_path, plans):  # a name is asked for on the server that serves
        open_plan(plan)  # a wrong plan is refused before a server is started for it
    from deployments.serve import serve as serve_plans  # what runs the flows is above them

    serve_plans(list(plans))


def demo(
    *,
    folder: Annotated[
        Path | None, Parameter(name="--dir", help="Where the demo lives; what an earlier one left there goes.")
    ] = None,
    keep: Annotated[
        bool, Parameter(name="--keep", negative="--no-keep", help="Leave the demo's Prefect server running.")
    ] = True,
    stop: Annotated[
        bool, Parameter(name="--stop", negative=(), help="Only stop the servers that an earlier demo left running.")
    ] = False,
) -> int:
    """Tell the whole story on an embedded example: back up, lose, restore, prove; exit code 1 where a proof fails."""
    from deployments.demo.story import DEFAULT_FOLDER, run_demo, stop_demo  # what runs the flows is above them

    if stop:
        stopped = stop_demo(folder or DEFAULT_FOLDER)
        say("what the demo left running is stopped" if stopped else "nothing of a demo is running")
        return 0
    return 0 if run_demo(folder or DEFAULT_FOLDER, keep_server=keep) else 1
