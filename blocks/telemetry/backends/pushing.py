"""Sending numbers from a thread of its own, so that nobody waits for a name, a socket or a server."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Protocol

from blocks.telemetry.published import dotted

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
"""So many numbers wait at most; more are dropped."""
REST_SECONDS = 30.0
"""For so long a backend is left alone that could not be told: what comes meanwhile is dropped."""
BATCH_SECONDS = 5.0
"""A client that gathers numbers sends them so long after the first of them."""
EXIT_SECONDS = 3.0
"""A process that ends waits at most so long for numbers that were not sent."""


class Client(Protocol):
    """Sends numbers; used by one thread alone. What it raises is logged."""

    def count(self, name: str) -> None:
        """Send that one is to be counted, or gather it."""
        ...

    def observe(self, name: str, value: float) -> None:
        """Send a value, or gather it."""
        ...

    def flush(self) -> None:
        """Send what was gathered. It ends by itself after some seconds, whatever the server does."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


class _End:
    """Ends the thread."""


_Task = tuple[str, float | None] | threading.Event | _End
"""A name to count, or with its value; an event to set when all before it was sent; or the end."""


class Pusher:
    """A backend that hands numbers to a client in a daemon thread, which starts with the first number.

    Args:
        connect: Makes the client; called in the thread. It may fail, and take long.
        what: What messages call the backend, without secrets.
        prefix: Stands before each name.
    """

    def __init__(self, connect: Callable[[], Client], what: str, prefix: str = "") -> None:
        self._connect, self._what, self._prefix = connect, what, prefix
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._waiting: Queue[_Task] = Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._dropped = False

    def count(self, name: str) -> None:
        """Count one."""
        self._take((dotted(name, self._prefix), None))

    def observe(self, name: str, value: float) -> None:
        """Observe a value."""
        self._take((dotted(name, self._prefix), value))

    def flush(self, seconds: float) -> bool:
        """Send what was taken so far; return whether that was done within so many seconds, whoever took it."""
        # in a process that was forked there is no thread yet, and after the end there is nothing to wait for
        if self._thread is None or not self._thread.is_alive():
            return True
        done, until = threading.Event(), time.monotonic() + seconds
        try:
            self._waiting.put(done, timeout=seconds)
        except Full:
            return False
        return done.wait(until - time.monotonic())

    def close(self, seconds: float) -> None:
        """Send what was taken, for so many seconds at most, and take nothing any more."""
        self._closed = True
        atexit.unregister(self._at_exit)
        if (thread := self._thread) is None or self._pid != os.getpid():
            return
        with suppress(Full):  # then the thread ends when it has sent all that waits
            self._waiting.put_nowait(_End())
        thread.join(seconds)
        if thread.is_alive():
            logger.warning("%s did not take all metrics within %g seconds", self._what, seconds)

    def _at_exit(self) -> None:
        self.close(EXIT_SECONDS)

    def _take(self, task: _Task) -> None:
        if self._pid != os.getpid():
            self._begin()  # the thread stayed in the process that this one was forked from
        if self._thread is None:
            self._start()
        if self._closed:
            return
        try:
            self._waiting.put_nowait(task)
        except Full:
            if not self._dropped:
                self._dropped = True
                logger.warning("%s is too slow: metrics are dropped", self._what)

    def _start(self) -> None:
        with self._guard:
            if self._thread is None and not self._closed:
                thread = threading.Thread(target=self._run, name="lastgood-metrics", daemon=True)
                thread.start()
                self._thread = thread
                atexit.register(self._at_exit)

    def _run(self) -> None:
        sender = _Sender(self._connect, self._what)
        while True:
            if (rest := sender.rest()) == 0:
                sender.flush()
                continue
            try:
                task = self._waiting.get(timeout=rest)
            except Empty:
                continue
            if isinstance(task, _End):
                return sender.close()
            if isinstance(task, threading.Event):
                sender.flush()
                task.set()
            else:
                sender.send(*task)
            if self._closed and self._waiting.empty():  # there was no room for the end
                return sender.close()


class _Sender:
    """Uses a client, and leaves it alone for a while after it failed. Used by one thread."""

    def __init__(self, connect: Callable[[], Client], what: str) -> None:
        self._connect, self._what = connect, what
        self._client: Client | None = None
        self._rests_until = 0.0
        self._told = False
        self._gathered_since: float | None = None
        """When the client took the first of what it may hold and has not sent; None where it holds nothing."""

    def rest(self) -> float | None:
        """Return for how many seconds the client may keep what it gathered; None where it gathered nothing."""
        if self._gathered_since is None:
            return None
        return max(0.0, self._gathered_since + BATCH_SECONDS - time.monotonic())

    def send(self, name: str, value: float | None) -> None:
        """Count a name, or observe its value."""
        if time.monotonic() >= self._rests_until:
            self._tried(lambda: self._send(name, value))

    def flush(self) -> None:
        """Have the client send what it gathered."""
        if self._client is not None and self._gathered_since is not None:
            self._gathered_since = None
            self._tried(self._client.flush)

    def close(self) -> None:
        """Send what is left, and let the client go."""
        self.flush()
        if self._client is not None:
            self._tried(self._client.close)

    def _send(self, name: str, value: float | None) -> None:
        client = self._client = self._client or self._connect()
        if value is None:
            client.count(name)
        else:
            client.observe(name, value)
        if self._gathered_since is None:
            self._gathered_since = time.monotonic()

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (Exception, SystemExit) as exc:  # whatever it is: nothing that only reports may end the thread
            # once: a backend that is away for a night says nothing new each minute
            level = logging.DEBUG if self._told else logging.WARNING
            logger.log(level, "%s was not told metrics: %s", self._what, exc)
            logger.debug("where it failed", exc_info=True)
            self._told, self._rests_until = True, time.monotonic() + REST_SECONDS
