"""The monitoring command: files for Prometheus, Alertmanager and Grafana."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from flows.cli import options
from flows.cli.output import say


def monitoring_arguments(command: ArgumentParser) -> None:
    """Declare what `monitoring` takes."""
    command.add_argument("folder", metavar="FOLDER", type=Path, help="Where the files go; none is written over.")
    options.value(command, "--prefix", "PREFIX", "That of the metrics, where one is set.", default="")
    options.values(
        command, "--target", "HOST:PORT", "Where `lastgood metrics --serve` listens; may be repeated.", dest="targets"
    )


def monitoring(folder: Path, *, prefix: str, targets: Sequence[str]) -> None:
    """Write what watches backups into a folder: the configuration of Prometheus, alerts, Alertmanager, a dashboard."""
    from deployments.monitoring.files import write_monitoring_files  # what runs the flows is above them

    for path in write_monitoring_files(folder, prefix, targets):
        say(str(path))


COMMAND = options.Command("Write files for Prometheus, Alertmanager and Grafana.", monitoring_arguments, monitoring)
