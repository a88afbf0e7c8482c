"""The commands that read keys, packed for many keys at once: word by word that would take longer than the answers.

A batch of keys is read in one transaction: of strings first all expiries, then all values, of others both key by key.
A key's expiry comes first: a key that goes while that is asked for has no value then.
"""

from __future__ import annotations

import pyarrow as pa

from blocks.sources.redis.net.packing import bulk, data_of, joined
from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rows import WIDE_ELEMENTS

SCANNED = ("hash", "set", "zset")
"""Types whose answers are those of a SCAN: a cursor, and the elements."""

_COUNT = packed("COUNT", WIDE_ELEMENTS + 1).partition(b"\r\n")[2]
_LAST = packed(WIDE_ELEMENTS).partition(b"\r\n")[2]

# what stands before and after the key; up to one element more than a narrow container has, so that a larger one shows
_READS = {
    "hash": (b"*5\r\n$5\r\nHSCAN\r\n", b"$1\r\n0\r\n" + _COUNT),
    "set": (b"*5\r\n$5\r\nSSCAN\r\n", b"$1\r\n0\r\n" + _COUNT),
    "zset": (b"*5\r\n$5\r\nZSCAN\r\n", b"$1\r\n0\r\n" + _COUNT),
    "list": (b"*4\r\n$6\r\nLRANGE\r\n", b"$1\r\n0\r\n" + _LAST),
    "stream": (b"*6\r\n$5\r\nXINFO\r\n$6\r\nSTREAM\r\n", b"$4\r\nFULL\r\n$5\r\nCOUNT\r\n$1\r\n0\r\n"),
    "string": (b"*2\r\n$3\r\nGET\r\n", b""),
}
_DUMP = (b"*2\r\n$4\r\nDUMP\r\n", b"")
_TYPE = b"*2\r\n$4\r\nTYPE\r\n"
_EXPIRY = b"*2\r\n$11\r\nPEXPIRETIME\r\n"


def read_commands(
    kind: str | None, keys: pa.LargeBinaryArray, *, statistics: bool = False
) -> tuple[list[pa.Buffer | bytes], int]:
    """Pack what reads the expiries and values of keys of one type, and say how many commands that is.

    Args:
        kind: Their type; None where they are thought to be strings, which are then asked for with one command.
        keys: Names of keys, without NULLs; large_binary.
        statistics: Whether to ask for those of the databases, too, after keys of one type.
    """
    words = bulk(keys)
    if kind is None:
        expiries = data_of(joined(_EXPIRY, words))
        return [expiries, b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1), data_of(words)], len(keys) + 1
    before, after = _READS.get(kind, _DUMP)
    last = packed("INFO", "keyspace") if statistics else b""
    return [data_of(joined(_EXPIRY, words, before, words, after)), last], 2 * len(keys) + statistics


def type_commands(keys: pa.LargeBinaryArray) -> bytes:
    """Pack what asks for the type of each key.

    Args:
        keys: Names of keys, without NULLs; large_binary.
    """
    return bytes(data_of(joined(_TYPE, bulk(keys))))
