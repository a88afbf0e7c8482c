"""axe-core, which finds what keeps people from reading a page: `python -m tests.axe_release` installs it."""

from __future__ import annotations

from tests import node_packages

_NAME = "axe"


def axe_script() -> str:
    """What a page runs to be looked at."""
    script = node_packages.installed(_NAME) / "axe-core" / "axe.min.js"
    assert script.exists(), "axe-core is missing: run `make tools`"
    return script.read_text(encoding="utf-8")


if __name__ == "__main__":
    node_packages.install(_NAME)
