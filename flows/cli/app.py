"""One command line in its process: what takes long is begun first, then the command is found and done."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence

from flows.cli.engine import leave, start
from flows.cli.interrupts import Interrupts


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: The words after `lastgood`; None takes those of this process.
    """
    words = _spelled_out(list(sys.argv[1:] if argv is None else argv))
    debug = "--debug" in words or os.environ.get("LASTGOOD_DEBUG", "") not in ("", "0")
    tokens = [word for word in words if word != "--debug"]
    # a program that calls this may want Prefect afterwards; the command's own process does not
    brief, interrupts = words[:1] not in (["serve"], ["demo"]), Interrupts()
    if argv is None:
        if brief:
            interrupts.watch()
        start(tokens)
    prepare_process(quiet=brief)
    # not sooner: what was begun goes on beside these imports
    from flows.cli.exit import guarded
    from flows.cli.tree import perform

    reference = next((word for word in tokens if word.endswith((".yaml", ".yml")) or os.sep in word), None)
    interrupts.working()
    code = guarded(lambda: perform(tokens), debug, reference)
    if argv is None and brief:
        leave(code)
    return code


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
