"""Payloads that RESTORE and FUNCTION RESTORE take: a value as an RDB has it, its version, and a checksum."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from struct import Struct

from blocks.sources.redis.rdb.layout import WORD_32, WORD_64, Kind, Opcode, word_32, word_64

_VERSION = 10
"""That of Redis 7.0, which every server that has absolute expiries takes."""
_POLYNOMIAL = 0x95AC9329AC4BC9B5
"""CRC-64 of Jones, reflected."""
_footer, _checksum, _double = Struct("<H"), Struct("<Q"), Struct("<d")
_header, _UNCOUNTED, _INT_64 = Struct("<IH"), 0xFFFF, 0xF4
_SHORT, _MIDDLE, _LONG = 1 << 6, 1 << 14, 1 << 32


def sorted_set_payload(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write a sorted set for RESTORE.

    Args:
        pairs: Members with the texts of their scores, each a number or `nan`.

    Raises:
        ValueError: A score is no number at all.
    """
    pieces = [bytes([Kind.ZSET]), length_bytes(len(pairs))]
    for member, score in pairs:
        pieces += (string_bytes(member), _double.pack(float(score)))
    return sealed(b"".join(pieces))


def packed_set_payload(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write a small sorted set for RESTORE, packed, as which a server holds also a score that is no number.

    Args:
        pairs: Members with the texts of their scores, in the order of those.
    """
    return sealed(bytes([Kind.ZSET_LISTPACK]) + string_bytes(listpack_bytes([word for pair in pairs for word in pair])))


def functions_payload(codes: Sequence[bytes]) -> bytes:
    """Write libraries, by their code, for FUNCTION RESTORE."""
    return sealed(b"".join(bytes([Opcode.FUNCTION]) + string_bytes(code) for code in codes))


def string_bytes(text: bytes) -> bytes:
    """Write a string."""
    return length_bytes(len(text)) + text


def listpack_bytes(words: Sequence[bytes | int]) -> bytes:
    """Write a listpack of texts and of numbers of 64 bits."""
    body = b"".join(map(_entry, words)) + b"\xff"
    return _header.pack(_header.size + len(body), min(len(words), _UNCOUNTED)) + body


def _entry(word: bytes | int) -> bytes:
    if isinstance(word, int):
        return bytes([_INT_64]) + word.to_bytes(8, "little", signed=True) + bytes([9])
    size = len(word)
    if size < 1 << 6:
        begin = bytes([0x80 | size])
    elif size < 1 << 12:
        begin = bytes([0xE0 | size >> 8, size & 0xFF])
    else:
        begin = b"\xf0" + size.to_bytes(4, "little")
    return begin + word + _backwards(len(begin) + size)


def _backwards(size: int) -> bytes:
    """Write the size of an entry so that it can be read from its end: the highest seven bits first."""
    pieces = [size & 0x7F]
    while size := size >> 7:
        pieces.append(size & 0x7F)
    return bytes([pieces[-1], *(piece | 0x80 for piece in pieces[-2::-1])])


def length_bytes(number: int) -> bytes:
    """Write a number that is not negative."""
    if number < _SHORT:
        return bytes([number])
    if number < _MIDDLE:
        return bytes([0x40 | number >> 8, number & 0xFF])
    if number < _LONG:
        return bytes([WORD_32]) + word_32.pack(number)
    return bytes([WORD_64]) + word_64.pack(number)


def sealed(body: bytes) -> bytes:
    """Put version and checksum behind values."""
    said = body + _footer.pack(_VERSION)
    table, found = _table(), 0
    for byte in said:
        found = table[(found ^ byte) & 0xFF] ^ found >> 8
    return said + _checksum.pack(found)


@cache
def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return tuple(found)
