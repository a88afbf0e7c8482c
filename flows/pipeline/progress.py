"""The progress of a run: the flows report it, and the caller shows it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Progress(Protocol):
    """Receives parts as they enter and leave the executor. Called from one thread."""

    def entered(self, part: str) -> None:
        """Take note that a part enters the executor."""
        ...

    def left(self, part: str) -> None:
        """Take note that the last stage of a part is done."""
        ...


@runtime_checkable
class Measured(Progress, Protocol):
    """A progress that also wants to know what is done between parts, and how much there is of all."""

    def doing(self, what: str) -> None:
        """Take note of what is done before the next part enters, as a clause: `dividing ledger/orders into parts`."""
        ...

    def expect(self, size_bytes: int) -> None:
        """Take note of how many bytes there will be, as an estimate; of a later one in place of it."""
        ...

    def moved(self, size_bytes: int) -> None:
        """Take note that so many bytes are done."""
        ...


@runtime_checkable
class Sized(Protocol):
    """A part of which is known what it counts for."""

    @property
    def size_bytes(self) -> int:
        """Size in bytes, as an estimate; 0 where that is not known."""
        ...


def doing(progress: Progress | None, what: str) -> None:
    """Tell a progress that wants to know what is done."""
    if isinstance(progress, Measured):
        progress.doing(what)


def expect(progress: Progress | None, size_bytes: int) -> None:
    """Tell a progress that wants to know how many bytes there will be, where that is known."""
    if size_bytes and isinstance(progress, Measured):
        progress.expect(size_bytes)


def moved(progress: Progress | None, size_bytes: int) -> None:
    """Tell a progress that wants to know how many bytes are done."""
    if isinstance(progress, Measured):
        progress.moved(size_bytes)
