"""What was read of a part, compared with the base."""

from __future__ import annotations

from blocks.rows.changes import Changes, changes_between, changes_by_delta
from blocks.rows.index import PartIndex
from blocks.sources.reading import Delta, FullRead, Updates


def changes_since(base: PartIndex, now: FullRead | Delta | Updates) -> Changes:
    """Find the upserts and tombstones that lead from a base to what was read.

    Args:
        base: Keys and digests of the base.
        now: A reading whose rows were normalised: `_key` (large_binary), `_digest` (uint64) and the canonical columns,
            sorted by `_key`.
    """
    match now:
        case FullRead():
            return changes_between(base, now.rows, now.unchanged)
        case Delta():
            return changes_by_delta(base, now.rows, now.reread)
        case Updates():
            return changes_by_delta(base, now.rows)
