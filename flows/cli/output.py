"""Where output goes, and how: results to stdout, everything said along the way to stderr.

A command that prints to no terminal does not wait for rich to be imported. What tables are made of is in `tables.py`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import textwrap
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.host.log_lines import json_line, of_record, run_of, said_in, without_secrets
from flows.cli.manner import manner
from flows.cli.tables import Styled, Table, visible, width_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDTH_WITHOUT_TERMINAL = 200
"""Columns of what rich prints to a file or a pipe: nothing may be cut off there."""

_USUAL_COLUMNS = 80
_NO_BREAK = "\ufffc"
"""Stands for a blank where a line may not end; no text has it."""


def stdout() -> Console:
    """Return rich's console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return rich's console of notes, progress and errors."""
    return _console(stderr=True)


def interactive() -> bool:
    """Return whether a person can be asked: there is one who types, and who sees the question and what it is about."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def asks(question: str) -> bool:
    """Ask a person a question until the answer is yes or no, in any usual form; no answer at all is no.

    Args:
        question: What is asked, a sentence.
    """
    while True:
        try:
            answer = stderr().input(f"{question} Type yes or no: ").strip().strip(".!\"'`").lower()
        except EOFError:
            return False
        if answer in ("y", "yes"):
            return True
        if answer in ("n", "no", ""):
            return False
        note(f"{answer!r} is neither yes nor no")


def fits(table: Table) -> bool:
    """Return whether all of a table is shown, one line a row: a terminal may have no room for it."""
    return sys.stdout is None or not sys.stdout.isatty() or table.width <= _columns(sys.stdout)


def say_lines(table: Table, short: Callable[[], Table], wide: bool = False) -> None:
    """Print a table, one line a row, also on a terminal that has no room for it.

    Args:
        table: All of it.
        short: Makes what is shown on a terminal that is too narrow, as far as that has room.
        wide: All of it there, too; the terminal breaks what it cannot show.
    """
    if fits(table):
        say(table)
    elif wide:
        print(table.plain())
    else:
        say(short().fitted(stdout().width))


def say_sentence(text: str) -> None:
    """Print a sentence of a result; a terminal's lines end between words."""
    print(folded(visible(text), sys.stdout))


def folded(text: str, stream: TextIO | None, indent: int = 2) -> str:
    """Break lines that are too long for a terminal between words; a long id, and a command in backticks, stay whole.

    Args:
        text: What is printed.
        stream: Where to; only what a terminal shows is broken.
        indent: By how many places the rest of a line is indented, beyond what the line itself is.
    """
    if stream is None or not stream.isatty():
        return text
    columns = _columns(stream)
    lines = text.split("\n")
    return "\n".join(line if width_of(line) <= columns else _between_words(line, columns, indent) for line in lines)


def _between_words(line: str, columns: int, indent: int) -> str:
    rest = " " * (len(line) - len(line.lstrip()) + indent)
    kept = re.sub(r"`[^`]*`", lambda command: command[0].replace(" ", _NO_BREAK), line)
    broken = textwrap.fill(kept, columns, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)
    return broken.replace(_NO_BREAK, " ")


