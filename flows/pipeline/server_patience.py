"""How long a run whose work is done waits for the Prefect server that records it.

While the work goes on Prefect waits as it likes, minutes for one answer. What only reports does not: a server that went
away, or is there and silent, must neither hold up those who are told of a backup nor the end of a command.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from blocks.host.log_lines import without_secrets

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""For so long a server is waited for, in all that is asked of it at once."""
STATE_SECONDS = 15.0
"""For so long where it is told that the run is done: one that is only busy must not have it at work for ever."""
LAST_SECONDS = 3.0
"""For so long a process that ends sends what is left of events and logs."""


class ServerSilent(Exception):
    """The Prefect server did not answer in time."""


def hasten(seconds: float = STATE_SECONDS) -> None:
    """Let the server that records this run have so long, altogether, for all that is asked of it from now on."""
    _client().event_hooks["request"].append(_Limit(seconds))


@contextmanager
def published(what: str) -> Iterator[None]:
    """Leave something in the run, within seconds; where that fails it is a warning: the work is done.

    Args:
        what: What messages call it.
    """
    try:
        with _limited(PATIENCE_SECONDS):
            yield
    except Exception as exc:  # whatever it is: what only reports stops nothing
        said = without_secrets(str(exc)) or type(exc).__name__
        logger.warning("%s is not in the Prefect run: %s", what, said)
        logger.debug("where it failed", exc_info=True)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    hooks, limit = _client().event_hooks["request"], _Limit(seconds)
    hooks.append(limit)
    try:
        yield
    finally:
        hooks.remove(limit)


def end_prefect(seconds: float = LAST_SECONDS) -> None:
    """Send what is left of events and logs, for so long; Prefect would wait for minutes when the process ends."""
    if "prefect._internal.concurrency.services" not in sys.modules:
        return
    from prefect._internal.concurrency import logger as told
    from prefect._internal.concurrency.services import QueueService

    # nothing public ends a service that is at work
    running: dict[int, QueueService[Any]] = QueueService._instances  # type: ignore[misc]  # those of all kinds
    left = [(service._loop, service._task) for service in running.values()]
    with suppress(KeyboardInterrupt):  # it ends
        QueueService.drain_all(timeout=seconds)
    for loop, task in left:
        if loop is not None and task is not None and not task.done():
            told.setLevel(logging.CRITICAL)  # it would be an error there
            loop.call_soon_threadsafe(task.cancel)


class _Limit:
    """Gives each request what is left of some seconds; called before each attempt."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def __call__(self, request: httpx.Request) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise ServerSilent("the Prefect server does not answer")  # of no kind that Prefect tries again
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), left)


def _client() -> httpx.Client:
    """Return what this run asks the server with."""
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)._client
