"""The `lastgood` command."""

from __future__ import annotations

import gc
from collections.abc import Sequence

__all__ = ["main"]

_OBJECTS = 50_000
"""New objects after which Python looks for garbage; the state itself is Arrow's, which is none of these."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: The words after `lastgood`; None takes those of this process, which is then the command's own.
    """
    if argv is None:
        # thousands of classes and functions that stay are made while modules are imported, and looked through each time
        gc.set_threshold(_OBJECTS)
    from flows.cli.app import run

    return run(argv)
