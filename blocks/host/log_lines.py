"""Whose run a line of a log is of, lines as JSON, and lines without secrets.

Lines are of this process, and runs of a process are few: a thread that nobody told whose run it works for (one that
renews a lease, say) works for the only one there is.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, TextIO
from urllib.parse import quote

from blocks.host.passwords import without_password, without_settings

FORMATS = ("text", "json")
"""In which a process can write its log."""

_SHORTEST = 4
"""Characters of a secret that is looked for in a line: a shorter one would be found in any word."""


@dataclass
class LoggedRun:
    """The run of a verb, as its lines name it.

    Attributes:
        plan: Name of the plan.
        verb: What is done: `backup`, `restore`, `verification`, `retention`.
        operation_id: Names the run.
        backup_id: The backup that is made, restored or verified; None while it is not known. Of a backup that fails,
            the id that was drawn for it.
        secrets: Names of environment variables whose values may stand in no line.
    """

    plan: str
    verb: str
    operation_id: str
    backup_id: str | None = None
    secrets: frozenset[str] = frozenset()


_ENDED = "lastgood_run"
"""The attribute by which an error remembers which run it ended."""

_run: ContextVar[LoggedRun | None] = ContextVar("lastgood_run", default=None)


class _Runs:
    """The runs of this process that are under way, and what may stand in no line of any.

    The process's own, as its loggers are.
    """

    guard = threading.Lock()
    now: ClassVar[list[LoggedRun]] = []
    secrets: ClassVar[frozenset[str]] = frozenset()


def current_run() -> LoggedRun | None:
    """Return the run that this is in; of a thread that knows of none, the only one that there is."""
    if (run := _run.get()) is not None:
        return run
    with _Runs.guard:
        return _Runs.now[0] if len(_Runs.now) == 1 else None


def run_of(error: BaseException) -> LoggedRun | None:
    """Return the run that an error ended; None where it ended none."""
    return getattr(error, _ENDED, None)


@contextmanager
def logged_as(run: LoggedRun) -> Iterator[LoggedRun]:
    """Let the lines of a block be those of a run."""
    token = _run.set(run)
    with _Runs.guard:
        _Runs.now.append(run)
        _Runs.secrets |= run.secrets
    try:
        yield run
    except BaseException as exc:
        if run_of(exc) is None:
            setattr(exc, _ENDED, run)
        raise
    finally:
        _run.reset(token)
        with _Runs.guard:
            _Runs.now[:] = [one for one in _Runs.now if one is not run]


def working_on(backup_id: str) -> None:
    """Let the lines of this run name a backup from now on."""
    if (run := _run.get()) is not None:
        run.backup_id = backup_id


def of_backup(text: str, run: LoggedRun | None = None) -> str:
    """Begin a line with the backup that a run is of, by default the current one; as it is where that is not known."""
    run = run or current_run()
    return f"{run.backup_id}: {text}" if run is not None and run.backup_id else text


def without_secrets(text: str, variables: Iterable[str] = ()) -> str:
    """Return a line without passwords of URLs and settings, and without what this process's runs know as secrets.

    Args:
        text: The line.
        variables: Names of more environment variables that hold secrets.
    """
    names = {*_Runs.secrets, *variables}
    values = {value for name in names if len(value := os.environ.get(name, "").strip()) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        for written in (value, quote(value, safe=""), repr(value)[1:-1], json.dumps(value)[1:-1]):
            text = text.replace(written, "***")
    if "://" in text:
        text = re.sub(r"[^\s'\"<>()]*://[^\s'\"<>]*", lambda found: without_password(found[0]), text)
    return without_settings(text) if "=" in text else text


def json_line(level: int, message: str, run: LoggedRun | None = None, **more: object) -> str:
    """Write a line of the log as an object of JSON, with the run that it is of.

    Args:
        level: As `logging` has it.
        message: What is said.
        run: The run that it is of; the current one by default.
        more: Further keys; `time` is when it was said, by default now.
    """
    run = run or current_run()
    said = without_secrets(message)
    if run is not None and run.backup_id:
        said = said.removeprefix(f"{run.backup_id}: ")
    line = {
        "time": _now(),
        "level": logging.getLevelName(level).lower(),
        "message": said,
        "plan": run.plan if run else None,
        "verb": run.verb if run else None,
        "backup_id": run.backup_id if run else None,
        "operation_id": run.operation_id if run else None,
    }
    return json.dumps(line | more, default=str)


def of_record(record: logging.LogRecord) -> str:
    """Write a record of `logging` as a line of JSON."""
    more: dict[str, object] = {"time": _time(record.created), "logger": record.name}
    if record.exc_info and record.exc_info[1] is not None:
        more["exception"] = without_secrets("".join(traceback.format_exception(record.exc_info[1])))
    return json_line(record.levelno, record.getMessage(), None, **more)


class JsonStderr(logging.StreamHandler[TextIO]):
    """Writes each record as a line of JSON; also in the place of Prefect's own handlers, which set it up."""

    def __init__(self, stream: TextIO | None = None, styles: object = None) -> None:
        super().__init__(stream if stream is not None else sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return of_record(record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def speak_json() -> None:
    """Let what others log in this process be lines of JSON, too: what they warn of, and Prefect's log.

    To be called before Prefect is imported. Processes that this one starts get the variables.
    """
    logging.captureWarnings(capture=True)
    logging.lastResort = JsonStderr()
    logging.lastResort.setLevel(logging.WARNING)
    handler = f"{JsonStderr.__module__}.{JsonStderr.__qualname__}"
    for name in ("CONSOLE", "DEBUG"):
        os.environ[f"PREFECT_LOGGING_HANDLERS_{name}_CLASS"] = handler
