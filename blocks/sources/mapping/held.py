"""Values that a caller hands over, as the state object that a mapping source reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase


class HeldState:
    """A picture of some state, by key.

    Args:
        state: The values; later additions and removals are not seen.
    """

    def __init__(self, state: Mapping[str, object]) -> None:
        self._state = dict(state)

    def get_keys_by_pattern(self, pattern: str) -> list[str]:
        """Return the keys that match a glob; what is no text is listed, for the reader to refuse by name."""
        return [key for key in self._state if not isinstance(key, str) or fnmatchcase(key, pattern)]

    def get_state(self, key: str) -> object:
        """Return a value.

        Raises:
            KeyError: There is none.
        """
        return self._state[key]

    def create_snapshot(self) -> HeldState:
        """Return itself: it does not change."""
        return self


class SnapshotState(HeldState):
    """All of a state at one moment, as a dict: its keys are held against patterns as globs, and as the object does.

    Args:
        state: The values; later additions and removals are not seen.
        listed: Asks the live object for the keys of a pattern, which may be something else than a glob.
    """

    def __init__(self, state: Mapping[str, object], listed: Callable[[str], Iterable[object]]) -> None:
        super().__init__(state)
        self._listed = listed

    def get_keys_by_pattern(self, pattern: str) -> list[str]:
        """Return the keys that match a glob, or that the object itself lists for the pattern."""
        found = super().get_keys_by_pattern(pattern)
        if len(found) == len(self._state):
            return found
        named = set(self._listed(pattern)) | set(found)
        return [key for key in self._state if key in named]
