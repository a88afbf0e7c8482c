"""Many statements in several transactions: each holds locks on all that it makes, and a server has not many of them.

Only for a database that nobody knows yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

AT_ONCE = 50
"""Objects that one transaction makes; a table takes some five locks."""

T = TypeVar("T")


def in_pieces(items: Sequence[T], size: int = AT_ONCE) -> Iterator[Sequence[T]]:
    """Take a sequence apart, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
