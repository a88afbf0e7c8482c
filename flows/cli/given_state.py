"""State that is given on the command line, in the place of a plan's live sources."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from blocks.errors import ConfigurationError

STDIN = "-"
"""Stands for what is read from stdin."""


def read_given_state(file: str) -> dict[str, object]:
    """Read state from a file of JSON: an object, of which each key is a record.

    Args:
        file: Its path, or `-` for stdin.

    Raises:
        ConfigurationError: It cannot be read, or is no such object.
    """
    called = "stdin" if file == STDIN else file
    hint = 'Write an object such as {"limits": {"max": 10}}, each key once; every key becomes a record.'
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigurationError(f"state {called}: {exc.strerror}", hint=hint) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"state {called} is not UTF-8, from byte {exc.start}", hint=hint) from None
    try:
        state = json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as exc:
        raise ConfigurationError(f"state {called}, line {exc.lineno}: {exc.msg}", hint=hint) from None
    except _Twice as exc:
        raise ConfigurationError(f"state {called}: the key {exc} stands twice in one object", hint=hint) from None
    if not isinstance(state, dict):
        raise ConfigurationError(f"state {called} is no JSON object", hint=hint)
    return state


class _Twice(Exception):
    """A key that would silently replace an earlier one."""


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(repr(name))
        found[name] = value
    return found
