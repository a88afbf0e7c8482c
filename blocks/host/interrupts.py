"""Ctrl-C, SIGTERM and SIGHUP in a command's own process: once to end in good order, once more to end at once."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a process."""

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
    """How often somebody interrupted. A thread may wait for a server that is silent, and cannot be ended.

    Args:
        line: Makes the line that is said where it ends at once, of the exit code.
    """

    def __init__(self, line: Callable[[int], str] = lambda _: "interrupted") -> None:
        self._working = self._interrupted = False
        self._line = line

    def watch(self) -> None:
        """Take over Ctrl-C, SIGTERM and SIGHUP, unless somebody decided otherwise (nohup, a background job)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, self._interrupt)

    def working(self) -> None:
        """Say that from now on there is something to be ended in good order."""
        self._working = True

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        if self._working and not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)
        try:
            os.write(2, f"{self._line(128 + number)}\n".encode())
        finally:
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


class Postponed:
    """Signals that arrived while nothing may be raised.

    Args:
        patience: How many of them `deliver` leaves for the end.
        ended: Whether somebody ended what this is the end of.
    """

    def __init__(self, patience: int, ended: bool = False) -> None:
        self._patience, self._ended = patience, ended
        self._arrived: deque[tuple[int, FrameType | None]] = deque()
        self._handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
        self._over = False

    @property
    def asked_again(self) -> bool:
        """Whether what was ended is to end once more: whom `deliver` tells may end the process at once."""
        return self._ended and len(self._arrived) > self._patience

    def deliver(self) -> None:
        """Do what those that arrived would have done: as a rule the first one raises."""
        while len(self._arrived) > self._patience:
            number, frame = self._arrived.popleft()
            self._handlers[number](number, frame)

    def begin(self) -> None:
        """Take over the signals that something in Python handles."""
        for number in ENDING:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._arrive)

    def end(self) -> None:
        """Give them back, and deliver all that arrived."""
        self._over, self._patience = True, 0
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.deliver()

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        if self._over:  # in the middle of giving them back
            self._handlers[number](number, frame)
        else:
            self._arrived.append((number, frame))


@contextmanager
def postponed(patience: int = 0, ended: bool = False) -> Iterator[Postponed]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise nothing in a block but where it calls `deliver`, and at its end.

    Python lets a handler raise between any two steps: between the start of a process and the moment when somebody knows
    of it, for one. Elsewhere than in the main thread handlers never run, and nothing is done.

    Args:
        patience: How many signals wait for the end of the block even where it calls `deliver`.
        ended: Whether somebody ended what the block is the end of.
    """
    waiting = Postponed(patience, ended)
    if threading.current_thread() is not threading.main_thread():
        yield waiting
        return
    try:
        waiting.begin()
        yield waiting
    finally:
        waiting.end()
