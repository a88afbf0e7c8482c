"""One command line in its process: found, done, and ended with an exit code."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from blocks.errors import ConfigurationError
from blocks.host.interrupts import Interrupts
from blocks.host.log_lines import FORMATS
from blocks.host.own_process import begin_process, lasts
from blocks.prefect_compat import log_format, prepare_prefect, without_common_options
from blocks.rows.without_pandas import spare_pandas
from flows.cli.exit import guarded
from flows.cli.manner import speak
from flows.cli.options import meant
from flows.cli.output import log_record
from flows.cli.tree import parse
from flows.pipeline.server_patience import end_prefect


def main(argv: Sequence[str] | None = None, interrupts: Interrupts | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: The words after `lastgood`; None takes those of this process, which is then the command's own.
        interrupts: Where `begin_process` was called already, what it returned.
    """
    words = sys.argv[1:] if argv is None else argv
    if argv is None:
        interrupts = interrupts or begin_process(words)
        spare_pandas()
    prepare_process(quiet=not lasts(words))
    code = _perform(words, interrupts.working if interrupts is not None else lambda: None)
    if argv is None:
        end_prefect()
    return code


def _perform(typed: Sequence[str], working: Callable[[], None]) -> int:
    """Do what was typed.

    Args:
        typed: The words after `lastgood`.
        working: Called when it is known what is to be done, before anything is.
    """
    words = _spelled_out(without_common_options(typed))
    speak(typed)
    debug = "--debug" in typed or os.environ.get("LASTGOOD_DEBUG", "") not in ("", "0")

    def work() -> object:
        if (form := log_format(typed)) not in FORMATS:
            raise ConfigurationError(
                f"{form!r} is no format of the log{meant(form, FORMATS)}" if form else "--log-format has no value",
                hint=f"`--log-format` and LASTGOOD_LOG say {' or '.join(FORMATS)}.",
            )
        command = parse(words)
        working()
        return command()

    # what hints name as the plan
    reference = next((word for word in words if word.endswith((".yaml", ".yml")) or os.sep in word), None)
    return guarded(work, debug, reference)


def prepare_process(quiet: bool) -> None:
    """Set what Prefect must know, and send what our own layers log to stderr.

    Args:
        quiet: Keep the log of runs off the terminal, where it would drown the result; the UI has it.
    """
    prepare_prefect(quiet=quiet)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files need not be text that the terminal can show
            stream.reconfigure(errors="backslashreplace")
    for name in ("blocks", "flows"):
        logging.getLogger(name).handlers = [_Said(logging.INFO)] if quiet else []
        logging.getLogger(name).setLevel(logging.INFO if quiet else logging.NOTSET)


class _Said(logging.Handler):
    """Prints what the layers below log the way a command says things."""

    def emit(self, record: logging.LogRecord) -> None:
        log_record(record)


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
