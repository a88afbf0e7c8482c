"""The serve command: run the schedules of plans in this process."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.errors import ConfigurationError
from blocks.prefect_compat import is_path
from flows.cli import options
from flows.cli.running import open_plan


def serve_arguments(command: ArgumentParser) -> None:
    """Declare what `serve` takes."""
    command.add_argument(
        "plans", metavar="PLAN", nargs="*", help="Path of a YAML plan, or name of a saved Backup Plan block."
    )
    options.value(
        command, "--metrics", "PORT", "Serve metrics on this port of this machine, or on ADDRESS:PORT.", type=address
    )


def address(word: str) -> tuple[str, int]:
    """Read where to listen: a port of this machine alone, or an address and a port."""
    host, _, number = word.rpartition(":")
    return host.strip("[]") or "127.0.0.1", options.port(number)


def serve(plans: Sequence[str], *, metrics: tuple[str, int] | None) -> None:
    """Run the schedules of one or more plans in this process, until it is stopped.

    With --metrics there are /metrics for Prometheus, the report of the plans at /, and /healthz.
    """
    if not plans:
        raise ConfigurationError("there is nothing to serve", hint="Name at least one plan.")
    for plan in filter(is_path, plans):  # a name is asked for on the server that serves
        open_plan(plan)  # a wrong plan is refused before a server is started for it
    from deployments.serve import serve as serve_plans  # what runs the flows is above them

    serve_plans(list(plans), metrics=metrics)


COMMAND = options.Command("Run the schedules of plans in this process.", serve_arguments, serve)
