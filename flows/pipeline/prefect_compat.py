"""What flows and stages are made of: Prefect's, or plain functions in a process that does without Prefect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, get_type_hints

from blocks.errors import (
    LastgoodError,
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
from blocks.host.log_lines import of_backup, run_of, without_secrets
from blocks.prefect_compat import without_prefect
from flows.pipeline.run_log import in_words, timed, told_in_prefect

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
    from prefect import Flow, Task
    from prefect import flow as prefect_flow
    from prefect import task as prefect_task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.context import FlowRunContext
    from prefect.logging import get_run_logger
    from prefect.states import Failed
    from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
    from prefect.tasks import exponential_backoff

    stage_runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=PARTS_IN_FLIGHT * STAGES + 2)

    def _told(fn: Callable[P, R]) -> Callable[P, R]:
        """Let a flow end an expected failure in a state that says it in words, with its hint and no traceback.

        Who calls the flow gets the error itself, as always.
        """

        @wraps(fn)
        def run(*args: P.args, **kwargs: P.kwargs) -> Any:
            context = FlowRunContext.get()
            of_run = context is not None and context.flow_run is not None
            with told_in_prefect(str(context.flow_run.id)) if context and context.flow_run else nullcontext():
                try:
                    return fn(*args, **kwargs)
                except LastgoodError as exc:
                    if not of_run:
                        raise
                    plan = signature(fn).bind(*args, **kwargs).arguments.get("plan")
                    words = in_words(exc, plan if isinstance(plan, str) else None)
                    get_run_logger().error("%s", of_backup(words, run_of(exc)))
                    return Failed(message=words, data=exc)
                except Exception as exc:
                    if not of_run:
                        raise
                    # Prefect would keep it as it is, with all that a driver may repeat of what it was given
                    words = without_secrets(f"unexpected {type(exc).__name__}: {exc}")
                    get_run_logger().error("%s", of_backup(words, run_of(exc)), exc_info=True)
                    return Failed(message=words, data=exc)

        # types, and not their names: Prefect looks these up where the function that it is given was defined, here
        run.__signature__ = signature(fn, eval_str=True)  # type: ignore[attr-defined]
        run.__annotations__ = get_type_hints(fn, include_extras=True)
        return run

    def flow(*, name: str, **options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]:
        """Make a verb."""
        return lambda fn: prefect_flow(name=name, **options)(_told(fn))

    def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
        """Make a stage."""
        return lambda fn: prefect_task(**options)(timed(fn))

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
            super().__init__(_told(fn), **options)
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
        return lambda fn: _PlainTask(timed(fn), retries)

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

    def apart_from_flow_run() -> AbstractContextManager[None]:
        """Run stages in threads of their own, as always."""
        return nullcontext()
