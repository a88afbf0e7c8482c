"""The progress of a run: the flows report it, and the caller shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives parts as they enter and leave the executor. Called from one thread."""

    def entered(self, part: str) -> None:
        """Take note that a part enters the executor."""
        ...

    def left(self, part: str) -> None:
        """Take note that the last stage of a part is done."""
        ...
