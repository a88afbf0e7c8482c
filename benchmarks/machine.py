"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.bench import version_of


def describe() -> list[tuple[str, str]]:
    """Return what a reader needs to judge the numbers: the machine, and the versions of all that took part."""
    facts = [
        ("machine", f"{platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores, {_memory()}"),
        ("load before", " ".join(f"{load:.1f}" for load in os.getloadavg())),
        ("Python", platform.python_version()),
    ]
    facts += [(name, _version(name)) for name in ("lastgood", "pyarrow", "cryptography", "prefect", "numpy")]
    peers = (("restic", "version"), ("borg", "--version"), ("pgbackrest", "version"))
    facts += [(argv[0], version_of(*argv)) for argv in peers]
    return [*facts, ("sqlite3", version_of("sqlite3", "--version"))]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
