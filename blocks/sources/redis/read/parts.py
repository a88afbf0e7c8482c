"""Parts of a database: ranges of positions, that is of hash slots, and within a slot of the CRC of the key."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pydantic import JsonValue

from blocks.sources.collection import Bounds
from blocks.sources.redis.read.keys import END
from blocks.sources.runs import SortedRuns

_FOLLOWED = 64
"""At how many boundaries between the nodes of a cluster parts end, too; more are slots strewn about."""


def partition(spool: SortedRuns, parts: int, boundaries: Sequence[int] = ()) -> Sequence[Bounds]:
    """Partition into about so many parts of equal size, which also end where the slots of another node begin."""
    cuts = sorted({*spool.cuts(parts), *(boundaries if len(boundaries) <= _FOLLOWED else ())})
    edges: list[JsonValue] = [None, *map(_edge, _between_rows(cuts, spool)), None]
    return [{"from": first, "before": last} for first, last in itertools.pairwise(edges)]


def positions_in(bounds: Bounds) -> tuple[int, int]:
    """Return the position at which a part begins, and the one before which it ends."""
    return _position(bounds.get("from"), 0), _position(bounds.get("before"), END)


def _between_rows(cuts: Sequence[int], spool: SortedRuns) -> list[int]:
    """Leave out cuts before or after which there would be nothing."""
    chosen, last = list[int](), 0
    for cut in cuts:
        if spool.count(last, cut):
            chosen.append(cut)
            last = cut
    return chosen if spool.count(last, END) else chosen[:-1]


def _edge(position: int) -> JsonValue:
    return [position >> 16, position & 0xFFFF]


def _position(edge: object, otherwise: int) -> int:
    if not isinstance(edge, list):
        return otherwise
    slot, crc = edge
    return int(slot) << 16 | int(crc)
