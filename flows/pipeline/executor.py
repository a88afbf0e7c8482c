"""The stage executor: stages submitted as Prefect tasks, for a bounded window of parts at a time.

Inside a flow run the stages run as its tasks. Outside of one (a command on a machine with no Prefect server, on the
worst day) the same stages run in plain threads, with the same retries. Either way the pool has a thread for each stage
of each part in the window, because a stage that waits for the one before it holds its thread.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

from blocks.errors import LastgoodError
from blocks.host.interrupts import hangup_terminates
from blocks.host.log_lines import of_backup, without_secrets
from blocks.host.memory import give_back
from blocks.host.threads import WorkerThreads
from flows.pipeline.prefect_compat import PARTS_IN_FLIGHT, RETRIES, STAGES, Task, in_flow_run, is_retryable
from flows.pipeline.progress import Progress, Sized, moved

R = TypeVar("R")
P = TypeVar("P")

logger = logging.getLogger(__name__)


class Outcome(Protocol):
    """What `StageExecutor.submit` gives back: a Prefect future, or a thread's."""

    def result(self) -> Any:
        """Wait and return the stage's result, or raise what it raised."""
        ...


class StageExecutor:
    """Submits stages; arguments that are outcomes of earlier stages are awaited by the stage that takes them."""

    def __init__(self, pool: WorkerThreads | None) -> None:
        self._pool = pool

    def submit(self, stage: Task[..., Any], *args: Any, after: Sequence[Outcome] = ()) -> Any:
        """Submit one stage; `after` names outcomes it follows without taking their results."""
        if self._pool is None:
            return stage.submit(*args, wait_for=list(after) or None)
        return self._pool.submit(_run_plain, stage, args, after)


@contextmanager
def open_executor() -> Iterator[StageExecutor]:
    """Open an executor: on Prefect inside a flow run, on plain threads elsewhere."""
    if in_flow_run():
        with ended_in_good_order():
            yield StageExecutor(None)
        return
    with WorkerThreads(PARTS_IN_FLIGHT * STAGES + 2, thread_name_prefix="lastgood") as pool:
        yield StageExecutor(pool)


@contextmanager
def ended_in_good_order() -> Iterator[None]:
    """Let SIGHUP end a flow run as SIGTERM does, which is all that Prefect knows; a command sees to that itself."""
    with hangup_terminates() if in_flow_run() else nullcontext():
        yield


def _run_plain(stage: Task[..., Any], args: tuple[Any, ...], after: Sequence[Outcome]) -> Any:
    for earlier in after:
        earlier.result()
    ready = [arg.result() if isinstance(arg, Future) else arg for arg in args]
    return retried(lambda: stage.fn(*ready), stage.retries)


def retried(work: Callable[[], R], retries: int = RETRIES) -> R:
    """Do work that touches the outside, again after a failure that may pass; backoff in seconds 1, 2, 4 with jitter."""
    for attempt in range(retries):
        try:
            return work()
        except (LastgoodError, OSError) as error:
            if not is_retryable(error):
                raise
            pause = 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311  jitter needs no secrecy
            logger.info("%s", of_backup(without_secrets(f"tried again in {pause:.1f} s: {error}")))
            time.sleep(pause)
    return work()


class BoundedWindow(Generic[P]):
    """Iterates over parts so that at most `size` are in flight at once, and collects what the last stage returned.

    Iterate it, and give the outcomes of each part's stages to `follow`, first stage first.

    Args:
        parts: The parts.
        size: How many are in flight at once.
        done: Is given each part that came through, and what its last stage returned.
        progress: Told of parts.
        give_up: Is told of a failure at once, before anything is waited for.
        failed: Is given what the stages of a part raised; where it returns True, the other parts go on without it.
    """

    def __init__(
        self,
        parts: Iterable[P],
        size: int = PARTS_IN_FLIGHT,
        done: Callable[[P, Any], None] | None = None,
        progress: Progress | None = None,
        give_up: Callable[[BaseException, P | None], None] | None = None,
        failed: Callable[[BaseException, P], bool] | None = None,
    ) -> None:
        self._parts, self._size, self._done, self._progress = parts, size, done, progress
        self._give_up, self._is_taken = give_up, failed
        self._running: list[tuple[P, tuple[Outcome, ...]]] = []
        self.last: list[Outcome] = []
        """The last stage of each part that came through: what follows all parts waits for them."""

    def __iter__(self) -> Iterator[P]:
        """Yield the next part when there is room for it; at the end, wait for all."""
        try:
            for part in self._parts:
                while len(self._running) >= self._size:
                    self._settle()
                if self._progress is not None:
                    self._progress.entered(str(part))
                yield part
            while self._running:
                self._settle()
        except BaseException as error:
            self._failed(error, None)
            raise
        finally:
            # on a failure the other parts still finish, so that nothing writes after the flow has given up
            for _, outcomes in self._running:
                for outcome in outcomes:
                    _wait_quietly(outcome)

    def follow(self, part: P, *outcomes: Outcome) -> None:
        """Remember the stages a part is on."""
        self._running.append((part, outcomes))

    def _failed(self, error: BaseException, part: P | None) -> None:
        """Say so before anything is waited for, so that what still runs can end soon."""
        if self._give_up is not None:
            self._give_up(error, part)

    def _settle(self) -> None:
        part, outcomes = self._running.pop(0)
        try:
            # in order: the first failure is the cause, later stages only fail because of it
            results = [outcome.result() for outcome in outcomes]
        except BaseException as error:
            taken = self._is_taken is not None and self._is_taken(error, part)
            if not taken:
                self._failed(error, part)
            for outcome in outcomes:
                _wait_quietly(outcome)
            if not taken:
                raise
        else:
            self.last.append(outcomes[-1])
            give_back()
            if self._done is not None:
                self._done(part, results[-1])
        if self._progress is not None:
            moved(self._progress, part.size_bytes if isinstance(part, Sized) else 0)
            self._progress.left(str(part))


def _wait_quietly(outcome: Outcome) -> None:
    if isinstance(outcome, Future):
        outcome.exception()
    else:
        outcome.wait()  # type: ignore[attr-defined]
