"""Hints as the one who reads them would type them: what gives a hint knows only the plan's own name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence


def as_typed(hint: str, reference: str | None) -> str:
    """Name the plan in a command of a hint as it was given.

    Args:
        hint: A sentence with commands in it.
        reference: Path of the plan, or name of its block; None leaves the hint as it is.
    """
    if reference is None:
        return hint
    plan_by_name = r"`lastgood (list|status|backup|unlock|verify) (?!-)[a-z0-9._-]+(?=[` ])"
    hint = re.sub(plan_by_name, lambda m: f"`lastgood {m[1]} {reference}", hint)
    return hint.replace("`lastgood undo PLAN", f"`lastgood undo {shlex.quote(reference)}")


def nearest(name: str, names: Sequence[str]) -> str:
    """Say which known name is like one that is not known, for the end of a message; nothing where none is."""
    from difflib import get_close_matches  # only where something is wrong

    lower = {known.lower(): known for known in reversed(names)}
    near = get_close_matches(name.lower().strip("*"), list(lower), 1, 0.5)
    short = [known for known in names if known.partition("/")[2].casefold() == name.casefold()]
    found = short[0] if short else lower[near[0]] if near else None
    return f"; did you mean {found}?" if found else ""
