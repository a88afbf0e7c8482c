"""Prefetching from an iterator in a thread of its own, so that the producer need not wait for the consumer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


class _End:
    """Stands behind the last item, with what ended them."""

    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure


@contextmanager
def prefetched(items: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """Prefetch items; what the iterator raises is raised where they are used.

    Args:
        items: Are no longer taken after the end of this context.
        most: How many of them may wait.
    """
    waiting: Queue[T | _End] = Queue(most)
    ended = Event()
    thread = Thread(target=_take, args=(items, waiting, ended), name="lastgood-redis-ahead", daemon=True)
    thread.start()
    try:
        yield _used(waiting)
    finally:
        ended.set()
        while thread.is_alive():  # it may wait for room
            _emptied(waiting)
            thread.join(0.01)


def _take(items: Iterator[T], waiting: Queue[T | _End], ended: Event) -> None:
    try:
        for item in items:
            if ended.is_set():
                return
            waiting.put(item)
    except BaseException as exc:  # noqa: BLE001  raised where the items are used
        waiting.put(_End(exc))
    else:
        waiting.put(_End(None))


def _used(waiting: Queue[T | _End]) -> Iterator[T]:
    while not isinstance(item := waiting.get(), _End):
        yield item
    if item.failure is not None:
        raise item.failure


def _emptied(waiting: Queue[T | _End]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except Empty:
        return