def _columns(stream: TextIO) -> int:
    """Return how wide a terminal is; `COLUMNS` says it to rich, too."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError):
        return _USUAL_COLUMNS


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


def note(text: str, level: int = logging.INFO, *, whole: bool = False) -> None:
    """Print a line that is not the result, after what was printed of that.

    Args:
        text: What is said.
        level: How grave it is, which only lines of JSON say.
        whole: Leave the line as it is on a terminal, too: it is a command to be copied.
    """
    if manner().logs_json:
        _to_stderr(json_line(level, text))
    else:
        said = visible(without_secrets(text))
        _to_stderr(said if whole else folded(said, sys.stderr))


def note_failure(text: str, error: BaseException, more: dict[str, JsonValue]) -> None:
    """Print a line of JSON of the log that says what went wrong, with the run that it ended and further keys."""
    _to_stderr(json_line(logging.ERROR, text, run_of(error), **more))


def log_record(record: logging.LogRecord) -> None:
    """Print what was logged below, as the command says things: warnings, with `--verbose` also what was done."""
    if record.levelno < logging.WARNING and manner().quiet:
        return
    if manner().logs_json:
        if record.levelno >= logging.WARNING:
            manner().keep(without_secrets(said_in(record)))
        _to_stderr(of_record(record))
    elif record.levelno >= logging.WARNING:
        warn(said_in(record))
    elif manner().verbose:
        note(said_in(record))


_one_line = threading.RLock()
"""Held while a line is written: threads log, too, and a signal may come in the middle of one."""


def _to_stderr(line: str) -> None:
    """Write a line. Where nobody takes it (a full disk, a reader that is gone) the work goes on, and says nothing."""
    if (stream := sys.stderr) is None:
        return
    if sys.stdout is not None:
        with suppress(OSError):  # the reader is gone, which is reported at the end
            sys.stdout.flush()
    with _one_line:
        try:
            stream.write(f"{line}\n")
            stream.flush()
        except OSError:
            # what is left in its buffer would fail again when the process ends
            with suppress(OSError, ValueError):
                _to_nowhere(stream)


def say_note(text: str) -> None:
    """Print a sentence that belongs to the result, and is none of its numbers."""
    note(text if manner().logs_json else f"note: {text}")


def warn(text: str) -> None:
    """Say what a person should know although all was done; with `--json` it is among the `warnings` of the result."""
    text = without_secrets(text)
    kept = manner().keep(text)
    if manner().logs_json:
        note(text, logging.WARNING)
    elif kept:
        return
    elif manner().json:
        note_json({"warning": text})
    else:
        note(f"warning: {text}")


def remark(text: str) -> None:
    """Print a line of passing interest, where a person looks on or all is to be said."""
    if manner().watched:
        note(text)


def say_json(value: JsonValue) -> None:
    """Print a result as JSON, in ASCII so that any terminal and any reader takes it; `warnings` are part of it."""
    assert isinstance(value, dict), "results are objects, so that keys can be added"
    own = value.get("warnings")
    found: list[JsonValue] = [*own] if isinstance(own, list) else []
    found += [warning for warning in manner().take() if warning not in found]
    print(json.dumps({**value, "warnings": found}, indent=2))


def say_data(value: JsonValue) -> None:
    """Print what a backup holds as JSON, as it is: nothing is added to it, and warnings are lines on stderr."""
    print(json.dumps(value, indent=2))
    for warning in manner().take():
        if not manner().logs_json:  # else it is said already
            note_json({"warning": warning})


def note_json(value: dict[str, JsonValue]) -> None:
    """Print an error, or a warning that comes after the result, as a line of JSON on stderr."""
    _to_stderr(json.dumps(value))


def deliver(print_it: Callable[[], None]) -> None:
    """Print what must have arrived before anything else is done: the disk or the reader behind stdout took it.

    Raises:
        ConfigurationError: It cannot be printed. Nothing may follow that needs it.
        BrokenPipeError: The reader went away.
    """
    if sys.stdout is None:
        raise ConfigurationError(_UNSEEN, hint="Run it again with stdout open.")
    try:
        sys.stdout.flush()
        print_it()
        sys.stdout.flush()
        _sync(sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as exc:
        with suppress(OSError, ValueError):
            drop_unprinted()
        raise ConfigurationError(f"{_UNSEEN}: {exc.strerror}", hint="Run it again and let it print.") from exc


def drop_unprinted() -> None:
    """Let what is left in the buffer of stdout go nowhere, since nobody takes it."""
    _to_nowhere(sys.stdout)


def _to_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)


_UNSEEN = "nothing can be printed to stdout, so nothing was made"


def _sync(stream: TextIO) -> None:
    """Let a disk say now that it is full; a pipe or a terminal has nothing to sync."""
    try:
        os.fsync(stream.fileno())
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.EBADF, None):
            raise


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
