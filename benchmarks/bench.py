"""What all workloads share: a temporary folder, the environment of children, sizes, and where to say something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Run, run

ROOT = Path(__file__).resolve().parent.parent
PASSPHRASE = "correct horse battery staple"


class Unprepared(SystemExit):
    """A program that a workload compares with is not installed."""


@dataclass(frozen=True)
class Bench:
    """One session of measuring.

    Attributes:
        folder: Where data and repositories go; removed at the end.
        pairs: How many pairs count.
        scale: Factor on the amount of data; 1 is the size the table of bars is about.
    """

    folder: Path
    pairs: int
    scale: float
    secrets: dict[str, str] = field(default_factory=dict)
    """Variables that children need besides, once a server is there."""

    @property
    def env(self) -> dict[str, str]:
        """The environment of every child: nothing is kept outside of the folder, no server is asked."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV", "TMPDIR") if name in os.environ}
        return kept | {
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "LASTGOOD_PASSPHRASE": PASSPHRASE,
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "RESTIC_PASSWORD": PASSPHRASE,
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(home),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            **self.secrets,
        }

    def run(self, argv: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
        """Run and measure a command; `env` is what its environment has besides."""
        return run(argv, self.env | {**(env or {})}, self.folder / "output.log", cwd)

    def make(self, module: str, *words: object) -> None:
        """Run one of our own modules in a child, so that this process stays small."""
        self.run([sys.executable, "-m", f"benchmarks.{module}", *map(str, words)])

    def size(self, full: int, least: int = 1) -> int:
        """Scale a count."""
        return max(least, round(full * self.scale))

    def fresh(self, name: str) -> Path:
        """Return a folder's path with nothing there."""
        path = self.folder / name
        self.clear(path)
        return path

    def clear(self, path: Path) -> None:
        """Remove a folder, if it is there."""
        shutil.rmtree(path, ignore_errors=True)

    def say(self, text: str) -> None:
        """Show the progress."""
        print(text, file=sys.stderr, flush=True)


def need(program: str, package: str) -> None:
    """Make sure that a program is there.

    Raises:
        Unprepared: It is not; the Debian package is named.
    """
    if shutil.which(program) is None:
        raise Unprepared(f"{program} is not installed: apt-get install {package}")


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(folder) for name in names)


def version_of(*argv: str) -> str:
    """Return the first line a program says about itself."""
    if shutil.which(argv[0]) is None:
        return "not installed"
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip().splitlines()[0]
