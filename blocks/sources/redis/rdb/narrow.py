"""Values of narrow containers, written from their items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.items import Items
from blocks.sources.redis.rdb.layout import damaged
from blocks.sources.redis.read.grouping import Ints, Mask, before, offsets, ordered, ranked, regrouped, within
from blocks.sources.redis.rows import WIDE_BYTES, WIDE_ELEMENTS, score_texts, width_of

_POWERS = 10 ** np.arange(1, 12)
_END = b"\r\n"
_FRAME_BYTES = 5
"""What RESP needs for a string besides its bytes and the digits of their number; an array needs two less."""


def few_elements(items: Items, kind: str) -> Mask:
    """Return which containers are not wide by the number of their elements."""
    few: Mask = items.counts <= WIDE_ELEMENTS * width_of(kind)
    return few


def canonical(items: Items, kind: str) -> Items:
    """Put items into the order in which they are kept, and scores into their form.

    Raises:
        SourceUnavailable: An item stands twice where none can, or half of one is missing.
    """
    width = width_of(kind)
    if (items.counts % width).any():
        raise damaged(f"half of an element is missing in a {kind}")
    if kind == "list" or not len(items.chosen):
        return items
    pairs = items.chosen.reshape(-1, width)
    pieces = items.pieces
    ends, data = offsets(pieces), np.frombuffer(pieces.buffers()[2], np.uint8)
    names = pairs[:, 0]
    ranks = ranked(data, ends[names], ends[names + 1], lambda: pieces.take(pa.array(names)))
    order, once = ordered(ranks, items.counts // width)
    if not once.all():
        raise damaged(f"an element is there twice in a {kind}")
    if kind == "zset":
        scores = score_texts(pieces.take(pa.array(pairs[:, 1])))
        pairs = np.stack([names, len(pieces) + np.arange(len(names))], axis=1)
        pieces = pa.concat_arrays([pieces, scores])
    return Items(pieces, pairs[order].ravel(), items.counts)


def few_bytes(items: Items) -> Mask:
    """Return which containers are not wide by the size of their value."""
    sizes = _sizes(items)
    framed = np.append(0, np.cumsum(sizes + _digits(sizes) + _FRAME_BYTES))
    ends = np.cumsum(items.counts)
    found: Mask = framed[ends] - framed[ends - items.counts] + _digits(items.counts) + 3 <= WIDE_BYTES
    return found


def values(items: Items) -> pa.LargeBinaryArray:
    """Write the items of each container as a RESP array."""
    sizes = _sizes(items)
    heads, head = _numbered(b"*%d", items.counts)
    fronts, front = _numbered(b"\r\n$%d\r\n", sizes)
    first = len(items.pieces)
    pieces = pa.concat_arrays([items.pieces, fronts, heads, pa.array([_END], pa.large_binary())])
    begins = before(2 * items.counts + 2)
    chosen = np.full(2 * len(sizes) + 2 * len(items.counts), len(pieces) - 1, np.int64)
    chosen[begins] = first + len(fronts) + head
    places = within(begins + 1, items.counts, 2)
    chosen[places], chosen[places + 1] = first + front, items.chosen
    return regrouped(pieces, chosen, begins)


def _sizes(items: Items) -> Ints:
    ends = offsets(items.pieces)
    return ends[items.chosen + 1] - ends[items.chosen]


def _digits(numbers: Ints) -> Ints:
    found: Ints = 1 + np.searchsorted(_POWERS, numbers, side="right")
    return found


def _numbered(form: bytes, numbers: Ints) -> tuple[pa.LargeBinaryArray, Ints]:
    """Write each number that occurs once; returns the texts, and which of them each is."""
    there = np.zeros(int(numbers.max(initial=0)) + 1, np.bool_)
    there[numbers] = True
    places = np.cumsum(there) - 1
    return pa.array([form % number for number in np.flatnonzero(there).tolist()], pa.large_binary()), places[numbers]
