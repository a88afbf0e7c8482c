"""A holder that gives its payload away, so that a part's bytes live only as long as a stage needs them.

Prefect keeps the results of tasks alive for longer than the tasks run (futures, states, an events cache). What the
stages return is therefore a `OneShot`; the next stage takes the payload out, and what Prefect keeps is empty.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class OneShot(Generic[T]):
    """Holds one payload until it is taken."""

    __slots__ = ("_payload",)

    def __init__(self, payload: T) -> None:
        self._payload: list[T] = [payload]

    def peek(self) -> T:
        """Look at the payload and leave it, for a stage that may be retried; call `empty` after success."""
        if not self._payload:
            raise RuntimeError("the payload was taken already")
        return self._payload[0]

    def take(self) -> T:
        """Take the payload out."""
        payload = self.peek()
        self._payload.clear()
        return payload

    def empty(self) -> None:
        """Drop the payload."""
        self._payload.clear()
