"""Whether this process has Prefect.

Importing Prefect takes longer than most commands work. A command that takes its plan from a file and records no run
uses nothing of it, so it says so before it imports anything else: then blocks are plain models that can be read from a
plan but neither saved nor loaded by name, and stages are plain functions. It also means that a restore on the worst day
does not need a Prefect that starts.
"""

from __future__ import annotations

import sys

_DECIDED = ("blocks.block", "flows.engine")
"""Modules that are what they are by this decision."""


class _Process:
    """The one decision of this process."""

    without_prefect = False


def do_without_prefect() -> None:
    """Let this process do without Prefect; to be called before blocks and flows are imported.

    Raises:
        RuntimeError: It comes too late.
    """
    if not _Process.without_prefect and any(name in sys.modules for name in _DECIDED):
        raise RuntimeError("blocks and flows have been made with Prefect already")
    _Process.without_prefect = True


def without_prefect() -> bool:
    """Tell whether this process does without Prefect."""
    return _Process.without_prefect
