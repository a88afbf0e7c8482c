"""The `_key`s that somebody looks for: some, and all that begin in some ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from blocks.rows.parquet import KEY_BYTES


@dataclass(frozen=True)
class WantedKeys:
    """What is looked for; false where that is nothing.

    Attributes:
        keys: `_key`s.
        beginnings: Of each, all `_key`s that begin with it are looked for: the pieces of a file, what lies in a folder.
    """

    keys: frozenset[bytes] = frozenset()
    beginnings: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is looked for."""
        return bool(self.keys or self.beginnings)

    def near(self, may_be_there: Callable[[bytes, bytes], bool]) -> WantedKeys:
        """Keep what can be somewhere.

        Args:
            may_be_there: Whether anything from the first `_key` to the second can be there.
        """
        keys = frozenset(key for key in self.keys if may_be_there(key, key))
        return WantedKeys(keys, frozenset(begin for begin in self.beginnings if may_be_there(begin, _end_of(begin))))

    def ranges(self) -> list[tuple[bytes, bytes]]:
        """Return from where to where keys are looked for, as far as the first 64 bytes of keys tell."""
        return [*((key, key) for key in self.keys), *((begin, _end_of(begin)) for begin in self.beginnings)]

    def among(self, keys: pa.LargeBinaryArray) -> pa.BooleanArray:
        """Return which of some `_key`s are looked for."""
        begun = (pc.starts_with(keys, pattern=begin) for begin in self.beginnings)
        return reduce(pc.or_, begun, pc.is_in(keys, pa.array(self.keys, pa.large_binary())))

    def without(self, keys: Iterable[bytes]) -> WantedKeys:
        """Leave out `_key`s, of which it is known what became of them; of beginnings there can be more."""
        return WantedKeys(self.keys.difference(keys), self.beginnings)


def _end_of(begin: bytes) -> bytes:
    return begin + b"\xff" * KEY_BYTES
