"""Items of many containers, as pieces of one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.layout import PADDING
from blocks.sources.redis.read.grouping import Ints, Mask, before, within

PAD = pa.array([PADDING], pa.large_binary())


@dataclass(frozen=True)
class Items:
    """Items of containers.

    Attributes:
        pieces: Texts, some of which are items; PADDING follows the last item.
        chosen: Which they are, container by container.
        counts: How many each container has.
    """

    pieces: pa.LargeBinaryArray
    chosen: Ints
    counts: Ints

    def of(self, container: int) -> list[bytes]:
        """Return the items of one container."""
        first = int(self.counts[:container].sum())
        last = first + int(self.counts[container])
        found: list[bytes] = self.pieces.take(pa.array(self.chosen[first:last])).to_pylist()
        return found

    def some(self, containers: Mask) -> Items:
        """Return those of some containers."""
        if containers.all():
            return self
        return Items(self.pieces, self.chosen[np.repeat(containers, self.counts)], self.counts[containers])

    def joined(self, counts: Ints) -> Items:
        """Make one container of each so many that follow each other."""
        ends = np.append(0, np.cumsum(self.counts))[np.append(0, np.cumsum(counts))]
        return Items(self.pieces, self.chosen, np.diff(ends))


def in_order(groups: Sequence[tuple[Ints, Items]]) -> Items:
    """Bring groups of containers together.

    Args:
        groups: Each with the numbers of its containers among all of them.
    """
    if len(groups) == 1:
        return groups[0][1]
    counts = np.zeros(sum(len(numbers) for numbers, _ in groups), np.int64)
    for numbers, items in groups:
        counts[numbers] = items.counts
    begins, chosen, first = before(counts), np.empty(int(counts.sum()), np.int64), 0
    for numbers, items in groups:
        chosen[within(begins[numbers], items.counts)] = items.chosen + first
        first += len(items.pieces)
    return Items(pa.concat_arrays([*(items.pieces for _, items in groups), PAD]), chosen, counts)
