"""The deploy command: the jobs of plans in a Prefect work pool."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.errors import ConfigurationError
from blocks.prefect_compat import is_path
from flows.cli import options
from flows.cli.output import grid, say, say_json
from flows.cli.running import answering_server, open_plan
from flows.reporting.moments import local_time


def deploy_arguments(command: ArgumentParser) -> None:
    """Declare what `deploy` takes."""
    command.add_argument(
        "plans", metavar="PLAN", nargs="+", help="Path of a YAML plan, or name of a saved Backup Plan block."
    )
    command.add_argument("--pool", metavar="NAME", required=True, help="Work pool, whose workers run the jobs.")
    options.json(command)


def deploy(plans: Sequence[str], *, pool: str, json: bool) -> None:
    """Make the deployments of one or more plans in a work pool, with the schedules that the plans say."""
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
                    for one in done
                ],
            }
        )
        return
    table = grid("deployment", "", "runs", "next")
    table.columns[0].whole = True
    for one in done:
        by_hand = "by hand" if one.change != "removed" else ""
        moment = local_time(one.next_run) if one.next_run else ""
        table.add_row(one.address, one.change, one.schedule or by_hand, moment)
    say(table)
    say(f"\nrun a worker where the plans' sources can be reached: prefect worker start --pool {pool}")


COMMAND = options.Command("Make the deployments of plans in a Prefect work pool.", deploy_arguments, deploy)
