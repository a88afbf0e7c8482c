"""Packages of npm that tests run: `python -m tests.npm_packages` installs them.

Each folder of `FOLDERS` pins its packages with their digests in a `package-lock.json`. They are installed once for all
checkouts, where the other programs of the tests are.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.postgres_versions import cache

FOLDERS = ("azurite", "grafana")
"""Beside this module: a server that speaks Azure Blob Storage; Grafana's schema, and TypeScript to check by it."""


def node_modules(folder: str) -> Path:
    """Where the packages of a folder are installed."""
    found = _installed(folder) / "node_modules"
    assert found.exists(), f"the packages of tests/{folder} are missing: run `make tools`"
    return found


def install(folder: str) -> None:
    """Install the packages of a folder, unless they are there."""
    installed = _installed(folder)
    if installed.exists():
        return
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="fetching-") as name:
        work = Path(name) / folder
        shutil.copytree(_pinned(folder), work)
        npm = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(npm, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"packages that the tests need cannot be installed:\n{done.stdout}{done.stderr}")
        # two runs may install the same; the first one stays
        if not installed.exists():
            work.rename(installed)


def _pinned(folder: str) -> Path:
    return Path(__file__).with_name(folder)


def _installed(folder: str) -> Path:
    digest = hashlib.sha256((_pinned(folder) / "package-lock.json").read_bytes()).hexdigest()
    return cache() / f"{folder}-{digest[:12]}"


if __name__ == "__main__":
    for each in FOLDERS:
        install(each)
