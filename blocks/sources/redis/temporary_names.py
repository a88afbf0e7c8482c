"""Names of our own: those of keys while they are built or replaced, and of keys that are kept aside.

    lastgood:restoring:{TAG}:OWNER:new:KEY      what is being built for a key
    lastgood:restoring:{TAG}:OWNER:old:KEY      what a key held until its new content took its place
    lastgood:aside:STAMP:KEY                    what was moved aside; in a cluster with a {TAG} where KEY needs one

OWNER names the plan and the process (see blocks.host.leftovers). None of these is ever backed up, nor removed by an
exact restore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import count

from blocks.host.leftovers import left_behind, owned_name
from blocks.sources.redis.read.keys import SLOTS, slot_of

TEMPORARY = b"lastgood:restoring:"
"""Begins all names of what is being restored."""
ASIDE = b"lastgood:aside:"
"""Begins all names of what was moved aside."""
OURS = (TEMPORARY, ASIDE)

_NEW, _OLD = b"new", b"old"
_WORDS = 5
"""How many colons stand before the key in a temporary name."""


def not_ours(keys: Iterable[bytes]) -> list[bytes]:
    """Leave out names of our own."""
    return [key for key in keys if not key.startswith(OURS)]


def temporary_name(key: bytes, owner: str = "") -> bytes:
    """Name what is being built in the hash slot of a key, so that it can take the key's place in a cluster, too."""
    return _temporary(key, owner or owned_name(""), _NEW)


def old_name(key: bytes, owner: str) -> bytes:
    """Name what a key held before, in its hash slot."""
    return _temporary(key, owner, _OLD)


def is_old(name: bytes) -> bool:
    """Whether `old_name` made it."""
    return name.startswith(TEMPORARY) and name.split(b":", _WORDS)[_WORDS - 1] == _OLD


def is_of(name: bytes, owner: str) -> bool:
    """Whether a name is a temporary one of an owner."""
    return name.startswith(TEMPORARY) and name.split(b":", _WORDS)[3:4] == [owner.encode()]


def real_name(name: bytes) -> bytes:
    """Return the key that a temporary name stands for; any other name as it is."""
    return name.split(b":", _WORDS)[_WORDS] if name.startswith(TEMPORARY) and name.count(b":") >= _WORDS else name


def aside_name(key: bytes, stamp: str, clustered: bool) -> bytes:
    """Name what is moved aside of a key; in a cluster in its hash slot."""
    name = b"%b%b:%b" % (ASIDE, stamp.encode(), key)
    if not clustered or slot_of(name) == slot_of(key):
        return name
    return b"%b%b:{%b}:%b" % (ASIDE, stamp.encode(), _tags()[slot_of(key)], key)


def is_left_behind(name: bytes) -> bool:
    """Whether a process that has ended, on this machine, left a temporary key of this name."""
    words = name.split(b":", _WORDS)
    whole = name.startswith(TEMPORARY) and len(words) > _WORDS
    return whole and left_behind(words[3].decode("utf-8", "replace"), "")


def tag_of(slot: int) -> bytes:
    """Return a short name in a hash slot."""
    return _tags()[slot]


def _temporary(key: bytes, owner: str, what: bytes) -> bytes:
    return b"%b{%b}:%b:%b:%b" % (TEMPORARY, _tags()[slot_of(key)], owner.encode(), what, key)


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
