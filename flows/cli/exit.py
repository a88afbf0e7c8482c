"""From an error to what is printed and the exit code; the only place that catches everything."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

from blocks.errors import LastgoodError
from flows.cli.console import note
from flows.cli.interrupts import INTERRUPTED

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
        work: The command.
        debug: Show the traceback of an error.
        reference: The plan as it was typed, for hints that name a command to type next.
    """
    try:
        code = _done(work)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader (head, less) went away; what is left in the buffer has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        note("interrupted")
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001  the last line of defence: a person sees one line, not a traceback
        if debug:
            traceback.print_exception(exc)
        return explain(exc, reference)
    else:
        return code


def _done(work: Callable[[], object]) -> int:
    try:
        code = work()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else UNEXPECTED
    return code if isinstance(code, int) else 0


def explain(error: Exception, reference: str | None = None) -> int:
    """Print what went wrong and what to do next; return the exit code."""
    if isinstance(error, LastgoodError):
        note(f"error: {error.message}")
        if error.hint:
            note(f"hint: {_as_typed(error.hint, reference)}")
        return error.exit_code
    if isinstance(error, Misused):
        note(f"error: {error}")
        note(f"hint: `{error.called} --help` shows how it is written.")
        return USAGE
    note(f"error: unexpected {type(error).__name__}: {_first_line(error)}")
    note("hint: This is a fault in lastgood or below it. Run the command again with --debug for the traceback.")
    return UNEXPECTED


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def _as_typed(hint: str, reference: str | None) -> str:
    """Name the plan in a command as it was typed: what gave the hint knows only the plan's own name."""
    if reference is None:
        return hint
    return re.sub(r"`lastgood (list|backup) [a-z0-9._-]+`", lambda m: f"`lastgood {m[1]} {reference}`", hint)
