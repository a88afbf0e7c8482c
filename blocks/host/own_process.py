"""What a process of the command's own begins with, before anything that takes long is imported."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from blocks.host.interrupts import Interrupts
from blocks.host.log_lines import json_line, speak_json
from blocks.host.memory import settle_allocators
from blocks.prefect_compat import log_format, needs_prefect, prepare_prefect, spare_prefect

_LASTING = ("serve", "demo")


def lasts(words: Sequence[str]) -> bool:
    """Return whether a command runs until it is stopped, with signals and logs as what it uses has them.

    Args:
        words: The words after `lastgood`.
    """
    return next((word for word in words if not word.startswith("--")), None) in _LASTING


def begin_process(words: Sequence[str]) -> Interrupts:
    """Take over signals, choose allocators, and settle whether this process has Prefect.

    Args:
        words: The words after `lastgood`.
    """
    as_json = log_format(words) == "json"
    interrupts = Interrupts(_interrupted) if as_json else Interrupts()
    if not lasts(words):
        interrupts.watch()
    settle_allocators()
    if as_json:
        speak_json()
    prepare_prefect(quiet=not lasts(words))
    if not needs_prefect(words):
        spare_prefect()
    return interrupts


def _interrupted(code: int) -> str:
    told = {"code": code, "kind": "Interrupted", "message": "interrupted", "hint": ""}
    return json_line(logging.ERROR, "interrupted", error=told, warnings=[])
