"""Reading an RDB value by value, where that is rare enough."""

from __future__ import annotations

from typing import cast

import numpy as np

from blocks.sources.redis.rdb.layout import INT_BYTES, LZF, PADDING, milliseconds
from blocks.sources.redis.rdb.listpacks import listpack_items
from blocks.sources.redis.rdb.lzf import decompressed, decompressed_one
from blocks.sources.redis.rdb.skip import past_string, read_length

_LONG_BYTES = 256
"""A compressed string of so many bytes is decompressed faster as many are."""


class Cursor:
    """A position in the data.

    Args:
        data: Holds all that is going to be read.
        at: Where to begin.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self.at = data, at

    def length(self) -> int:
        """Read a number."""
        found, self.at = read_length(self._data, self.at)
        return found

    def string(self) -> bytes:
        """Read a string of any form."""
        data, at = self._data, self.at
        first = data[at]
        if first < 0xC0:
            size, at = read_length(data, at)
            self.at = at + size
            return data[at : self.at]
        form = first & 0x3F
        self.at = past_string(data, at)
        if form < LZF:
            return b"%d" % int.from_bytes(data[at + 1 : at + 1 + INT_BYTES[form]], "little", signed=True)
        size, at = read_length(data, at + 1)
        text, at = read_length(data, at)
        packed = data[at : at + size]
        if size < _LONG_BYTES:
            return decompressed_one(packed, text)
        one = decompressed(np.frombuffer(packed, np.uint8), np.zeros(1, np.int64), np.array([size]), np.array([text]))
        return cast("bytes", one[0].as_py())

    def raw(self, size: int) -> bytes:
        """Take some bytes."""
        self.at += size
        return self._data[self.at - size : self.at]

    def time_ms(self) -> int:
        """Read a time in milliseconds since 1970."""
        found: int = milliseconds.unpack(self.raw(milliseconds.size))[0]
        return found

    def listpack(self) -> list[bytes]:
        """Read a string that is a listpack."""
        return listpack_of(self.string())


def listpack_of(packed: bytes) -> list[bytes]:
    """Return the entries of a listpack.

    Raises:
        SourceUnavailable: It is damaged.
    """
    data = np.frombuffer(packed + PADDING, np.uint8)
    return listpack_items(data, np.zeros(1, np.int64), np.array([len(packed)])).of(0)
