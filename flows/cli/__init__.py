"""The `lastgood` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flows.cli.garbage import postpone
from flows.cli.interrupts import Interrupts

__all__ = ["main"]

_LASTING = ("serve", "demo")
"""Commands that run until they are stopped, with what they use as it is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: The words after `lastgood`; None takes those of this process, which is then the command's own.
    """
    words = sys.argv[1:] if argv is None else argv
    brief = next((word for word in words if word != "--debug"), None) not in _LASTING
    if argv is not None:
        from flows.cli.app import run

        return run(words, brief=brief)
    interrupts = Interrupts()
    if brief:
        interrupts.watch()
    postpone()
    from flows.cli.app import run_alone

    return run_alone(words, interrupts, brief=brief)
