"""Whether a server takes what only RESTORE can make: tried under a name of our own, which is removed at once."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from blocks.errors import LastgoodError
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.temporary_names import temporary_name
from blocks.sources.redis.write.send import sender_to

_TRIED_MS = 60_000
_OF_THE_VALUE = ("Bad data format", "payload version or checksum", "unknown")
_PACKED = ("zset-max-listpack-entries", "zset-max-listpack-value")
_LONGEST = 512 * 1024 * 1024
"""What a server takes at most in a word where its user may not ask for that."""


@dataclass(frozen=True)
class Probe:
    """Asks what a server takes.

    Attributes:
        server: The server or cluster.
        database: Number of the database.
        owner: Whose temporary names are used.
    """

    server: Server | Cluster
    database: int
    owner: str

    def refusal(self, key: bytes, payload: bytes) -> str | None:
        """Return why what RESTORE is given for a key would be refused; None where it would not, as far as is known."""
        name = temporary_name(key, self.owner)
        try:
            with sender_to(self.server, self.database) as sender:
                tried = packed(b"RESTORE", name, _TRIED_MS, payload, b"REPLACE") + packed(b"UNLINK", name)
                sender.send(tried, 2)
        except LastgoodError as exc:  # want of memory, say, is found out by what looks for that
            return exc.message if any(each in exc.message for each in _OF_THE_VALUE) else None
        return None

    def packs(self) -> tuple[int, int]:
        """Return up to how many elements of how many bytes sorted sets are held packed; 0 where a node does not say."""
        found = []
        for node in self.server.nodes():
            try:
                said = [cast("list[bytes]", node.call("CONFIG", "GET", name)) for name in _PACKED]
                found.append((int(said[0][1]), int(said[1][1])))
            except (LastgoodError, IndexError):
                return 0, 0
        return min(most for most, _ in found), min(longest for _, longest in found)


def longest_of(server: Server | Cluster) -> int:
    """Return how many bytes one word of a command may have on all nodes."""
    found = []
    for node in server.nodes():
        said: object = None
        with suppress(LastgoodError):
            said = node.call("CONFIG", "GET", "proto-max-bulk-len")
        found.append(int(said[1]) if isinstance(said, list) and len(said) > 1 else _LONGEST)
    return min(found, default=_LONGEST)
