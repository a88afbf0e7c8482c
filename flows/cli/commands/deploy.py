"""The deploy command: the jobs of plans in a Prefect work pool."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import TYPE_CHECKING

from blocks.errors import ConfigurationError
from blocks.prefect_compat import is_path
from flows.cli import options
from flows.cli.output import fits, say, say_json, say_sentence
from flows.cli.running import answering_server, open_plan
from flows.cli.tables import Table, grid
from flows.reporting.moments import local_time

if TYPE_CHECKING:
    from deployments.deploy import Deployed


def deploy_arguments(command: ArgumentParser) -> None:
    """Declare what `deploy` takes."""
    command.add_argument(
        "plans", metavar="PLAN", nargs="+", help="Path of a YAML plan, or name of a saved Backup Plan block."
    )
    command.add_argument("--pool", metavar="NAME", required=True, help="Work pool, whose workers run the jobs.")
    options.json(command)


def deploy(plans: Sequence[str], *, pool: str, json: bool) -> None:
    """Make the deployments of one or more plans in a work pool, with the schedules that the plans say.

    The server then also watches each plan: automations tell when there is no good backup within the RPO and when a
    verification fails, and a corrupted backup starts a full one.
    """
    for plan in filter(is_path, plans):  # a name is asked for on the server
        open_plan(plan)
    if answering_server() is None:
        raise ConfigurationError(
            "no Prefect server answers, where deployments could be made",
            hint="Set PREFECT_API_URL to a running server.",
        )
    from deployments.deploy import deploy as deploy_plans  # what runs the flows is above them

    done = deploy_plans(list(plans), pool)
    if json:
        say_json(
            {
                "pool": pool,
                "deployments": [
                    {
                        "deployment": one.address,
                        "change": one.change,
                        "schedule": one.schedule,
                        "next_run": one.next_run.isoformat() if one.next_run else None,
                    }
                    for one in done.deployments
                ],
                "automations": [{"automation": one.name, "change": one.change} for one in done.automations],
            }
        )
        return
    table = _table(done.deployments, changes=True)
    say(table if fits(table) else _table(done.deployments, changes=False))
    watching = grid("automation", "")
    watching.columns[0].whole = True
    for automation in done.automations:
        watching.add_row(automation.name, automation.change)
    say("")
    say(watching)
    say_sentence(f"\nrun a worker where the plans' sources can be reached: `prefect worker start --pool {pool}`")


def _table(done: Sequence[Deployed], changes: bool) -> Table:
    """Show deployments; what was done with each is left out of a terminal that has no room for it."""
    table = grid("deployment", *([""] if changes else []), "runs", "next")
    table.columns[0].whole = table.columns[-1].whole = True
    for one in done:
        by_hand = "removed" if one.change == "removed" else "by hand"
        runs = (one.schedule or by_hand).replace(";", "; ")  # a long RRULE is folded between its parts
        change = [one.change] if changes else []
        table.add_row(one.address, *change, runs, local_time(one.next_run) if one.next_run else "")
    return table


COMMAND = options.Command("Make the deployments of plans in a Prefect work pool.", deploy_arguments, deploy)
