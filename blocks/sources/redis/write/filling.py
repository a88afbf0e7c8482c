"""Commands that put the elements of containers, and strings, and frames of a reasonable size that they are sent in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.redis.net.packing import bulk, joined
from blocks.sources.redis.net.wire import Word, packed
from blocks.sources.redis.read.streams import KEY
from blocks.sources.redis.rows import LARGE_BYTES, byte_strings

FRAME_BYTES = 256 * 1024
FILL = {"hash": b"HSET", "list": b"RPUSH", "set": b"SADD", "zset": b"ZADD"}
_WORDS = 2_000
_SET, _SET_UNTIL = (pa.scalar(b"*%d\r\n$3\r\nSET\r\n" % words, pa.large_binary()) for words in (3, 5))

Command = tuple[Word, ...]

Frame = tuple[bytes, int, bool]
"""Packed commands, how many they are, and whether others see what they do."""


class Pieces:
    """Commands that are being put together."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.count = self.size = 0

    def add(self, commands: bytes, count: int = 1) -> None:
        """Take packed commands."""
        self._pieces.append(commands)
        self.count += count
        self.size += len(commands)

    def taken(self) -> tuple[bytes, int]:
        """Return all of them and how many they are, and start over."""
        taken = b"".join(self._pieces), self.count
        self._pieces, self.count, self.size = [], 0, 0
        return taken


def filled(kind: str, key: bytes, items: list[bytes]) -> bytes:
    """Return the command that puts all elements of a narrow container.

    Raises:
        ValueError: They are not those of such a container.
    """
    if not items or (kind in ("hash", "zset") and len(items) % 2):
        raise ValueError(f"no narrow {kind}")
    if kind == "zset":
        items[::2], items[1::2] = items[1::2], items[::2]
    return packed(FILL[kind], key, *items)


def filling(kind: str, elements: Iterable[tuple[bytes, bytes]]) -> Iterator[Command]:
    """Yield commands that put the elements, each with about as many as fit into a frame."""
    words: list[Word] = []
    size = 0
    for element, value in elements:
        if kind == "zset":
            words += (value, element)
        elif kind == "hash":
            words += (element, value)
        else:
            words.append(value if kind == "list" else element)
        size += len(element) + len(value)
        if size >= FRAME_BYTES or len(words) >= _WORDS:
            yield FILL[kind], KEY, *words
            words, size = [], 0
    if words:
        yield FILL[kind], KEY, *words


def setting(keys: pa.LargeBinaryArray, values: pa.LargeBinaryArray, at_ms: pa.Int64Array) -> Iterator[Frame]:
    """Yield frames that set strings; a long one is copied once.

    Args:
        keys: Their keys.
        values: Their values.
        at_ms: When they go by themselves, in milliseconds since 1970; NULL where never.
    """
    long = pc.greater_equal(pc.binary_length(values), LARGE_BYTES)
    for n in np.flatnonzero(long.to_numpy(zero_copy_only=False)).tolist():
        value, until = values[n].as_buffer(), at_ms[n].as_py()
        begin = packed(b"SET", keys[n].as_py()).replace(b"*2", b"*3" if until is None else b"*5", 1)
        end = b"" if until is None else packed(b"PXAT", until).partition(b"\r\n")[2]
        yield b"".join([begin, b"$%d\r\n" % value.size, memoryview(value), b"\r\n", end]), 1, True
    if long.true_count:
        keys, values, at_ms = (column.filter(pc.invert(long)) for column in (keys, values, at_ms))
    begins = pc.if_else(at_ms.is_null(), _SET, _SET_UNTIL)
    ends = joined(b"$4\r\nPXAT\r\n", bulk(at_ms.cast(pa.large_string()).cast(pa.large_binary())))
    yield from _framed(joined(begins, bulk(keys), bulk(values), pc.fill_null(ends, b"")))


def _framed(commands: pa.LargeBinaryArray) -> Iterator[Frame]:
    """Cut commands into frames of a reasonable size."""
    sizes = np.cumsum(pc.binary_length(commands).to_numpy())
    cuts = np.searchsorted(sizes, np.arange(FRAME_BYTES, sizes[-1] if len(sizes) else 0, FRAME_BYTES))
    for first, last in pairwise(np.unique([0, *cuts, len(sizes)]).tolist()):
        yield b"".join(byte_strings(commands.slice(first, last - first))), last - first, True
