"""Which keys of a backup the plan's patterns cover now, also of keys that the object does not have any more.

What a pattern means is the object's own affair. For keys that it lists, its answer counts. One that is gone is held
against the pattern as a glob, which is what patterns are, unless the object's answers say that they are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from blocks.errors import LastgoodError

_FOREIGN = re.compile(r"\.\*|[%^$\\]")
"""What regular expressions and LIKE patterns look like."""
_GLOB = re.compile(r"[*?\[]")

Verdicts = dict[str, bool | None]
"""Whether a key is covered, by key; None where that is not known."""


class Coverage:
    """What a plan's patterns cover.

    Args:
        patterns: The patterns of the plan.
        listed: Asks the object for the keys of one pattern.
        present: Asks the object which of some keys it has, whatever its patterns say.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        listed: Callable[[str], list[str]],
        present: Callable[[Sequence[str]], set[str]],
    ) -> None:
        self._patterns, self._listed, self._present = patterns, listed, present

    @property
    def everything(self) -> bool:
        """Whether any key is covered."""
        return "*" in self._patterns

    def verdicts(self, keys: Sequence[str]) -> Verdicts:
        """Return for each key whether the patterns cover it."""
        found: Verdicts = {key: self.everything or any(fnmatchcase(key, p) for p in self._patterns) for key in keys}
        beside = [key for key, covered in found.items() if not covered]
        if beside and not self._are_globs():
            found.update(self._asked(beside))
        return found

    def _are_globs(self) -> bool:
        """Judge the patterns by what the object lists for them; where that decides nothing, by form, or by `*`."""
        listed = {pattern: self._keys(pattern) for pattern in self._patterns}
        if not all(fnmatchcase(key, pattern) for pattern, keys in listed.items() for key in keys):
            return False
        globs = [pattern for pattern in self._patterns if _GLOB.search(pattern)]
        if any(listed[pattern] for pattern in globs):
            return True
        foreign = any(_FOREIGN.search(pattern) for pattern in self._patterns)
        return bool(globs and not foreign) or bool(self._keys("*"))

    def _asked(self, keys: Sequence[str]) -> Verdicts:
        listed = {key for pattern in self._patterns for key in self._keys(pattern)}
        try:
            there = self._present(keys)
        except LastgoodError:
            there = set()
        return {key: True if key in listed else False if key in there else None for key in keys}

    def _keys(self, pattern: str) -> list[str]:
        try:
            return self._listed(pattern)
        except LastgoodError:  # it cannot be asked, or not this
            return []
