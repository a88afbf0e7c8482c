"""One command line in its process: what takes long is begun first, then the command is found and done."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from flows.cli.engine import leave, start
from flows.cli.interrupts import Interrupts


def run(words: Sequence[str], *, brief: bool) -> int:
    """Run a command line for a program, and return its exit code.

    Args:
        words: The words after `lastgood`.
        brief: Show nothing of the logs of runs.
    """
    prepare_process(quiet=brief)
    return _Line(words).perform(lambda: None)


def run_alone(words: Sequence[str], interrupts: Interrupts, *, brief: bool) -> int:
    """Run the command line of a process that does nothing else, and return its exit code.

    Args:
        words: The words after `lastgood`.
        interrupts: Told when there is something to be ended in good order.
        brief: End the process with the command, and show nothing of the logs of runs.
    """
    line = _Line(words)
    start(line.words)
    prepare_process(quiet=brief)
    code = line.perform(interrupts.working)
    if brief:
        leave(code)
    return code


class _Line:
    """What was typed.

    Attributes:
        words: Without `--debug`.
    """

    def __init__(self, words: Sequence[str]) -> None:
        said = _spelled_out(list(words))
        self._debug = "--debug" in said or os.environ.get("LASTGOOD_DEBUG", "") not in ("", "0")
        self.words = [word for word in said if word != "--debug"]

    def perform(self, working: Callable[[], None]) -> int:
        """Do it, and return its exit code.

        Args:
            working: Called when it is known what is to be done, before anything is.
        """
        # not sooner: what was begun goes on beside these imports
        from flows.cli.exit import guarded
        from flows.cli.tree import parse

        def work() -> object:
            command = parse(self.words)
            working()
            return command()

        # what hints name as the plan
        reference = next((word for word in self.words if word.endswith((".yaml", ".yml")) or os.sep in word), None)
        return guarded(work, self._debug, reference)


def prepare_process(quiet: bool) -> None:
    """Set what Prefect must know before it is imported, and send our own warnings to stderr.

    Args:
        quiet: Keep the log of runs off the terminal, where it would drown the result; the UI has it.
    """
    # a command never starts a server behind the user's back
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "false")
    if quiet:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files need not be text that the terminal can show
            stream.reconfigure(errors="backslashreplace")
    for name in ("blocks", "flows"):
        logging.getLogger(name).handlers = [_Warnings(logging.WARNING)] if quiet else []


class _Warnings(logging.Handler):
    """Prints what the layers below log as warnings the way a command says things."""

    def emit(self, record: logging.LogRecord) -> None:
        from flows.cli.console import note

        note(f"warning: {record.getMessage()}")


def _spelled_out(words: list[str]) -> list[str]:
    """Let `--read-data` stand for all of it: an option with an optional value."""
    if words[:1] != ["check"]:
        return words
    out: list[str] = []
    for word in words:
        if out and out[-1] == "--read-data=100%" and re.fullmatch(r"[0-9.]+%", word):
            out[-1] = f"--read-data={word}"
        else:
            out.append("--read-data=100%" if word == "--read-data" else word)
    return out
