"""Where output goes: results to stdout, everything said along the way to stderr."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from pydantic import JsonValue

from flows.cli.table import Styled, Table, visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH_WITHOUT_TERMINAL = 200
"""Columns of what rich prints to a file or a pipe: nothing may be cut off there."""


def stdout() -> Console:
    """Return rich's console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return rich's console of notes, progress and errors."""
    return _console(stderr=True)


def interactive() -> bool:
    """Tell whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def say(what: str | Styled | Table | RenderableType) -> None:
    """Print a result."""
    match what:
        case str():
            print(visible(what))
        case Styled() | Table() if _has_styles(sys.stdout):
            stdout().print(what.on_terminal(), soft_wrap=isinstance(what, Styled))
        case Styled() | Table():
            print(what.plain())
        case _:
            stdout().print(what)


def note(text: str) -> None:
    """Print a line that is not the result, after what was printed of that."""
    if sys.stderr is None:
        return
    if sys.stdout is not None:
        with suppress(OSError):  # who reads it is gone, which is met at the end
            sys.stdout.flush()
    print(visible(text), file=sys.stderr, flush=True)


def say_json(value: JsonValue) -> None:
    """Print a result as JSON, in ASCII so that any terminal and any reader takes it."""
    print(json.dumps(value, indent=2))


def _has_styles(stream: TextIO | None) -> bool:
    return stream is not None and (stream.isatty() or bool(os.environ.get("FORCE_COLOR")))


def _console(stderr: bool) -> Console:
    # takes long, and only terminals show what it can do
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    # what is printed comes from plans and data: nothing in it is markup
    return Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        width=None if stream.isatty() else WIDTH_WITHOUT_TERMINAL,
    )
