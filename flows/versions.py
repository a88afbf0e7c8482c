"""The versions that a manifest remembers, so that an old backup tells what made it."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def tool_versions() -> dict[str, str]:
    """Return the versions of Python, lastgood and the libraries that the format rests on."""
    found = {"python": platform.python_version()}
    for name in ("lastgood", "pyarrow", "cryptography", "prefect"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[name] = "not installed"
    return found
