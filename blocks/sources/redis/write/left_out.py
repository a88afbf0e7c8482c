"""What a restore that keeps going left out: keys that the server refuses, and libraries of functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from blocks.sources.redis.write.staging import Staging
from blocks.sources.target import NotRebuilt


class LeftOut:
    """Knows what was left out so far.

    Args:
        staging: What is made ready.
        databases: The number of the database of each collection, by its name.
    """

    def __init__(self, staging: Staging, databases: Mapping[str, int]) -> None:
        self._staging = staging
        self._names = {number: name for name, number in databases.items()}
        self.libraries: Sequence[NotRebuilt] = ()
        """The libraries of functions among it."""

    def keys(self, number: int) -> pa.LargeBinaryArray:
        """Return the keys of a database among it."""
        return pa.array([key for of, key in list(self._staging.left_out) if of == number], pa.large_binary())

    def named(self) -> Sequence[NotRebuilt]:
        """Return all of it by name, with the reasons."""
        keys = [
            NotRebuilt(f"key {self._names.get(number, f'db{number}')}/{_text(key)}", reason)
            for (number, key), reason in sorted(self._staging.left_out.items())
        ]
        return [*self.libraries, *keys]


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")
