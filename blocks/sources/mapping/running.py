"""Running the user's code: coroutines on one loop of this process, and what is raised in our words."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from collections.abc import AsyncIterable, Awaitable, Coroutine
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from blocks.errors import SourceUnavailable

T = TypeVar("T")

FAILURES = (Exception, SystemExit, asyncio.CancelledError)
"""What the user's code may raise that is a failure of it: anything but a person's interruption."""


def told(exc: BaseException) -> str:
    """Say what was raised, also where that cannot be turned into text."""
    try:
        return f"{type(exc).__name__}: {exc}"
    except FAILURES:
        return type(exc).__name__


@cache
def _loop_of(pid: int) -> asyncio.AbstractEventLoop:
    """Start the one event loop on which the coroutines of users' objects run in this process.

    One for all, because an async object keeps connections and locks that belong to the loop they were made on.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=_run, args=(loop,), name="lastgood-mapping", daemon=True).start()
    return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop for good: a task of the user's that calls `sys.exit` would end it, and all would wait for ever."""
    while True:
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def finished(result: Any, timeout_seconds: float) -> Any:
    """Return a result, waiting for it where it is a coroutine.

    Raises:
        TimeoutError: It took longer than allowed.
    """
    if isinstance(result, AsyncIterable) and not isinstance(result, Awaitable):
        result = _gathered(result)
    if not inspect.isawaitable(result):
        return result
    return on_loop(asyncio.wait_for(_awaited(result), timeout_seconds))


def on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop of this process and wait for it.

    Raises:
        SourceUnavailable: It was cancelled, or wanted to end the process.
    """
    running = asyncio.run_coroutine_threadsafe(_contained(work), _loop_of(os.getpid()))
    try:
        return running.result()
    except concurrent.futures.CancelledError as exc:
        raise SourceUnavailable("a call of an async method was cancelled") from exc
    except BaseException:
        running.cancel()
        raise


async def _contained(work: Coroutine[Any, Any, T]) -> T:
    """Turn what would end the loop, or the process with exit code 0, into an error."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as exc:
        raise SourceUnavailable(f"an async method wanted to end the process: {exc!r}") from exc


async def _awaited(result: Awaitable[Any]) -> Any:
    done = await result
    return await _gathered(done) if isinstance(done, AsyncIterable) else done


async def _gathered(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]
