"""Running commands and taking their time and memory.

The kernel counts what a process had before it became another program towards that program's peak, so the measuring
process itself stays small: nothing here imports pyarrow or lastgood, and data are made by child processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class CommandFailed(RuntimeError):
    """A measured command ended with an error: its numbers would mean nothing."""


@dataclass(frozen=True)
class Run:
    """One command, measured: wall seconds, processor seconds, peak resident bytes, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str = ""


def run(argv: Sequence[str], env: Mapping[str, str], log: Path, cwd: Path | None = None) -> Run:
    """Run a command to its end and measure it and all it waited for.

    Raises:
        CommandFailed: It did not exit with 0; the end of its output is shown.
    """
    with log.open("wb") as output:
        started = time.perf_counter()
        child = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(errors="replace")
    if child.returncode:
        raise CommandFailed(f"{' '.join(argv)} exited with {child.returncode}:\n{text[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, text)


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison.

    Attributes:
        name: As the table calls it.
        work: The measured command.
        prepare: What has to be done before each run and is not measured.
        stored_bytes: What the repository holds, or what the command added to it.
    """

    name: str
    work: Callable[[], Run]
    prepare: Callable[[], None] = _nothing
    stored_bytes: Callable[[], int | None] = lambda: None


@dataclass
class Series:
    """The runs of one contestant."""

    name: str
    runs: list[Run] = field(default_factory=list)
    stored_bytes: int | None = None

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """The median."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """The highest."""
        return max(run.peak_bytes for run in self.runs)


@dataclass(frozen=True)
class Ratio:
    """Ours divided by the peer's, pair by pair."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        """Write the median and the range."""
        return f"{self.median:.2f} ({self.least:.2f}..{self.most:.2f})"


def compete(
    contestants: Sequence[Contestant], pairs: int, say: Callable[[str], None], each_round: Callable[[], None] = _nothing
) -> list[Series]:
    """Let contestants run in turn: one round to warm up, then `pairs` rounds that count."""
    series = [Series(contestant.name) for contestant in contestants]
    for number in range(pairs + 1):
        each_round()
        for contestant, taken in zip(contestants, series, strict=True):
            contestant.prepare()
            done = contestant.work()
            taken.stored_bytes = contestant.stored_bytes()
            if number:
                taken.runs.append(done)
            say(f"  {'warm-up' if not number else f'pair {number}'}: {contestant.name} {done.seconds:.2f} s")
    return series


def ratio_of(ours: Series, peer: Series) -> Ratio:
    """Compare two contestants round by round."""
    each = [a.seconds / b.seconds for a, b in zip(ours.runs, peer.runs, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))
