"""The versions that a manifest remembers, so that an old backup names what made it."""

from __future__ import annotations

import platform
import sys

from blocks.version import VERSION


def tool_versions() -> dict[str, str]:
    """Return the versions of Python, lastgood and the libraries that made a backup.

    They are asked for themselves: looking into what is installed takes as long as a small backup's commit.
    """
    found = {"python": platform.python_version(), "lastgood": VERSION}
    for name in ("pyarrow", "cryptography", "prefect"):
        if (library := sys.modules.get(name)) is not None:  # a process may do without Prefect
            found[name] = str(library.__version__)
    return found
