"""Answers of narrow containers turned into the values of rows, many at once and without an object for each element.

An answer is split into lines at every CRLF. Where a container's lines are follows from the numbers that RESP writes
before arrays and strings; only if each string is exactly as long as the number before it says was no CRLF inside
a string, and the lines are what they were taken for. Otherwise nothing is returned, and the caller parses the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from blocks.sources.redis.net.packing import bulk
from blocks.sources.redis.read.grouping import (
    Ints,
    Mask,
    before,
    offsets,
    ordered,
    ranked,
    regrouped,
    slices,
    texts_between,
    within,
)
from blocks.sources.redis.read.read_commands import SCANNED
from blocks.sources.redis.rows import WIDE_BYTES, WIDE_ELEMENTS, score_texts, width_of

_ARRAY, _STRING, _ERROR = b"*$-"
_DIGITS = 9
_STATISTICS = b"# Keyspace\r\n"


@dataclass(frozen=True)
class Narrow:
    """The ordinary ones among the containers of a batch.

    Attributes:
        found: For each key of the batch, whether it is one of them.
        values: The values of their rows, in order; large_binary.
        expiries: What PEXPIRETIME said of them.
    """

    found: Mask
    values: pa.LargeBinaryArray
    expiries: Ints


def narrow(kind: str, raw: bytes, count: int, behind: int = 2) -> Narrow | None:
    """Make the values of those containers that are narrow, not empty, and nowhere out of the ordinary.

    Args:
        kind: The type of all of them.
        raw: The raw answer of their transaction: for each an expiry and its elements, or an error in their place;
            and something more, of some length.
        count: How many containers there are.
        behind: How many lines that is.
    """
    lines = _Lines(raw, behind)
    groups = _found(lines, count, kind)
    if groups is None or not _has_stated_sizes(lines, groups):
        return None
    found = groups.counts > 0
    found &= groups.counts <= WIDE_ELEMENTS * width_of(kind)
    if kind in SCANNED:
        cursors = lines.starts[groups.heads - 1]
        found &= (lines.bytes[cursors] == ord("0")) & (lines.ends[groups.heads - 1] - cursors == 1)
    if not found.any():
        return Narrow(found, pa.array([], pa.large_binary()), np.zeros(0, np.int64))
    groups = groups.some(found)
    values, right = _listed(lines, groups) if kind == "list" else _sorted(lines, groups, kind)
    right &= np.diff(offsets(values)) <= WIDE_BYTES
    if not right.all():
        found[found] = right
        values, groups = values.filter(pa.array(right)), groups.some(right)
    return Narrow(found, values, lines.integers(groups.heads - _before_head(kind)))


def lines_of_statistics(raw: bytes, database: int) -> int | None:
    """Look at the statistics that end the answer of a transaction.

    Returns:
        How many lines they and the last item are; None if fields of some hash of the database may expire.
    """
    begin = raw.rfind(_STATISTICS)
    found = re.search(rb"\r\ndb%d:[^\r]*subexpiry=(\d+)" % database, raw[begin:])
    if begin < 0 or found is None or found[1] != b"0":
        return None
    return raw.count(b"\r\n", begin) + 1


class _Lines:
    """Where the lines of an answer begin and end, some at its end left out."""

    def __init__(self, raw: bytes, behind: int) -> None:
        self.raw = pa.py_buffer(raw)
        self.bytes = np.frombuffer(raw, np.uint8)
        returns = np.flatnonzero(self.bytes == ord("\r"))
        self.ends = returns[self.bytes[returns + 1] == ord("\n")][:-behind]
        self.starts = np.concatenate([np.zeros(1, np.int64), self.ends[:-1] + 2])
        self.kinds = self.bytes[self.starts]

    def numbers(self, lines: Ints) -> Ints:
        """Read the number that stands in each line after its first byte; -1 where it is too long to be right."""
        begins = self.starts[lines] + 1
        digits = self.ends[lines] - begins
        values = np.zeros(len(lines), np.int64)
        for n in range(min(int(digits.max(initial=0)), _DIGITS)):
            values = np.where(digits > n, values * 10 + self.bytes[begins + n] - ord("0"), values)
        values[digits > _DIGITS] = -1
        return values

    def integers(self, lines: Ints) -> Ints:
        """Read the integer in each line, which may be large, or negative."""
        texts = slices(self.raw, self.starts[lines] + 1, self.ends[lines])
        found: Ints = texts.cast(pa.large_string()).cast(pa.int64()).to_numpy()
        return found


@dataclass(frozen=True)
class _Groups:
    """The lines at which containers' arrays begin, and how many items each has; none at -1, where an error stands."""

    heads: Ints
    counts: Ints

    def some(self, chosen: Mask) -> _Groups:
        return self if chosen.all() else _Groups(self.heads[chosen], self.counts[chosen])

    def items(self) -> Ints:
        """Return the lines before which no item begins: each item has one for its size and one for itself."""
        return within(self.heads + 1, self.counts, 2)


