"""Where this machine keeps what lastgood remembers from run to run, outside of every repository, and copies."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Return `$XDG_STATE_HOME/lastgood`, which may not exist.

    Raises:
        RuntimeError: The variable is not set, and the user has no home.
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "lastgood"


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/lastgood`, which may not exist: for what can be had again.

    Raises:
        RuntimeError: The variable is not set, and the user has no home.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lastgood"
