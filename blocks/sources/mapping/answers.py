"""What the methods of a state object answer: the keys that they list, and whether they stored what they were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from blocks.errors import SourceUnavailable, UnsupportedState


class NotStored(SourceUnavailable):
    """A method that writes came to its end, and has not stored or deleted what it was given."""


def is_no(answer: object) -> bool:
    """Whether an answer is False, of whichever library."""
    return isinstance(answer, bool | np.bool_) and not answer


def keys_of(call: str, answer: object) -> list[object]:
    """Return the keys that a method listed.

    Args:
        call: The method that was called, for messages.
        answer: What it answered.

    Raises:
        UnsupportedState: It is no collection of keys; a text is one of letters.
    """
    if isinstance(answer, str | bytes | bytearray | memoryview) or not isinstance(answer, Iterable):
        raise UnsupportedState(
            f"{call} answered {_shown(answer)}, which is no list of keys",
            hint="It answers the keys as text, in a list or anything else that can be looped over.",
        )
    return list(answer)


def refused_keys(answer: object, keys: Sequence[str], call: str) -> str | None:
    """Say what an answer has against it that all keys were set; None where it has nothing.

    None, and whatever else says nothing of keys, is no objection: each key is read back anyway.

    Args:
        answer: What the method answered.
        keys: The keys that it was given.
        call: The method; one key at a time it may answer any number.
    """
    if is_no(answer):
        return "False"
    if not call.startswith("batch_"):
        return None
    if isinstance(answer, Mapping):
        refused = [key for key, done in answer.items() if is_no(done)]
        return f"False for {len(refused)} keys, {refused[0]!r} first" if refused else None
    if isinstance(answer, list | tuple) and len(answer) == len(keys) and any(map(is_no, answer)):
        return f"False for {sum(map(is_no, answer))} keys"
    if isinstance(answer, int | np.integer) and not isinstance(answer, bool) and answer < len(keys):
        return str(answer)
    return None


def _shown(answer: object) -> str:
    return "None" if answer is None else f"a {type(answer).__name__}"
