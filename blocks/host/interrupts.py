"""Ctrl-C, SIGTERM and SIGHUP in a command's own process: once to end in good order, once more to end at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""The exit code, as shells have it."""


class Ended(KeyboardInterrupt):
    """The process was told to end, by SIGTERM or because its terminal went away.

    Attributes:
        code: The exit code, as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


class Interrupts:
    """How often somebody interrupted. A thread may wait for a server that is silent, and cannot be ended."""

    def __init__(self) -> None:
        self._working = self._interrupted = False

    def watch(self) -> None:
        """Take over Ctrl-C, SIGTERM and SIGHUP, unless somebody decided otherwise (nohup, a background job)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, self._interrupt)

    def working(self) -> None:
        """Say that from now on there is something to be ended in good order."""
        self._working = True

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if self._working and not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)
        os.write(2, b"interrupted\n")
        os._exit(128 + number)


@contextmanager
def hangup_terminates() -> Iterator[None]:
    """Let SIGHUP do what SIGTERM does, for what ends in good order by that; unless somebody decided otherwise."""
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
