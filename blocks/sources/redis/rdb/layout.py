"""What the bytes of an RDB mean, as far as servers since Redis 7.0 write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import IntEnum
from struct import Struct

from blocks.errors import SourceUnavailable

MAGIC = b"REDIS"
MAGIC_BYTES = 9
VERSIONS = frozenset({b"0010", b"0011", b"0012"})
"""Those of Redis 7.0, of 7.2 (and Valkey 8), and of 7.4 to 8.2."""
CHECKSUM_BYTES = 8
PADDING = bytes(16)
"""Follows data wherever words of eight bytes are taken from it."""


class Opcode(IntEnum):
    """What stands where the type of a key would."""

    SLOT_INFO = 0xF4
    FUNCTION = 0xF5
    MODULE_AUX = 0xF7
    IDLE = 0xF8
    FREQUENCY = 0xF9
    AUX = 0xFA
    RESIZE_DB = 0xFB
    EXPIRES_MS = 0xFC
    EXPIRES_SECONDS = 0xFD
    SELECT_DB = 0xFE
    END = 0xFF


class Kind(IntEnum):
    """How the value of a key is written."""

    STRING = 0
    SET = 2
    HASH = 4
    ZSET = 5
    SET_INTS = 11
    HASH_LISTPACK = 16
    ZSET_LISTPACK = 17
    LIST = 18
    STREAM_2 = 19
    SET_LISTPACK = 20
    STREAM_3 = 21
    HASH_EXPIRING = 24
    HASH_LISTPACK_EXPIRING = 25


TYPES = {
    Kind.STRING: "string",
    Kind.SET: "set",
    Kind.HASH: "hash",
    Kind.ZSET: "zset",
    Kind.SET_INTS: "set",
    Kind.HASH_LISTPACK: "hash",
    Kind.ZSET_LISTPACK: "zset",
    Kind.LIST: "list",
    Kind.STREAM_2: "stream",
    Kind.SET_LISTPACK: "set",
    Kind.STREAM_3: "stream",
    Kind.HASH_EXPIRING: "hash",
    Kind.HASH_LISTPACK_EXPIRING: "hash",
}

ONE_STRING = frozenset({Kind.STRING, Kind.SET_INTS, Kind.HASH_LISTPACK, Kind.ZSET_LISTPACK, Kind.SET_LISTPACK})
"""Those whose value is a single string."""

PLAIN, PACKED = 1, 2
"""What a node of a list is: one item, or a listpack of them."""

INT_BYTES = (1, 2, 4)
LZF = 3
"""The special forms of a string: integers of so many bytes, and after them one compressed."""
COMPRESSED = 0xC0 | LZF
"""What a compressed string begins with."""

_MADE_AT = re.compile(rb"\xfa\x05ctime\xc2(.{4})", re.DOTALL)
HEADER_BYTES = 512
"""Within these it is said when a dataset was made."""

WORD_32, WORD_64 = 0x80, 0x81
word_32, word_64 = Struct(">I"), Struct(">Q")
milliseconds = Struct("<q")


class UnknownForm(Exception):
    """A dataset holds what only a server can tell exactly: keys of a module, or what is newer than this program."""


def damaged(what: str) -> SourceUnavailable:
    """Say that a dataset is not what a server would have sent."""
    return SourceUnavailable(f"the dataset that the server sent is damaged: {what}", hint="Run the backup again.")


def made_at(begin: bytes) -> datetime | None:
    """Read when a dataset was made, to the second, from how it begins."""
    found = _MADE_AT.search(begin[:HEADER_BYTES])
    return datetime.fromtimestamp(int.from_bytes(found[1], "little"), UTC) if found else None
