"""The demo command: the whole story on an embedded example."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction
from pathlib import Path

from flows.cli import options
from flows.cli.output import say


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
    command.add_argument(
        "--storage", choices=("local", "s3"), default="local",
        help="Where backups are kept: in the demo's folder, or on an S3 server (SeaweedFS) that is started for it.",
    )  # fmt: skip
    options.flag(command, "--stop", "Only stop the servers that an earlier demo left running.")


def demo(*, folder: Path | None, keep: bool, storage: str, stop: bool) -> int:
    """Run the whole story on an embedded example: back up, lose, restore, prove; exit code 1 where a proof fails."""
    from deployments.demo.story import DEFAULT_FOLDER, run_demo, stop_demo  # what runs the flows is above them

    if stop:
        stopped = stop_demo(folder or DEFAULT_FOLDER)
        say("what the demo left running is stopped" if stopped else "nothing of a demo is running")
        return 0
    return 0 if run_demo(folder or DEFAULT_FOLDER, keep_server=keep, storage=storage) else 1


COMMAND = options.Command("Run the whole story on an embedded example.", demo_arguments, demo)
