"""Azurite, a server that speaks Azure Blob Storage: `python -m tests.azurite_release` installs it.

Its packages are pinned with their digests in `tests/azurite/package-lock.json`, and installed once for all checkouts,
where the other programs of the tests are.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.postgres_versions import cache

_PINNED = Path(__file__).with_name("azurite")


def azurite() -> Path:
    """The script that runs its blob service, for node."""
    script = _folder() / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    assert script.exists(), "Azurite is missing: run `make tools`"
    return script


def install() -> None:
    """Install it, unless it is there."""
    if _folder().exists():
        return
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="fetching-") as name:
        work = Path(name) / "azurite"
        shutil.copytree(_PINNED, work)
        npm = ["npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(npm, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"Azurite, which the tests need, cannot be installed:\n{done.stdout}{done.stderr}")
        # two runs may install the same; the first one stays
        if not _folder().exists():
            work.rename(_folder())


def _folder() -> Path:
    digest = hashlib.sha256((_PINNED / "package-lock.json").read_bytes()).hexdigest()
    return cache() / f"azurite-{digest[:12]}"


if __name__ == "__main__":
    install()
