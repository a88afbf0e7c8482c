"""What a collector hands numbers to."""

from __future__ import annotations

from typing import Protocol


class Backend(Protocol):
    """Takes numbers, in no time: nothing waits for a network. Thread-safe."""

    def count(self, name: str) -> None:
        """Count one."""
        ...

    def observe(self, name: str, value: float) -> None:
        """Observe a value."""
        ...

    def flush(self, seconds: float) -> bool:
        """Send what was taken so far; return whether that was done within so many seconds, whoever took it."""
        ...

    def close(self, seconds: float) -> None:
        """Do the same, and take nothing any more."""
        ...


class Nobody:
    """A backend that takes nothing."""

    def count(self, name: str) -> None:
        """Count nothing."""

    def observe(self, name: str, value: float) -> None:
        """Observe nothing."""

    def flush(self, seconds: float) -> bool:
        """Return that there is nothing to send."""
        return True

    def close(self, seconds: float) -> None:
        """Do nothing."""
