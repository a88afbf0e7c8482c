"""Packages of npm that tests use: pinned with their digests in a folder here, and installed once for all checkouts."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.postgres_versions import cache

_HERE = Path(__file__).parent


def installed(name: str) -> Path:
    """The folder of what the package lock of `tests/NAME` pins, which may not be there yet."""
    digest = hashlib.sha256((_HERE / name / "package-lock.json").read_bytes()).hexdigest()
    return cache() / f"{name}-{digest[:12]}" / "node_modules"


def install(name: str) -> None:
    """Install it, unless it is there."""
    folder = installed(name).parent
    if folder.exists():
        return
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="fetching-") as temporary:
        work = Path(temporary) / name
        shutil.copytree(_HERE / name, work)
        npm = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(npm, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}, which the tests need, cannot be installed:\n{done.stdout}{done.stderr}")
        # two runs may install the same; the first one stays
        if not folder.exists():
            work.rename(folder)
