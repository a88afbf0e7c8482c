"""What a backup remembers for the next incremental: where the histories of the servers stood before it was read.

REPLICATION_ID:OFFSET                             of one server
REPLICATION_ID:OFFSET@0-5460;...                  of the masters of a cluster, each with its hash slots
...#HASH                                          where the plan's patterns leave keys out, or databases are renumbered
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blocks.sources.redis.views.backlog import Position

_SHARE = re.compile(r"([0-9A-Za-z]+):([0-9]{1,18})(?:@([0-9,-]+))?")


@dataclass(frozen=True)
class Share:
    """What one server holds, and where its history stood.

    Attributes:
        slots: Its hash slots, as ranges; empty where the server holds all.
        position: In its history.
    """

    slots: str
    position: Position


def write_token(shares: Sequence[Share], patterns: Sequence[str], databases: Mapping[str, int]) -> str | None:
    """Write a token; None where there is nothing to remember.

    Args:
        shares: What is remembered.
        patterns: Globs that keys have to match.
        databases: Number of each database by the name of its collection.
    """
    texts = [f"{s.position.replication_id}:{s.position.offset}{f'@{s.slots}' if s.slots else ''}" for s in shares]
    if not texts:
        return None
    # what other patterns left out was never read, touched or not; nor was another database under the same name
    words = [] if "*" in patterns else sorted(set(patterns))
    words += sorted(f"{name}\0{number}" for name, number in databases.items() if name != f"db{number}")
    return ";".join(texts) + (f"#{_hashed(words)}" if words else "")


def read_token(token: str | None, patterns: Sequence[str], databases: Mapping[str, int]) -> list[Share]:
    """Read a token; nothing where it is none, or not of these patterns and databases."""
    found = [_SHARE.fullmatch(text) for text in (token or "").partition("#")[0].split(";")]
    shares = [Share(each[3] or "", Position(each[1], int(each[2]))) for each in found if each]
    return shares if write_token(shares, patterns, databases) == token else []


def _hashed(words: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]
