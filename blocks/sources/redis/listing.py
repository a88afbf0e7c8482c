"""The names of all keys of a server, as SCAN gives them: not of one moment, and some of them more than once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from blocks.sources.redis.wire import Connection, Word, packed

_AT_ONCE = 1000


def key_names(connections: tuple[Connection, Connection], patterns: Sequence[str]) -> Iterator[list[bytes]]:
    """Yield the names of all keys that one of the patterns matches.

    The server goes on, over the other connection, while an answer is taken.
    """
    for pattern in patterns:
        yield from _matching(connections, () if pattern == "*" else ("MATCH", pattern))


def _matching(connections: tuple[Connection, Connection], condition: tuple[Word, ...]) -> Iterator[list[bytes]]:
    asked, following = connections
    cursor: bytes | None = b"0"
    asked.send(packed("SCAN", b"0", *condition, "COUNT", _AT_ONCE))
    while cursor is not None:
        cursor = asked.cursor()
        if cursor is not None:
            following.send(packed("SCAN", cursor, *condition, "COUNT", _AT_ONCE))
        [reply] = asked.checked(asked.replies(1), "listing keys")
        yield cast("tuple[bytes, list[bytes]]", reply)[1]
        asked, following = following, asked
