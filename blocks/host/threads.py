"""Threads that work for somebody: they know what the one knows who gives them work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class WorkerThreads(ThreadPoolExecutor):
    """A pool whose threads do each piece of work in a copy of the context in which it was submitted."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submit work, in a copy of this context."""
        return super().submit(partial(copy_context().run, partial(fn, *args, **kwargs)))


def worker_thread(work: Callable[..., object], *args: object, name: str) -> Thread:
    """Make a daemon thread that does work in a copy of this context; it is not started."""
    return Thread(target=copy_context().run, args=(work, *args), name=name, daemon=True)


class ShortCalls:
    """Calls of what may not answer (a file server, somebody else's object): nobody waits long for it. Not thread-safe.

    Args:
        name: What the threads are called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._under_way: Thread | None = None

    def call(self, work: Callable[[], object], seconds: float) -> None:
        """Do work in a daemon thread, in a copy of this context, and wait until it is done.

        Args:
            work: It goes on where it takes longer, and until it is done no other is begun.
            seconds: How long it may take.

        Raises:
            TimeoutError: It takes longer, or the one before still does.
            Exception: What it raised.
        """
        late = f"it takes more than {seconds:g} seconds"
        if self._under_way is not None and self._under_way.is_alive():
            raise TimeoutError(late)
        failures: list[Exception] = []

        def attempt() -> None:
            try:
                work()
            except Exception as exc:  # noqa: BLE001  it is raised below
                failures.append(exc)

        self._under_way = worker_thread(attempt, name=self._name)
        self._under_way.start()
        self._under_way.join(seconds)
        if self._under_way.is_alive():
            raise TimeoutError(late)
        if failures:
            raise failures[0]
