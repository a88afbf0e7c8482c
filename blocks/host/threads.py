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
