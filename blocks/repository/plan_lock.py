"""Holding a plan's lease in a program: `with` and `async with`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

from blocks.errors import RepositoryLocked
from blocks.repository.lease import POLL_SECONDS, Lease


class PlanLock:
    """The lease of a plan as a context manager: for `with`, and for `async with`, which does not block the event loop.

    Gives the `Lease`. It can be entered again when it was left.

    Args:
        take: Takes the lease for as long as its context lasts, waiting up to a number of seconds for another run.
        wait_seconds: How long to wait.
    """

    def __init__(self, take: Callable[[float], AbstractContextManager[Lease]], wait_seconds: float = 0) -> None:
        self._take, self._wait_seconds = take, wait_seconds
        self._held = ExitStack()

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            RepositoryLocked: Another run holds it.
        """
        return self._enter(self._wait_seconds)

    def __exit__(self, *_raised: object) -> None:
        """Give it back."""
        self._held.close()

    async def __aenter__(self) -> Lease:
        """Take the lease; while another run holds it, only the event loop waits, so that this can be cancelled.

        Raises:
            RepositoryLocked: Another run holds it.
        """
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                return await self._enter_in_thread()
            except RepositoryLocked:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            await asyncio.sleep(min(POLL_SECONDS, left))

    async def __aexit__(self, *_raised: object) -> None:
        """Give it back, also where this is cancelled meanwhile."""
        await asyncio.to_thread(self._held.close)

    def _enter(self, wait_seconds: float) -> Lease:
        with ExitStack() as taken:
            lease = taken.enter_context(self._take(wait_seconds))
            self._held = taken.pop_all()
            return lease

    async def _enter_in_thread(self) -> Lease:
        thread = ThreadPoolExecutor(1, thread_name_prefix="lastgood-lock")
        entering = thread.submit(self._enter, 0)
        thread.shutdown(wait=False)
        try:
            return await asyncio.wrap_future(entering)
        except asyncio.CancelledError:
            # the thread may be about to take it, and nobody would give it back
            entering.add_done_callback(self._give_back)
            raise

    def _give_back(self, entered: Future[Lease]) -> None:
        if not entered.cancelled() and entered.exception() is None:
            self._held.close()
