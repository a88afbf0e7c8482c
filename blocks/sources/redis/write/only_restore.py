"""Keys that no command but RESTORE makes: its payloads, and which keys these are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from blocks.sources.redis.rdb.payload import packed_set_payload, sorted_set_payload
from blocks.sources.redis.write.probe import Probe


def has_nan(scores: Iterable[bytes]) -> bool:
    """Find a score that no command but RESTORE can give, before anything is written.

    Raises:
        ValueError: One is no text of a number at all.
    """
    return any(map(math.isnan, map(float, scores)))


def unnumbered_payload(pairs: Sequence[tuple[bytes, bytes]], probe: Probe | None) -> bytes:
    """Write a sorted set with a score that is no number: packed, which no server may have to unpack, as it ends.

    Args:
        pairs: Members with the texts of their scores.
        probe: Asks the server up to what it holds sorted sets packed.
    """
    most, longest = (0, 0) if probe is None else probe.packs()
    if len(pairs) <= most and all(len(word) <= longest for pair in pairs for word in pair):
        return packed_set_payload(sorted(pairs, key=_rank))
    return sorted_set_payload(pairs)


def _rank(pair: tuple[bytes, bytes]) -> tuple[bool, float, bytes]:
    score = float(pair[1])
    return math.isnan(score), 0.0 if math.isnan(score) else score, pair[0]
