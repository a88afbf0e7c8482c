"""Azurite, a server that speaks Azure Blob Storage: `python -m tests.azurite_release` installs it."""

from __future__ import annotations

from pathlib import Path

from tests import node_packages

_NAME = "azurite"


def azurite() -> Path:
    """The script that runs its blob service, for node."""
    script = node_packages.installed(_NAME) / "azurite" / "dist" / "src" / "blob" / "main.js"
    assert script.exists(), "Azurite is missing: run `make tools`"
    return script


def install() -> None:
    """Install it, unless it is there."""
    node_packages.install(_NAME)


if __name__ == "__main__":
    install()
