"""Following chains of entries, each of which holds the distance to the next: many chains at once, in step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from blocks.sources.redis.rdb.layout import damaged
from blocks.sources.redis.read.grouping import Bytes, Ints

_FEW = 12
"""So many chains are followed one by one faster than in step."""


def walked(
    data: Bytes, begins: Ints, ends: Ints, ahead: Callable[[Bytes, Ints], Ints], one_ahead: Callable[[Bytes, int], int]
) -> tuple[Ints, Ints]:
    """Find all entries of chains.

    Args:
        data: Where they are, with PADDING after the last.
        begins: Where each chain begins.
        ends: Where each has to end exactly.
        ahead: Returns how far the next entries are from some; always more than 0.
        one_ahead: Does the same for one.

    Returns:
        Where the entries are, chain by chain, and how many each chain has.

    Raises:
        SourceUnavailable: One does not end where it has to.
    """
    counts = np.zeros(len(begins), np.int64)
    chains = np.flatnonzero(begins < ends)
    at, until = begins[chains], ends[chains]
    steps: list[tuple[Ints, Ints]] = []
    step = 0
    while len(chains) > _FEW:
        steps.append((chains, at))
        at = at + ahead(data, at)
        step += 1
        more = at < until
        if not more.all():
            counts[chains[~more]] = step
            _check_ends(at[~more], until[~more])
            chains, at, until = chains[more], at[more], until[more]
    singles = [_one(data, int(first), int(end), one_ahead) for first, end in zip(at, until, strict=True)]
    counts[chains] = [step + len(single) for single in singles]
    places = np.empty(int(counts.sum()), np.int64)
    bases = np.cumsum(counts) - counts
    for n, (owners, found) in enumerate(steps):
        places[bases[owners] + n] = found
    for chain, single in zip(chains.tolist(), singles, strict=True):
        places[bases[chain] + step : bases[chain] + counts[chain]] = single
    return places, counts


def _one(data: Bytes, at: int, end: int, one_ahead: Callable[[Bytes, int], int]) -> list[int]:
    found = []
    while at < end:
        found.append(at)
        at += one_ahead(data, at)
    _check_ends(np.array([at]), np.array([end]))
    return found


def _check_ends(at: Ints, ends: Ints) -> None:
    if (at != ends).any():
        raise damaged("an entry goes beyond the value that it is in")
