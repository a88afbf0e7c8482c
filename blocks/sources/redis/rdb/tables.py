"""Containers that are kept string by string, and lists of several nodes: the items of many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from blocks.sources.redis.rdb.items import PAD, Items, in_order
from blocks.sources.redis.rdb.layout import PACKED, PADDING, PLAIN, damaged
from blocks.sources.redis.rdb.listpacks import listpack_items
from blocks.sources.redis.rdb.skip import past_string
from blocks.sources.redis.rdb.strings import Strings, lengths_at, pieces_of, strings_at, unpacked_texts
from blocks.sources.redis.rdb.walk import walked
from blocks.sources.redis.read.grouping import Bytes, Ints, Mask, offsets
from blocks.sources.redis.rows import double_texts

_SCORE_BYTES = 8


class TableReader:
    """Reads containers that are wholly inside the data.

    Args:
        data: The bytes that hold them.
        array: The same, with PADDING after it.
    """

    def __init__(self, data: bytes, array: Bytes) -> None:
        self._data, self._array = data, array

    def strings(self, values: Ints, ends: Ints, width: int) -> Items:
        """Take the items of sets and hashes.

        Args:
            values: Where the value of each begins.
            ends: Offset in the data where it ends, in bytes.
            width: How many strings an element has.
        """
        found, counts = self._entries(values, ends, width)
        pieces, chosen = pieces_of(self._array, found)
        return Items(pa.concat_arrays([pieces, PAD]), chosen, counts)

    def scored(self, values: Ints, ends: Ints) -> Items:
        """Take the members and scores of sorted sets; see `strings`."""
        found, counts = self._entries(values, ends, 1, after=_SCORE_BYTES)
        return self._scores(found, 2 * counts)

    def scored_at(self, places: Ints) -> Items:
        """Take members and scores, as those of one set, by where each begins."""
        return self._scores(strings_at(self._array, places), np.array([2 * len(places)]))

    def _scores(self, found: Strings, counts: Ints) -> Items:
        doubles = np.ndarray((len(self._array) - 7,), "<f8", self._array.data, 0, (1,))[found.ends]
        if np.isnan(doubles).any():
            raise damaged("a score is no number")
        pieces, names = pieces_of(self._array, found)
        chosen = np.stack([names, len(pieces) + np.arange(len(names))], axis=1).ravel()
        return Items(pa.concat_arrays([pieces, double_texts(pa.array(doubles)), PAD]), chosen, counts)

    def lists(self, values: Ints, ends: Ints) -> Items:
        """Take the items of lists, node by node; see `strings`."""
        nodes, counts = self._entries(values, ends, 1, front=1)
        return self._nodes(nodes).joined(counts)

    def nodes_at(self, places: Ints) -> Items:
        """Take the items of nodes of a list, as those of one list, by where each begins."""
        for kind in np.unique(self._array[places]).tolist():
            if kind not in (PLAIN, PACKED):
                raise damaged(f"a node of a list is of kind {kind}")
        return self._nodes(strings_at(self._array, places + 1)).joined(np.array([len(places)]))

    def _nodes(self, nodes: Strings) -> Items:
        plain = self._array[nodes.starts - 1] == PLAIN
        groups = []
        if plain.any():
            pieces, chosen = pieces_of(self._array, nodes.some(plain))
            groups.append((np.flatnonzero(plain), Items(pieces, chosen, np.ones(len(chosen), np.int64))))
        if not plain.all():
            packed = packed_items(self._array, nodes.some(~plain), listpack_items)
            groups.append((np.flatnonzero(~plain), packed))
        return in_order(groups)

    def _entries(self, values: Ints, ends: Ints, width: int, *, front: int = 0, after: int = 0) -> tuple[Strings, Ints]:
        """Find the strings of containers, each with some bytes before and after it; returns how many each has, too."""
        data = self._data

        def ahead(array: Bytes, at: Ints) -> Ints:
            return strings_at(array, at + front).ends + after - at

        def one_ahead(array: Bytes, at: int) -> int:
            return past_string(data, at + front) + after - at

        said, begins = lengths_at(self._array, values)
        places, counts = walked(self._array, begins, ends, ahead, one_ahead)
        if (said * width != counts).any():
            raise damaged("a container has another number of elements than was said")
        return strings_at(self._array, places + front), counts


def packed_items(data: Bytes, strings: Strings, take: Callable[[Bytes, Ints, Ints], Items]) -> Items:
    """Take the items of containers each of which is one string, compressed or not.

    Args:
        data: Where they are, with PADDING after the last.
        strings: The containers.
        take: Takes the items of those that are not compressed.
    """
    groups = []
    plain: Mask = ~strings.compressed
    if plain.any():
        some = strings.some(plain)
        groups.append((np.flatnonzero(plain), take(data, some.begins, some.ends)))
    if not plain.all():
        texts = unpacked_texts(data, strings.some(~plain))
        bounds = offsets(texts)
        unpacked = np.frombuffer(b"".join([memoryview(texts.buffers()[2]), PADDING]), np.uint8)
        groups.append((np.flatnonzero(~plain), take(unpacked, bounds[:-1], bounds[1:])))
    return in_order(groups)
