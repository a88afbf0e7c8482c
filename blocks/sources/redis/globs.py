"""Globs as Redis understands them: `*`, `?`, `[a-z]`, `[^x]`, and a backslash before what means itself."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Globs:
    """Several globs, of which a key has to match one, exactly as SCAN does it.

    A processor takes bytes above 127 for negative or for positive, and so ranges with one end below and one above mean
    other keys on other servers. A plan may not have them (see `differing`); of a backup that was made by one, only keys
    match that it means on all servers.

    Args:
        patterns: The globs.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern.encode() for pattern in patterns]
        kinds = (False, True) if any(map(differing, patterns)) else (False,)
        self._regexes = [
            re.compile(b"|".join(glob_regex(pattern, signed=signed).pattern for pattern in self._patterns), re.DOTALL)
            for signed in kinds
        ]

    @property
    def everything(self) -> bool:
        """Whether all keys match."""
        return b"*" in self._patterns

    def matches(self, keys: Sequence[bytes]) -> list[bool]:
        """Return for each key whether it matches on all servers."""
        found = [regex.fullmatch for regex in self._regexes]
        # a server does not look at a glob when the key is empty
        return [all(match(key) for match in found) if key else self._matches_nothing for key in keys]

    @property
    def _matches_nothing(self) -> bool:
        return self.everything or b"" in self._patterns


def differing(pattern: str) -> bool:
    """Whether a glob means other keys on other servers."""
    data = pattern.encode()
    return glob_regex(data).pattern != glob_regex(data, signed=True).pattern


def glob_regex(pattern: bytes, *, signed: bool = False) -> re.Pattern[bytes]:
    """Translate a glob of Redis; keys have to match it as a whole.

    Args:
        pattern: The glob.
        signed: Whether the server's processor takes bytes above 127 for negative.
    """
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
            regex, at = _class(pattern, at, signed)
            made.append(regex)
        else:
            if char == b"\\" and at < len(pattern):
                char = pattern[at : at + 1]
                at += 1
            made.append(re.escape(char))
    return re.compile(b"".join(made), re.DOTALL)


def _class(pattern: bytes, at: int, signed: bool) -> tuple[bytes, int]:
    """Translate what follows an opening bracket; one that is never closed ends with the pattern."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            members.update(_range(pattern[at], pattern[at + 2], signed))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    chosen = members if not negated else set(range(256)) - members
    if not chosen:
        return b"(?!)", at + 1
    return b"[" + b"".join(b"\\x%02x" % each for each in sorted(chosen)) + b"]", at + 1


def _range(one: int, other: int, signed: bool) -> set[int]:
    first, last = sorted(_as_number(end, signed) for end in (one, other))
    return {byte for byte in range(256) if first <= _as_number(byte, signed) <= last}


def _as_number(byte: int, signed: bool) -> int:
    return byte - 256 if signed and byte > 127 else byte
