"""What a run says in Prefect's log: its own lines, an expected failure without a traceback, and no noise.

Loggers are the process's own, where others may run their flows: what is left out here is of our runs only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from blocks.errors import LastgoodError
from blocks.telemetry.recorder import recorder, recording
from flows.pipeline.hints import as_typed

P = ParamSpec("P")
R = TypeVar("R")

_FLOW_RUNS, _TASK_RUNS = "prefect.flow_runs", "prefect.task_runs"
_NOISE = ("Finished in state Completed()", "Finished in state NotReady(")
"""How a task says that it has ended well, and that it was not begun because one before it failed."""


def timed(fn: Callable[P, R]) -> Callable[P, R]:
    """Have the time that a stage takes counted for the operation that it is of."""

    @wraps(fn)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if (recorded := recorder()) is None:
            return fn(*args, **kwargs)
        started = time.monotonic()
        try:
            return fn(*args, **kwargs)
        finally:
            recorded.stage(getattr(fn, "__name__", "stage"), time.monotonic() - started)

    return run


class _OfOurRuns(logging.Filter):
    """Leaves out what says nothing: that each task has ended well, and where in the code an expected failure was."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is kept; the traceback of an expected failure is taken from it."""
        if record.exc_info and isinstance(record.exc_info[1], LastgoodError):
            if record.name == _FLOW_RUNS:
                return False  # the run says it in words of its own
            record.exc_info, record.exc_text = None, None
        noise = record.name == _TASK_RUNS and record.getMessage().startswith(_NOISE)
        return not (noise and str(getattr(record, "flow_run_id", "")) in self.runs)


_FILTER = _OfOurRuns()
"""One for the process, like the loggers."""


@contextmanager
def told_in_prefect(flow_run_id: str) -> Iterator[None]:
    """Let a run have a log that a person can read, and a record of what its stages took."""
    for name in (_FLOW_RUNS, _TASK_RUNS):
        logging.getLogger(name).addFilter(_FILTER)  # once, however often
    _FILTER.runs.add(flow_run_id)
    try:
        with recording():
            yield
    finally:
        _FILTER.runs.discard(flow_run_id)


def stage_seconds() -> str:
    """Say how long the stages of this run took, in seconds, in the order in which they first ended.

    Nothing outside of a run.
    """
    stages = recorded.numbers().stages if (recorded := recorder()) is not None else {}
    return ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items())


def in_words(error: LastgoodError, reference: str | None) -> str:
    """Write an expected failure as the command line prints it.

    Args:
        error: What was raised.
        reference: What the run knows the plan by, for commands in the hint.
    """
    hint = f"\nhint: {as_typed(error.hint, reference)}" if error.hint else ""
    return f"error: {error.message}{hint}"
