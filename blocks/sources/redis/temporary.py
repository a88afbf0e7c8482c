"""Names under which containers are built before they take the place of their keys."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import cache
from itertools import count

from blocks.sources.redis.keys import SLOTS, slot_of

TEMPORARY = b"lastgood:restoring:"
"""Begins all of them."""


def temporary_name(key: bytes) -> bytes:
    """Make a new name in the hash slot of a key, so that what has it can take the key's place in a cluster, too."""
    return b"%b{%b}:%b" % (TEMPORARY, _tags()[slot_of(key)], secrets.token_hex(8).encode())


@cache
def _tags() -> Mapping[int, bytes]:
    """Find a short tag for each hash slot. The key itself cannot always serve: it may hold braces, or be empty."""
    tags: dict[int, bytes] = {}
    for n in count():
        tag = b"%d" % n
        tags.setdefault(slot_of(tag), tag)
        if len(tags) == SLOTS:
            return tags
    raise AssertionError
