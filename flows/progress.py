"""How far a run has come, for whoever shows it; the flows only report."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of parts as they enter and leave the line. Called from one thread."""

    def entered(self, part: str) -> None:
        """Take note that a part enters the line."""
        ...

    def left(self, part: str) -> None:
        """Take note that the last stage of a part is done."""
        ...
