"""The `lastgood` command."""

from __future__ import annotations

from collections.abc import Sequence

from flows.cli.garbage import postpone

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: The words after `lastgood`; None takes those of this process, which is then the command's own.
    """
    if argv is None:
        postpone()
    from flows.cli.app import run

    return run(argv)
