"""How far a run has come: a moving line on a terminal, plain lines with `--verbose`, nothing else; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.cli.manner import manner
from flows.cli.output import note, stderr
from flows.pipeline.progress import Measured
from flows.reporting.units import human_bytes, human_seconds

PLAIN_EVERY_SECONDS = 2.0
"""Least time between two plain lines, so that a log is not filled by a state of many parts."""

_TOLD_AFTER_SECONDS = 1.0
"""How long bytes are counted before a rate is believed."""


class ShownProgress:
    """Counts what is done, and says it as a line.

    Args:
        unit: What is counted, such as `parts`.
        show: Called after each change.
        clock: Seconds, by a clock that never goes back.
    """

    def __init__(self, unit: str, show: Callable[[ShownProgress], None], clock: Callable[[], float]) -> None:
        self._unit, self._show, self._clock = unit, show, clock
        self._done = self._bytes = self._expected = 0
        self._began: float | None = None
        self._doing = ""
        self._on_line: list[str] = []

    def entered(self, part: str) -> None:
        """Show a part."""
        if self._began is None:
            self._began = self._clock()
        self._doing = ""
        self._on_line.append(part)
        self._show(self)

    def left(self, part: str) -> None:
        """Count a part."""
        self._on_line.remove(part)
        self._done += 1
        self._show(self)

    def doing(self, what: str) -> None:
        """Show what is done between parts."""
        self._doing = what
        self._show(self)

    def expect(self, size_bytes: int) -> None:
        """Count percents and time left by a size."""
        self._expected = size_bytes
        self._show(self)

    def moved(self, size_bytes: int) -> None:
        """Count bytes; they are shown with the part."""
        self._bytes += size_bytes

    @property
    def line(self) -> str:
        """What is known by now: percents, count, bytes, rate, time left, and what is in flight."""
        said = self._bytes_said() if self._bytes else []
        if self._done or not self._doing:
            said.append(f"{self._done:,} {self._unit.removesuffix('s') if self._done == 1 else self._unit} done")
        return ", ".join([*said, *([self._doing] if self._doing else self._on_line)])

    def _bytes_said(self) -> list[str]:
        known = self._expected >= self._bytes  # state that grew beyond what was expected has no percents
        said = [human_bytes(self._bytes) + (f" of {human_bytes(self._expected)}" if known else "")]
        if known:
            said.insert(0, f"{100 * self._bytes // self._expected}%")
        seconds = self._clock() - self._began if self._began is not None else 0.0
        if seconds >= _TOLD_AFTER_SECONDS:
            said.append(f"{human_bytes(self._bytes / seconds)}/s")
            if known and self._expected > self._bytes:
                said.append(f"{human_seconds((self._expected - self._bytes) * seconds / self._bytes)} left")
        return said


class PlainLines:
    """Prints the line of a progress, at most once every `PLAIN_EVERY_SECONDS`.

    Args:
        what: What is shown, such as `backup`.
        clock: Seconds, by a clock that never goes back.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._clock, self._last = what, clock, clock()

    def show(self, progress: ShownProgress) -> None:
        """Print the line, if it is time."""
        if (now := self._clock()) - self._last >= PLAIN_EVERY_SECONDS:
            self._last = now
            note(f"{self._what}: {progress.line}")


@contextmanager
def open_progress(what: str, unit: str = "parts") -> Iterator[Measured]:
    """Show progress while the block runs; `what` is a word such as `backup`, `unit` what is counted."""
    if not manner().watched:
        yield ShownProgress(unit, lambda _: None, time.monotonic)
        return
    if not manner().moving:
        yield ShownProgress(unit, PlainLines(what).show, time.monotonic)
        return
    # only a terminal has something that moves
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    console = stderr()
    room = console.width - len(f"* {what} 0:00:00  ")
    line = TextColumn("{task.fields[line]}", markup=False)
    with Bar(SpinnerColumn(), TextColumn(what), TimeElapsedColumn(), line, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, line="")
        yield ShownProgress(unit, lambda shown: bar.update(task, line=shown.line[:room]), time.monotonic)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something is being worked on, of which no progress is known here."""
    if manner().watched and manner().moving:
        with stderr().status(what):
            yield
    else:
        yield
