"""What types keys probably have, by their names: asking for the type of each takes long."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from blocks.sources.redis.rows import ELEMENTS, byte_strings

_MOST = 10_000
_WINDOW = 4_096


class Guesses:
    """Types that keys have had, by what their names begin with, up to a colon.

    A wrong guess costs one more question. May be used from several threads.
    """

    def __init__(self) -> None:
        self._types: dict[bytes, str] = {}

    def of(self, key: bytes) -> str | None:
        """Guess the type of a key; None where it may be a string or anything else."""
        return self._types.get(key.partition(b":")[0])

    def learn(self, key: bytes, kind: str) -> None:
        """Remember the type of a key."""
        if kind in ELEMENTS and len(self._types) < _MOST:
            self._types[key.partition(b":")[0]] = kind

    def sorted_out(self, keys: pa.LargeBinaryArray) -> Iterator[tuple[str | None, pa.LargeBinaryArray]]:
        """Yield all keys, some of one guessed type at a time; fast, and in order, where the keys are sorted.

        Args:
            keys: Names of keys, without NULLs; large_binary.
        """
        for start in range(0, len(keys), _WINDOW):
            window = keys.slice(start, _WINDOW)
            first, last = window[0].as_py(), window[-1].as_py()
            prefix, colon, _ = first.partition(b":")
            # what stands between two sorted names that begin alike begins like them
            if colon and last.startswith(prefix + colon):
                yield self.of(first), window
                continue
            kinds = [self.of(key) for key in byte_strings(window)]
            for kind in dict.fromkeys(kinds):
                yield kind, window.filter(pa.array([each == kind for each in kinds]))
