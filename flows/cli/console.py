"""Where output goes: results to stdout, everything said along the way to stderr."""

from __future__ import annotations

import json
import sys

from pydantic import JsonValue
from rich.console import Console, RenderableType

WIDTH_WITHOUT_TERMINAL = 200
"""Columns where output goes to a file or a pipe: no id may be cut off there."""


def stdout() -> Console:
    """Return the console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return the console of notes, progress and errors."""
    return _console(stderr=True)


def interactive() -> bool:
    """Tell whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def say(what: RenderableType) -> None:
    """Print a result."""
    stdout().print(what, soft_wrap=isinstance(what, str))


def note(text: str) -> None:
    """Print a line that is not the result."""
    stderr().print(text, soft_wrap=True)


def say_json(value: JsonValue) -> None:
    """Print a result as JSON, in ASCII so that any terminal and any reader takes it."""
    print(json.dumps(value, indent=2))


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # what is printed comes from plans and data: nothing in it is markup
    return Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        width=None if stream.isatty() else WIDTH_WITHOUT_TERMINAL,
    )
