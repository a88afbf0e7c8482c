"""CRC-16 (XMODEM) of many texts at once.

It is linear, and zeros before a text change nothing: so it is the sum of what each two bytes contribute by how far
they are from the end.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache

import numpy as np
import numpy.typing as npt

from blocks.sources.redis.read.grouping import Bytes, Ints

Crcs = npt.NDArray[np.uint16]

_WORD = 8
_PAIRS = _WORD // 2
_LONGEST = 64
"""Longer texts are taken one by one."""
# keeps so many bytes at the end of a word of eight
_LAST = np.array([(2**64 - 1) & ~(2 ** (8 * (_WORD - n)) - 1) for n in range(_WORD + 1)], np.uint64)


def crcs_of(data: Bytes, begins: Ints, ends: Ints) -> Crcs:
    """Return the CRC of each text.

    Args:
        data: The bytes that hold them.
        begins: Offset in the data where each begins, in bytes.
        ends: Offset in the data where each ends, in bytes.
    """
    sizes = ends - begins
    crcs = np.zeros(len(sizes), np.uint16)
    padded = np.concatenate([np.zeros(_WORD, np.uint8), data])
    words = np.ndarray((len(data) + 1,), "<u8", padded.data, 0, (1,))
    for block in range(-(-min(int(sizes.max(initial=0)), _LONGEST) // _WORD)):
        left = np.clip(sizes - _WORD * block, 0, _WORD)
        # of what has ended already no bytes are kept, wherever they are from
        found = words[np.maximum(ends - _WORD * block, 0)].astype(np.uint64) & _LAST[left]
        pairs = found.view("<u2").reshape(-1, _PAIRS)
        for n in range(_PAIRS):
            crcs ^= _contributions(_PAIRS * (block + 1) - 1 - n)[pairs[:, n]]
    for n in np.flatnonzero(sizes > _LONGEST).tolist():
        crcs[n] = crc_hqx(data[begins[n] : ends[n]].tobytes(), 0)
    return crcs


@cache
def _contributions(pairs: int) -> Crcs:
    """Return what two bytes, read as one number, contribute that have so many pairs of bytes after them."""
    if not pairs:
        return np.array([crc_hqx(bytes([n & 0xFF, n >> 8]), 0) for n in range(1 << 16)], np.uint16)
    return _followed(_followed(_contributions(pairs - 1)))


def _followed(crcs: Crcs) -> Crcs:
    """Return CRCs as they are after one more byte, which is zero."""
    bytewise = np.array([crc_hqx(bytes([n]), 0) for n in range(256)], np.uint16)
    followed: Crcs = crcs << np.uint16(8) ^ bytewise[crcs >> np.uint16(8)]
    return followed
