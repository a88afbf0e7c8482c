"""The names of all keys of a server, as SCAN gives them: not of one moment, and some of them more than once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from blocks.sources.redis.net.wire import Connection, Word, packed
from blocks.sources.redis.temporary_names import not_ours

_AT_ONCE = 1000


def key_names(connections: tuple[Connection, Connection], patterns: Sequence[str]) -> Iterator[list[bytes]]:
    """Yield the names of all keys that one of the patterns matches, but those of our own.

    The server goes on, over the other connection, while an answer is taken.
    """
    for pattern in patterns:
        for keys in matching(connections, pattern):
            yield not_ours(keys)


def matching(connections: tuple[Connection, Connection], pattern: str | bytes) -> Iterator[list[bytes]]:
    """Yield the names of all keys that a pattern matches."""
    condition: tuple[Word, ...] = () if pattern == "*" else ("MATCH", pattern)
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
