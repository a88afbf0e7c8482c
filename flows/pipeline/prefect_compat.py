"""What flows and stages are made of: Prefect's, or plain functions in a process that does without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

from blocks.errors import (
    ObjectUnreadable,
    RepositoryFull,
    RepositoryUnavailable,
    SourceGone,
    SourceUnavailable,
    StorageRefused,
    StorageUnreachable,
    TemporaryFolderFull,
    TemporaryFolderUnusable,
)
from blocks.prefect_compat import without_prefect

__all__ = [
    "PURE",
    "RETRIED",
    "CheckedFlow",
    "Flow",
    "Task",
    "apart_from_flow_run",
    "flow",
    "in_flow_run",
    "is_retryable",
    "stage_runner",
    "task",
    "warn_in_run",
]

P = ParamSpec("P")
R = TypeVar("R")

PARTS_IN_FLIGHT = 2
STAGES = 6
RETRIES = 3


_PASSING = (SourceUnavailable, TemporaryFolderUnusable, RepositoryUnavailable, OSError)
# what a storage in a network did not do in all attempts of its tier is not tried again above it
_LASTING = (SourceGone, TemporaryFolderFull, RepositoryFull, ObjectUnreadable, StorageRefused, StorageUnreachable)


def is_retryable(error: BaseException) -> bool:
    """Whether trying again can help: the outside was unavailable, rather than wrong."""
    return isinstance(error, _PASSING) and not isinstance(error, _LASTING)


class _PlainTask(Generic[P, R]):
    """A stage that a thread calls: the function, and how often it is tried again."""

    def __init__(self, fn: Callable[P, R], retries: int) -> None:
        self.fn, self.retries = fn, retries

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)


class _PlainFlow(Generic[P, R]):
    """A verb that is only called."""

    def __init__(self, fn: Callable[P, R], name: str) -> None:
        self.fn, self.name = fn, name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"the flow {self.name} has no {name!r} in a process that does without Prefect: "
            "import prefect before lastgood is first used in it"
        )


if TYPE_CHECKING or not without_prefect():
    from prefect import Flow, Task, flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.context import FlowRunContext
    from prefect.logging import get_run_logger
    from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
    from prefect.tasks import exponential_backoff

    stage_runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=PARTS_IN_FLIGHT * STAGES + 2)

    def _retry_condition(_task: Task[..., Any], _run: Any, state: State[Any]) -> bool:
        try:
            state.result()
        except Exception as error:  # noqa: BLE001  a bug is not retried; the state keeps and shows it
            return is_retryable(error)
        return False

    PURE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
    """Options of a stage that only computes."""

    RETRIED: dict[str, Any] = PURE | {
        "retries": RETRIES,
        "retry_delay_seconds": exponential_backoff(backoff_factor=1),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _retry_condition,
    }
    """Options of a stage that touches the outside: retried with exponential backoff and jitter."""

    class CheckedFlow(Flow[P, R]):
        """A flow whose parameters are looked at before there is a run, which would keep them.

        Args:
            fn: The function of the flow.
            check: Is given the parameters by name, and raises what is wrong with them.
            options: Those of `flow`.
        """

        def __init__(self, fn: Callable[P, R], check: Callable[[Mapping[str, Any]], None], **options: Any) -> None:
            super().__init__(fn, **options)
            self._check_parameters = check

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Look at the parameters, then run."""
            said = {name: value for name, value in kwargs.items() if name in self.parameters.properties}
            self._check_parameters(signature(self.fn).bind_partial(*args, **said).arguments)
            return super().__call__(*args, **kwargs)

    _apart: ContextVar[bool] = ContextVar("lastgood_apart", default=False)

    def in_flow_run() -> bool:
        """Return whether this runs inside a flow run, whose task runner runs the stages."""
        return FlowRunContext.get() is not None and not _apart.get()

    def warn_in_run(text: str) -> None:
        """Write a warning into the log of the flow run, where this runs inside of one."""
        if in_flow_run():
            get_run_logger().warning("%s", text)

    @contextmanager
    def apart_from_flow_run() -> Iterator[None]:
        """Run stages in threads of their own even inside a flow run: somebody else's may have a runner of few threads.

        A stage waits in a thread for the one before it, so that such a runner would come to a halt.
        """
        token = _apart.set(True)
        try:
            yield
        finally:
            _apart.reset(token)

else:
    Flow, Task, stage_runner = _PlainFlow, _PlainTask, None
    PURE, RETRIED = {}, {"retries": RETRIES}

    def task(*, retries: int = 0, **_options: object) -> Callable[[Callable[P, R]], _PlainTask[P, R]]:
        """Make a stage; what only Prefect uses is left aside."""
        return lambda fn: _PlainTask(fn, retries)

    def flow(*, name: str, **_options: object) -> Callable[[Callable[P, R]], _PlainFlow[P, R]]:
        """Make a verb; what only Prefect uses is left aside."""
        return lambda fn: _PlainFlow(fn, name)

    def CheckedFlow(
        fn: Callable[P, R], check: Callable[[Mapping[str, Any]], None], *, name: str, **_options: object
    ) -> _PlainFlow[P, R]:
        """Make a verb, whose function looks at what it is given."""
        return _PlainFlow(fn, name)

    def in_flow_run() -> bool:
        """Return whether this runs inside a flow run: never."""
        return False

    def warn_in_run(text: str) -> None:
        """Write a warning into the log of the flow run: there is none."""

    def apart_from_flow_run() -> AbstractContextManager[None]:
        """Run stages in threads of their own, as always."""
        return nullcontext()
