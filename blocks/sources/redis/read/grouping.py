"""Texts of many containers, laid out one after the other: gathered, ordered and put together without an object each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

WORD = 8
"""As many bytes have to follow the last text whose rank is asked for."""
MOST_OWNERS = 1 << 16
"""How many containers can be ordered at once."""
# keeps so many bytes at the top of a word of eight
_TOP = np.array([~(2 ** (8 * (WORD - n)) - 1) & (2**64 - 1) for n in range(WORD)], np.uint64)


def ordered(ranks: Ranks, units: Ints) -> tuple[Ints, Mask]:
    """Order elements within their containers.

    Args:
        ranks: Of all elements, container by container.
        units: How many elements each container has; at most MOST_OWNERS containers.

    Returns:
        Where the elements are, in order, and which containers have none of them twice.
    """
    # sixteen bits are sorted by radix
    owners = np.repeat(np.arange(len(units), dtype=np.uint16), units)
    order = np.argsort(ranks)
    order = order[np.argsort(owners[order], kind="stable")]
    once = np.ones(len(units), np.bool_)
    once[owners[order[1:]][(np.diff(ranks[order]) == 0) & (np.diff(owners[order]) == 0)]] = False
    return order, once


def ranked(data: Bytes, begins: Ints, ends: Ints, texts: Callable[[], pa.LargeBinaryArray]) -> Ranks:
    """Return numbers that sort as texts do, and are equal where these are.

    Args:
        data: Where the texts are, with WORD bytes after the last.
        begins: Offset in the data where each begins, in bytes.
        ends: Offset in the data where each ends, in bytes.
        texts: Returns the texts themselves, which are needed where one is long.
    """
    sizes = ends - begins
    if sizes.max(initial=0) < WORD:
        words: Ranks = np.ndarray((len(data) - WORD + 1,), ">u8", data.data, 0, (1,))
        ranks: Ranks = (words[begins].astype(np.uint64) & _TOP[sizes]) | sizes.astype(np.uint64)
        return ranks
    found = texts().dictionary_encode()
    ranks = np.empty(len(found.dictionary), np.uint64)
    ranks[pc.sort_indices(found.dictionary).to_numpy()] = np.arange(len(ranks), dtype=np.uint64)
    chosen: Ranks = ranks[found.indices.to_numpy()]
    return chosen


def regrouped(pieces: pa.LargeBinaryArray, chosen: Ints, begins: Ints) -> pa.LargeBinaryArray:
    """Put pieces together.

    Args:
        pieces: Texts without NULLs; large_binary.
        chosen: Which of them, text by text.
        begins: Where in `chosen` each text begins.
    """
    taken = pieces.take(pa.array(chosen))
    return texts_between(offsets(taken)[np.append(begins, len(chosen))], taken.buffers()[2])


def slices(data: pa.Buffer, begins: Ints, ends: Ints) -> pa.LargeBinaryArray:
    """Return pieces of a buffer that follow each other, with gaps."""
    return cut(data, begins, ends).take(pa.array(np.arange(0, 2 * len(begins), 2)))


def cut(data: pa.Buffer, begins: Ints, ends: Ints) -> pa.LargeBinaryArray:
    """Return pieces of a buffer that follow each other without copying them; what is in between is a piece, too."""
    bounds = np.empty(2 * len(begins), np.int64)
    bounds[::2], bounds[1::2] = begins, ends
    return texts_between(bounds, data)


def texts_between(bounds: Ints, data: pa.Buffer | None) -> pa.LargeBinaryArray:
    """Return what lies between each two bounds."""
    if not len(bounds):
        return pa.array([], pa.large_binary())
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(np.ascontiguousarray(bounds)), data]
    )


def offsets(texts: pa.LargeBinaryArray) -> Ints:
    """Return where each text of an array begins in its data, and where the last one ends."""
    found = np.frombuffer(texts.buffers()[1], np.int64) if len(texts) else np.zeros(1, np.int64)
    return found[texts.offset : texts.offset + len(texts) + 1]


def before(counts: Ints) -> Ints:
    """Return how many come before each."""
    found: Ints = np.cumsum(counts) - counts
    return found


def within(begins: Ints, counts: Ints, step: int = 1) -> Ints:
    """Return begin, begin + step, ... for each, as many as it counts."""
    found: Ints = np.repeat(begins - step * before(counts), counts) + step * np.arange(counts.sum())
    return found
