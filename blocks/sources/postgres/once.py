"""What the first of several threads begins for all of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread


class Once:
    """Begins something once; threads that come later wait for it, and meet the error that the first one met.

    Args:
        begin: What is to be done.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin, self._lock = begin, Lock()
        self._done = False
        self._failed: Exception | None = None
        self._ahead: Thread | None = None

    def ahead(self) -> None:
        """Begin it in a thread of its own, for those who come later."""
        self._ahead = Thread(target=self._quietly, name="begin", daemon=True)
        self._ahead.start()

    def _quietly(self) -> None:
        # those who come later meet the error
        with suppress(Exception):
            self()

    def settle(self) -> None:
        """Wait until that thread has ended, if there is one."""
        if self._ahead is not None:
            self._ahead.join()

    def __call__(self) -> None:
        """Begin it, or see that it has been begun."""
        with self._lock:
            if self._failed is not None:
                # the cause, and not that another part met it, is what a person has to read
                raise self._failed
            if self._done:
                return
            try:
                self._begin()
            except Exception as exc:
                self._failed = exc
                raise
            self._done = True
