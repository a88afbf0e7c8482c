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
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, TextIO
from urllib.parse import quote

from blocks.host.passwords import without_password, without_settings

FORMATS = ("text", "json")
"""In which a process can write its log."""

_SHORTEST = 4
"""Characters of a secret that is looked for in a line: a shorter one would be found in any word."""

_LEVELS = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
"""The words for levels in lines of JSON, for all from a number on; below it is `debug`, whatever others call it."""


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
    """The runs of this process that are under way or ended last, and what may stand in no line of any.

    The process's own, as its loggers are.
    """

    guard = threading.RLock()  # a signal may say a line in the middle of anything
    now: ClassVar[list[LoggedRun]] = []
    ended: ClassVar[deque[LoggedRun]] = deque(maxlen=16)
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
    keep_out(run.secrets)
    with _Runs.guard:
        _Runs.now.append(run)
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
            _Runs.ended.append(run)


def keep_out(variables: Collection[str]) -> None:
    """Let what environment variables hold stand in no line of this process from now on.

    Args:
        variables: Their names.
    """
    with _Runs.guard:
        _Runs.secrets |= frozenset(variables)


@contextmanager
def told_of(verb: str, backup_id: str | None = None) -> Iterator[None]:
    """Let the lines of a block be those of a run that has ended in this process: they say what came of it.

    Args:
        verb: What was done, as `LoggedRun` has it.
        backup_id: The backup that it was about; None for retention.
    """
    with _Runs.guard:
        found = [run for run in _Runs.ended if (run.verb, run.backup_id) == (verb, backup_id)]
    token = _run.set(found[-1] if found else None)
    try:
        yield
    finally:
        _run.reset(token)


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
        text = _as_written(value).sub("***", text)
    if "://" in text:
        text = re.sub(r"[^\s'\"<>()]*://[^\s'\"<>]*", lambda found: without_password(found[0]), text)
    return without_settings(text) if "=" in text or ":" in text else text


@lru_cache
def _as_written(value: str) -> re.Pattern[str]:
    """Return a pattern for a value as it may stand in a line: as it is, as Python or JSON writes it, and in URLs.

    Programs do not agree on which characters of a URL they write as `%2F`, nor on `%2f`.
    """
    in_url = "".join(_in_url(character) for character in value)
    escaped = {repr(value)[1:-1], json.dumps(value)[1:-1]}
    return re.compile("|".join([*map(re.escape, sorted(escaped, key=len, reverse=True)), in_url]))


def _in_url(character: str) -> str:
    if (coded := quote(character, safe="", errors="surrogateescape")) == character:
        return re.escape(character)
    either = [f"(?i:{coded})", re.escape(character), *([r"\+"] if character == " " else [])]
    return f"(?:{'|'.join(either)})"


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
        "level": next((word for least, word in _LEVELS if level >= least), "debug"),
        "message": said,
        "plan": run.plan if run else None,
        "verb": run.verb if run else None,
        "backup_id": run.backup_id if run else None,
        "operation_id": run.operation_id if run else None,
    }
    return json.dumps(_as_text(line | more), default=str)


def _as_text(value: object) -> object:
    """Return a value with bytes of names that are no text written out: many readers of JSON refuse half of a pair."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {name: _as_text(one) for name, one in value.items()}
        case list():
            return [_as_text(one) for one in value]
        case _:
            return value


def of_record(record: logging.LogRecord) -> str:
    """Write a record of `logging` as a line of JSON."""
    more: dict[str, object] = {"time": _time(record.created), "logger": record.name}
    if record.exc_info and record.exc_info[1] is not None:
        more["exception"] = without_secrets("".join(traceback.format_exception(record.exc_info[1])))
    return json_line(record.levelno, said_in(record), None, **more)


def said_in(record: logging.LogRecord) -> str:
    """Return what a record says; where it is given what does not fit into it, both apart."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args}"


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
    threading.excepthook = _thread_failed
    logging.lastResort = JsonStderr()
    logging.lastResort.setLevel(logging.WARNING)
    handler = f"{JsonStderr.__module__}.{JsonStderr.__qualname__}"
    for name in ("CONSOLE", "DEBUG"):
        os.environ[f"PREFECT_LOGGING_HANDLERS_{name}_CLASS"] = handler


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Say what ended a thread that nobody waits for; Python would print a traceback between the lines."""
    if failed.exc_value is None or isinstance(failed.exc_value, SystemExit):
        return
    name = failed.thread.name if failed.thread is not None else "?"
    logging.getLogger(__name__).error("the thread %s failed", name, exc_info=failed.exc_value)