def _found(lines: _Lines, count: int, kind: str) -> _Groups | None:
    """Find the arrays of containers: at once where all lines that look like one are one, else step by step."""
    before = _before_head(kind)
    arrays = np.flatnonzero(lines.kinds[1:] == _ARRAY) + 1
    items = lines.numbers(arrays)
    nested = 2 if kind in SCANNED else 1
    if len(arrays) != count * nested:
        return _walked(lines, count, before, dict(zip(arrays.tolist(), items.tolist(), strict=True)))
    begins, heads, counts = arrays[::nested] - 1, arrays[nested - 1 :: nested], items[nested - 1 :: nested]
    ends = heads + 1 + 2 * counts
    whole = begins[0] == 1 and ends[-1] == len(lines.kinds)
    linked = (heads - begins == before).all() and (ends[:-1] == begins[1:]).all()
    return _Groups(heads, counts) if whole and linked else None


def _walked(lines: _Lines, count: int, before: int, items: dict[int, int]) -> _Groups | None:
    """Go from array to array; None where that does not lead to the end."""
    line, heads, counts = 1, [], []
    for _ in range(count):
        head = line + before
        if head in items:
            heads.append(head)
            counts.append(items[head])
            line = head + 1 + 2 * items[head]
        elif line + 1 < len(lines.kinds) and lines.kinds[line + 1] == _ERROR:
            heads.append(-1)
            counts.append(0)
            line += 2
        else:
            return None
    return _Groups(np.array(heads), np.array(counts)) if line == len(lines.kinds) else None


def _before_head(kind: str) -> int:
    """Return how many lines of a container come before its elements' array: the expiry, and what SCAN answers first."""
    return 4 if kind in SCANNED else 1


def _has_stated_sizes(lines: _Lines, groups: _Groups) -> bool:
    """Whether every item is as long as the line before it says."""
    items = groups.items()
    sizes = lines.ends[items + 1] - lines.starts[items + 1]
    return bool((lines.kinds[items] == _STRING).all() and (lines.numbers(items) == sizes).all())


def _listed(lines: _Lines, groups: _Groups) -> tuple[pa.LargeBinaryArray, Mask]:
    """Take arrays as they are."""
    ends = lines.ends[groups.heads + 2 * groups.counts] + 2
    return slices(lines.raw, lines.starts[groups.heads], ends), np.ones(len(ends), np.bool_)


def _sorted(lines: _Lines, groups: _Groups, kind: str) -> tuple[pa.LargeBinaryArray, Mask]:
    """Sort the elements of each container, and say which of them have no element twice."""
    width, items = width_of(kind), groups.items()
    names = items[::width] + 1
    begins, ends = lines.starts[names], lines.ends[names]
    ranks = ranked(lines.bytes, begins, ends, lambda: slices(lines.raw, begins, ends))
    order, once = ordered(ranks, groups.counts // width)
    pieces, heads, places = _pieces(lines, groups, items)
    pairs = places.reshape(-1, width)
    if kind == "zset":
        scores = bulk(score_texts(slices(lines.raw, lines.starts[names + 2], lines.ends[names + 2])))
        pairs[:, 1] = len(pieces) + np.arange(len(pairs))
        pieces = pa.concat_arrays([pieces, scores])
    first = before(groups.counts + 1)
    chosen = np.empty(len(heads) + len(places), np.int64)
    chosen[first], chosen[within(first + 1, groups.counts)] = heads, pairs[order].ravel()
    return regrouped(pieces, chosen, first), once


def _pieces(lines: _Lines, groups: _Groups, items: Ints) -> tuple[pa.LargeBinaryArray, Ints, Ints]:
    """Cut the answer at heads and items; returns the pieces, and which of them are heads and which are items."""
    heads = before(groups.counts + 2)
    places = within(heads + 1, groups.counts)
    bounds = np.empty(len(heads) * 2 + len(items), np.int64)
    bounds[heads], bounds[places] = lines.starts[groups.heads], lines.starts[items]
    bounds[heads + groups.counts + 1] = lines.ends[groups.heads + 2 * groups.counts] + 2
    return texts_between(bounds, lines.raw), heads, places
