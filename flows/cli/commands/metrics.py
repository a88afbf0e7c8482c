"""The metrics command: what happened to plans, in numbers for Prometheus."""

from __future__ import annotations

import sys
import threading
from argparse import ArgumentParser
from collections.abc import Sequence

from blocks.errors import ConfigurationError
from blocks.host.interrupts import Ended
from blocks.plan.plan import BackupPlan
from flows.cli import options
from flows.cli.output import say
from flows.cli.running import open_plan


def metrics_arguments(command: ArgumentParser) -> None:
    """Declare what `metrics` takes."""
    command.add_argument(
        "plans", metavar="PLAN", nargs="+", help="Path of a YAML plan, or name of a saved Backup Plan block."
    )
    options.value(command, "--serve", "PORT", "Serve them on this port, until stopped.", type=options.port)
    options.value(command, "--host", "ADDRESS", "Where --serve listens; 127.0.0.1 by default.")
    options.value(
        command, "--prefix", "TEXT", "Stands before the names that begin with backup_; as the plans say by default."
    )


def metrics(plans: Sequence[str], *, serve: int | None, host: str | None, prefix: str | None) -> None:
    """Print the metrics of plans, for a text file that Prometheus' node_exporter reads; or serve them.

    With --serve there are /metrics for Prometheus, the report of the plans at /, and /healthz. SIGTERM ends it.
    """
    if host is not None and serve is None:
        raise ConfigurationError(
            "--host says where --serve listens, and nothing is to be served", hint="Add --serve PORT, or leave it out."
        )
    opened = _opened(plans)
    # no other command waits for them
    from flows.reading.exporter import exporter_of
    from flows.reading.metrics_serving import LOCAL_HOST, serving_metrics

    if serve is None:
        exporter = exporter_of(opened, prefix)
        exporter.look()
        say(exporter.text().rstrip("\n"))
        return
    try:
        with serving_metrics(opened, serve, host or LOCAL_HOST, prefix) as address:
            say(f"{address}/metrics")
            sys.stdout.flush()  # whoever started it may wait for the address
            threading.Event().wait()
    except Ended:
        return  # that is how it ends


def _opened(references: Sequence[str]) -> list[BackupPlan]:
    found: dict[str, str] = {}
    plans = []
    for reference in references:
        plan = open_plan(reference)
        if plan.name in found:
            raise ConfigurationError(
                f"{found[plan.name]} and {reference} are both named {plan.name!r}",
                hint="Metrics tell plans apart by their names: give each a name of its own, or serve each on a port of "
                "its own.",
            )
        found[plan.name] = reference
        plans.append(plan)
    return plans


COMMAND = options.Command("Print or serve metrics for Prometheus.", metrics_arguments, metrics)
