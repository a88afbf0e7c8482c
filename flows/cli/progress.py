"""How far a run has come: a moving line on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.cli.output import note, stderr
from flows.pipeline.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PLAIN_EVERY_SECONDS = 2.0
"""Least time between two plain lines, so that a log is not filled by a state of many parts."""


class TerminalProgress:
    """Shows the parts in flight; how many there will be is not known before the state is partitioned."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar, self._task, self._done = bar, task, 0
        self._on_line: list[str] = []

    def entered(self, part: str) -> None:
        """Show a part."""
        self._on_line.append(part)
        self._show()

    def left(self, part: str) -> None:
        """Count a part."""
        self._on_line.remove(part)
        self._done += 1
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._done, parts=", ".join(self._on_line))


class PlainProgress:
    """Prints a line for a part that is done, at most one every `PLAIN_EVERY_SECONDS`."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit, self._done = what, unit, 0
        self._last = time.monotonic()

    def entered(self, part: str) -> None:
        """Say nothing: only what is done is worth a line."""

    def left(self, part: str) -> None:
        """Count a part."""
        self._done += 1
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY_SECONDS:
            self._last = now
            note(f"{self._what}: {self._done} {self._unit} done, the last {part}")


@contextmanager
def open_progress(what: str, unit: str = "parts") -> Iterator[Progress]:
    """Show progress while the block runs; `what` is a word such as `backup`, `unit` what is counted."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield PlainProgress(what, unit)
        return
    # only a terminal has something that moves
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn(what),
        TextColumn(f"{{task.completed}} {unit} done"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[parts]}", markup=False),
    )
    with Bar(*columns, console=stderr(), transient=True) as bar:
        yield TerminalProgress(bar, bar.add_task(what, total=None, parts=""))
