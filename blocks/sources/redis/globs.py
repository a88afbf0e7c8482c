"""Globs as Redis understands them: `*`, `?`, `[a-z]`, `[^x]`, and a backslash before what means itself."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Globs:
    """Several globs, of which a key has to match one, exactly as SCAN does it.

    Args:
        patterns: The globs.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.encode() for pattern in patterns]
        made = [glob_regex(pattern).pattern for pattern in self._patterns]
        self._regex = re.compile(b"|".join(made), re.DOTALL)

    @property
    def everything(self) -> bool:
        """Whether all keys match."""
        return b"*" in self._patterns

    @property
    def certain(self) -> bool:
        """Whether all servers agree: whether bytes above 127 are in a range depends on their processor."""
        return not any(b"[" in pattern and not pattern.isascii() for pattern in self._patterns)

    def matches(self, keys: Sequence[bytes]) -> list[bool]:
        """Tell for each key whether it matches."""
        found = self._regex.fullmatch
        # a server does not look at a glob when the key is empty
        return [found(key) is not None if key else self._matches_nothing for key in keys]

    @property
    def _matches_nothing(self) -> bool:
        return self.everything or b"" in self._patterns


def glob_regex(pattern: bytes) -> re.Pattern[bytes]:
    """Translate a glob of Redis; keys have to match it as a whole."""
    made: list[bytes] = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"*":
            made.append(b".*")
        elif char == b"?":
            made.append(b".")
        elif char == b"[":
            regex, at = _class(pattern, at)
            made.append(regex)
        else:
            if char == b"\\" and at < len(pattern):
                char = pattern[at : at + 1]
                at += 1
            made.append(re.escape(char))
    return re.compile(b"".join(made), re.DOTALL)


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Translate what follows an opening bracket; one that is never closed ends with the pattern."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            first, last = sorted((pattern[at], pattern[at + 2]))
            members.update(range(first, last + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    chosen = members if not negated else set(range(256)) - members
    if not chosen:
        return b"(?!)", at + 1
    return b"[" + b"".join(b"\\x%02x" % each for each in sorted(chosen)) + b"]", at + 1
