"""What the first of several threads begins for all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread


class RunOnce:
    """Runs something once; threads that come later wait for it, and the error of the first is re-raised in them.

    Args:
        begin: What is to be done.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin, self._lock = begin, Lock()
        self._done = False
        self._failed: Exception | None = None
        self._thread: Thread | None = None

    def prefetch(self) -> None:
        """Run it in a thread of its own, for later callers."""
        self._thread = Thread(target=self._quietly, name="begin", daemon=True)
        self._thread.start()

    def _quietly(self) -> None:
        # re-raised in those who come later
        with suppress(Exception):
            self()

    def settle(self) -> None:
        """Wait until that thread has ended, if there is one."""
        if self._thread is not None:
            self._thread.join()

    def __call__(self) -> None:
        """Begin it, or see that it has been begun."""
        with self._lock:
            if self._failed is not None:
                # the cause is what a person has to read, not that it was raised in another part
                raise self._failed
            if self._done:
                return
            try:
                self._begin()
            except Exception as exc:
                self._failed = exc
                raise
            self._done = True
