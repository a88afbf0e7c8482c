"""Globs as Redis understands them: `*`, `?`, `[a-z]`, `[^x]`, and a backslash before what means itself."""

from __future__ import annotations

import re


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
