"""What flows and stages are made of: Prefect's, or plain functions in a process that does without Prefect."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from blocks.engine import without_prefect
from blocks.errors import LastgoodError, RepositoryUnavailable, SourceUnavailable, UnsupportedState

__all__ = ["INSIDE", "OUTSIDE", "Flow", "Task", "flow", "in_flow_run", "may_help", "stage_runner", "task"]

P = ParamSpec("P")
R = TypeVar("R")

WINDOW = 2
STAGES = 6
RETRIES = 3


def may_help(error: BaseException) -> bool:
    """Whether trying again can help: the outside was unavailable, rather than wrong."""
    return isinstance(error, SourceUnavailable | RepositoryUnavailable | OSError) and not isinstance(
        error, UnsupportedState
    )


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


if TYPE_CHECKING or not without_prefect():
    from prefect import Flow, Task, flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State
    from prefect.context import FlowRunContext
    from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
    from prefect.tasks import exponential_backoff

    stage_runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=WINDOW * STAGES + 2)

    def _retry_condition(_task: Task[..., Any], _run: Any, state: State[Any]) -> bool:
        try:
            state.result()
        except LastgoodError as error:
            return may_help(error)
        except OSError:
            return True
        except Exception:  # noqa: BLE001  a bug is not retried; the state keeps and shows it
            return False
        return False

    INSIDE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
    """Options of a stage that only computes."""

    OUTSIDE: dict[str, Any] = INSIDE | {
        "retries": RETRIES,
        "retry_delay_seconds": exponential_backoff(backoff_factor=1),
        "retry_jitter_factor": 0.5,
        "retry_condition_fn": _retry_condition,
    }
    """Options of a stage that touches the outside: retried with exponential backoff and jitter."""

    def in_flow_run() -> bool:
        """Tell whether this runs inside a flow run."""
        return FlowRunContext.get() is not None

else:
    Flow, Task, stage_runner = _PlainFlow, _PlainTask, None
    INSIDE, OUTSIDE = {}, {"retries": RETRIES}

    def task(*, retries: int = 0, **_options: object) -> Callable[[Callable[P, R]], _PlainTask[P, R]]:
        """Make a stage; what only Prefect uses is left aside."""
        return lambda fn: _PlainTask(fn, retries)

    def flow(*, name: str, **_options: object) -> Callable[[Callable[P, R]], _PlainFlow[P, R]]:
        """Make a verb; what only Prefect uses is left aside."""
        return lambda fn: _PlainFlow(fn, name)

    def in_flow_run() -> bool:
        """Tell whether this runs inside a flow run: never."""
        return False
