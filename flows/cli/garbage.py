"""When Python looks for garbage in a command's own process."""

from __future__ import annotations

import gc

_STARTING = 500_000
_RUNNING = 50_000
"""New objects after which it looks. The state itself is Arrow's, which is none of these, but garbage may hold some."""


def postpone() -> None:
    """Wait with it while modules are imported: the thousands of objects that they make stay, and are looked through."""
    gc.set_threshold(_STARTING)


def resume() -> None:
    """Leave aside what is there, and look for new garbage from now on; where it was not postponed, change nothing."""
    if gc.get_threshold()[0] == _STARTING:
        gc.freeze()
        gc.set_threshold(_RUNNING)
