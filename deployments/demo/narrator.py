"""Shows the demo's steps as they happen: a line for each, with a spinner on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from flows.reporting.units import human_seconds


@dataclass
class Step:
    """One step while it is shown."""

    detail: str = ""

    def done(self, detail: str) -> None:
        """Say what came of it."""
        self.detail = detail


class Narrator:
    """Prints the story.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show one step: its name while it runs, then its result and how long it took."""
        step, began = Step(), time.monotonic()
        try:
            with self._console.status(f"{name} …"):
                yield step
        except BaseException:
            self._line("[red]✗[/]", name, "failed", time.monotonic() - began)
            raise
        self._line("[green]✓[/]", name, step.detail, time.monotonic() - began)

    def _line(self, mark: str, name: str, detail: str, seconds: float) -> None:
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=1)
        line.add_column(width=27)
        line.add_column(ratio=1)
        line.add_column(width=6, justify="right", style="dim")
        line.add_row(mark, escape(name), escape(detail), human_seconds(seconds))
        self._console.print(line)

    def say(self, sentence: str) -> None:
        """Print a sentence, with markup; never broken, so that addresses can be copied."""
        self._console.print(sentence, soft_wrap=True, highlight=False)

    def table(self, table: RenderableType) -> None:
        """Print a table."""
        self._console.print()
        self._console.print(table)
