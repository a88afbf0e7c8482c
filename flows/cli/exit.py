"""From an error to what is printed and the exit code; the only place that catches everything."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from pydantic import JsonValue

from blocks.errors import LastgoodError
from blocks.host.interrupts import INTERRUPTED, Ended
from blocks.host.log_lines import without_secrets
from flows.cli.manner import manner
from flows.cli.output import drop_unprinted, note, note_failure, note_json
from flows.pipeline.hints import as_typed

UNEXPECTED = 1
USAGE = 2
BROKEN_PIPE = 141


class Misused(Exception):
    """A command line that is not understood.

    Attributes:
        called: The command whose help explains it.
    """

    def __init__(self, message: str, called: str) -> None:
        super().__init__(message)
        self.called = called


def guarded(work: Callable[[], object], debug: bool, reference: str | None = None) -> int:
    """Do a command's work and turn whatever it raises into one message on stderr and an exit code.

    Args:
        work: Runs the command.
        debug: Show the traceback of an error.
        reference: The plan as it was typed, for hints that name a command to type next.
    """
    try:
        code = _done(work)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        drop_unprinted()  # the reader (head, less) went away
        return BROKEN_PIPE
    except KeyboardInterrupt as exc:
        code = exc.code if isinstance(exc, Ended) else INTERRUPTED
        if manner().json or manner().logs_json:
            more = [as_typed(line, reference) for line in getattr(exc, "__notes__", ())]
            _note_error(exc, code, "Interrupted", "interrupted", " ".join(more))
        else:
            note("interrupted")
            _say_more(exc, reference)
        return code
    except Exception as exc:  # noqa: BLE001  the last line of defence: a person sees one line, not a traceback
        if debug and not manner().logs_json:
            note("".join(traceback.format_exception(exc)).rstrip("\n"), whole=True)
        code = explain(exc, reference, debug)
        _end_output()
        return code
    else:
        return code


def _end_output() -> None:
    """Print what is left now: where that fails again when the process ends, Python has an exit code of its own."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        drop_unprinted()


def _done(work: Callable[[], object]) -> int:
    try:
        code = work()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else UNEXPECTED
    return code if isinstance(code, int) else 0


def explain(error: Exception, reference: str | None = None, debug: bool = False) -> int:
    """Print what went wrong and what to do next; return the exit code."""
    match error:
        case LastgoodError():
            code, message, hint = error.exit_code, error.message, as_typed(error.hint, reference)
        case Misused():
            code, message, hint = USAGE, str(error), f"`{error.called} --help` shows how it is written."
        case _:
            code, hint = UNEXPECTED, _FAULT
            message = f"unexpected {type(error).__name__}: {without_secrets(_first_line(error))}"
    if manner().json or manner().logs_json:
        left = [as_typed(line, reference) for line in getattr(error, "__notes__", ())] if code == UNEXPECTED else []
        _note_error(error, code, type(error).__name__, message, " ".join([*left, hint]).strip(), debug)
        return code
    note(f"error: {message}")
    if code == UNEXPECTED:
        _say_more(error, reference)
    if hint:
        note(f"hint: {hint}")
    return code


_FAULT = "This is a fault in lastgood or below it. Run the command again with --debug for the traceback."


def _note_error(error: BaseException, code: int, kind: str, message: str, hint: str, debug: bool = False) -> None:
    """Print an error as JSON, with the warnings that no result has taken along; in a log also with its traceback."""
    told = _told(code, kind, message, hint)
    more: dict[str, JsonValue] = {"error": told, "warnings": [*manner().take()]}
    if not manner().logs_json:
        note_json(more)
        return
    if debug:
        more["exception"] = without_secrets("".join(traceback.format_exception(error)))
    note_failure(message, error, more)


def note_error_of(reference: str, error: LastgoodError) -> None:
    """Print what is wrong with one of several plans; the command goes on with the others.

    Args:
        reference: The plan as it was typed.
        error: What is wrong with it.
    """
    message = error.message if reference in error.message else f"{reference}: {error.message}"
    if manner().logs_json:
        note_failure(message, error, error_json(error))
        return
    note(f"error: {message}")
    if error.hint:
        note(f"hint: {error.hint}")


def error_json(error: LastgoodError) -> dict[str, JsonValue]:
    """Return an error as `--json` prints it."""
    return {"error": _told(error.exit_code, type(error).__name__, error.message, error.hint)}


def _told(code: int, kind: str, message: str, hint: str) -> dict[str, JsonValue]:
    return {"code": code, "kind": kind, "message": without_secrets(message), "hint": without_secrets(hint)}


def _say_more(error: BaseException, reference: str | None) -> None:
    """Print what was noted on the way: in what state things were left."""
    for line in getattr(error, "__notes__", ()):
        note(as_typed(line, reference))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
