"""What a run says in its log: its own lines, each stage in numbers, an expected failure without a traceback, no noise.

Loggers are the process's own, where others may run their flows: what is left out here is of our runs only.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import wraps
from typing import ParamSpec, TypeVar

from blocks.errors import LastgoodError
from blocks.host.log_lines import of_backup, without_secrets
from blocks.telemetry.recorder import recorder
from flows.pipeline.hints import as_typed

P = ParamSpec("P")
R = TypeVar("R")

_FLOW_RUNS, _TASK_RUNS = "prefect.flow_runs", "prefect.task_runs"
_NOISE = ("Finished in state Completed()", "Finished in state NotReady(")
"""How a task says that it has ended well, and that it was not begun because one before it failed."""


STAGES = (
    *("find", "fetch", "decrypt", "decompress", "merge", "denormalize", "apply", "prove"),
    *("collect", "normalize", "diff", "compress", "encrypt", "store", "record"),
    *("decide", "explain", "remove", "sweep"),
)
"""Stages in the order in which a log tells of them."""


class _Counts:
    """How much the stages of a run did, by their names. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def add(self, stage: str, numbers: Mapping[str, int]) -> None:
        """Count what one call of a stage did."""
        with self._guard:
            self._counts.setdefault(stage, Counter()).update(numbers)

    def of(self, stage: str) -> dict[str, int]:
        """Return what is counted of a stage."""
        with self._guard:
            return dict(self._counts.get(stage, {}))


_counts: ContextVar[_Counts | None] = ContextVar("lastgood_stage_counts", default=None)
_stage: ContextVar[str] = ContextVar("lastgood_stage", default="")


@contextmanager
def stages_counted() -> Iterator[None]:
    """Count what the stages of a block do; how long they take is recorded with what else an operation does."""
    token = _counts.set(_Counts())
    try:
        yield
    finally:
        _counts.reset(token)


def timed(fn: Callable[P, R]) -> Callable[P, R]:
    """Have the time that a stage takes counted for the operation that it is of."""
    stage = getattr(fn, "__name__", "stage")

    @wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if (recorded := recorder()) is None:
            return fn(*args, **kwargs)
        started, token = time.monotonic(), _stage.set(stage)
        try:
            return fn(*args, **kwargs)
        finally:
            _stage.reset(token)
            recorded.stage(stage, time.monotonic() - started)

    return run


def tally(**numbers: int) -> None:
    """Count what the stage did that this is called in: `rows`, `size_bytes`, and whatever else has a word."""
    if (counts := _counts.get()) is not None:
        counts.add(_stage.get(), numbers)


def stages() -> dict[str, tuple[dict[str, int], float]]:
    """Return what the stages of this run did, and their seconds summed over threads; nothing outside of a run."""
    recorded, counts = recorder(), _counts.get()
    if recorded is None or counts is None:
        return {}
    seconds = recorded.numbers().stages
    named = sorted(seconds, key=lambda one: STAGES.index(one) if one in STAGES else len(STAGES))
    return {stage: (counts.of(stage), seconds[stage]) for stage in named}


class _OfOurRuns(logging.Filter):
    """Leaves out what says nothing: that each task has ended well, and where in the code an expected failure was.

    What is left has no secrets: an error that nobody expected may repeat what a driver was given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, Context] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is kept; the traceback of an expected failure is taken from it."""
        if record.exc_info and isinstance(record.exc_info[1], LastgoodError):
            if record.name == _FLOW_RUNS:
                return False  # the run says it in words of its own
            record.exc_info, record.exc_text = None, None
        if str(getattr(record, "flow_run_id", "")) not in self.runs:
            return True
        if record.name == _TASK_RUNS and record.getMessage().startswith(_NOISE):
            return False
        record.msg, record.args = without_secrets(record.getMessage()), ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = without_secrets("".join(traceback.format_exception(record.exc_info[1])))
        return True


class _WarningsIntoRun(logging.Handler):
    """Puts what layers below log as warnings into the log of the flow run that it is of, where that is one of ours.

    Other projects have packages of the same names, and loggers with them.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        from prefect.context import FlowRunContext, TaskRunContext  # there is Prefect where there is a run
        from prefect.exceptions import MissingContextError
        from prefect.logging.handlers import APILogHandler

        flow, task = FlowRunContext.get(), TaskRunContext.get()
        run = task.task_run.flow_run_id if task is not None else flow.flow_run.id if flow and flow.flow_run else None
        context = copy_context() if str(run) in _FILTER.runs else None
        if run is None and len(_FILTER.runs) == 1:
            # a thread that nobody told whose run it works for works for the only one there is
            context = next(iter(_FILTER.runs.values())).copy()
        if context is None:
            return
        said = logging.makeLogRecord({**record.__dict__, "args": (), "exc_info": None, "exc_text": None})
        said.msg = of_backup(without_secrets(record.getMessage()))
        try:
            context.run(APILogHandler().emit, said)
        except MissingContextError:
            return


_FILTER = _OfOurRuns()
_INTO_RUN = _WarningsIntoRun()
"""One of each for the process, like the loggers."""


@contextmanager
def told_in_prefect(flow_run_id: str) -> Iterator[None]:
    """Let a run have a log that a person can read."""
    for name in (_FLOW_RUNS, _TASK_RUNS):
        logging.getLogger(name).addFilter(_FILTER)  # once, however often
    for name in ("blocks", "flows"):
        if _INTO_RUN not in logging.getLogger(name).handlers:
            logging.getLogger(name).addHandler(_INTO_RUN)
    _FILTER.runs[flow_run_id] = copy_context()
    try:
        yield
    finally:
        _FILTER.runs.pop(flow_run_id, None)


def in_words(error: LastgoodError, reference: str | None) -> str:
    """Write an expected failure as the command line prints it.

    Args:
        error: What was raised.
        reference: What the run knows the plan by, for commands in the hint.
    """
    hint = f"\nhint: {as_typed(error.hint, reference)}" if error.hint else ""
    return f"error: {error.message}{hint}"
