"""Ctrl-C in a command's own process: once to end in good order, once more to end at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""The exit code, as shells have it."""


class Interrupts:
    """How often a person interrupted. A thread may wait for a server that is silent, and cannot be ended."""

    def __init__(self) -> None:
        self._working = self._interrupted = False

    def watch(self) -> None:
        """Take over Ctrl-C, unless somebody decided otherwise (a script's background job ignores it)."""
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._interrupt)

    def working(self) -> None:
        """Say that from now on there is something to be ended in good order."""
        self._working = True

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self._working and not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt
        os.write(2, b"interrupted\n")
        os._exit(INTERRUPTED)
