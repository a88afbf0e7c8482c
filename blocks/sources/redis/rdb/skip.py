"""Passing over parts of an RDB that are read later, or not at all.

Each function takes the data and a position, and returns the position after; it may lie beyond the end of the data.
They raise IndexError or struct.error where the data ends too early to tell.
"""

from __future__ import annotations

from collections.abc import Callable

from blocks.sources.redis.rdb.layout import (
    INT_BYTES,
    LZF,
    PACKED,
    PLAIN,
    WORD_32,
    WORD_64,
    Kind,
    Opcode,
    UnknownForm,
    damaged,
    word_32,
    word_64,
)

_TIME_BYTES = _SCORE_BYTES = 8
_ID_BYTES = 16
_ATTRIBUTES = {Opcode.EXPIRES_MS: 9, Opcode.EXPIRES_SECONDS: 5, Opcode.FREQUENCY: 2}
_MODULE_END, _MODULE_SIGNED, _MODULE_UNSIGNED, _MODULE_FLOAT, _MODULE_DOUBLE, _MODULE_STRING = range(6)


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """Read a number; returns it, and the position after.

    Raises:
        SourceUnavailable: There is none.
    """
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | data[at + 1], at + 2
    if first == WORD_32:
        return word_32.unpack_from(data, at + 1)[0], at + 5
    if first == WORD_64:
        return word_64.unpack_from(data, at + 1)[0], at + 9
    raise damaged(f"a length begins with {first:#x}")


def past_string(data: bytes, at: int) -> int:
    """Pass over a string of any form."""
    first = data[at]
    if first < 0xC0:
        size, at = read_length(data, at)
        return at + size
    special = first & 0x3F
    if special < LZF:
        return at + 1 + INT_BYTES[special]
    if special != LZF:
        raise damaged(f"a string begins with {first:#x}")
    if data[at + 1] < 0x40 and data[at + 2] < 0x80:  # most are short
        return at + 3 + data[at + 1] + (data[at + 2] >= 0x40)
    size, at = read_length(data, at + 1)
    _, at = read_length(data, at)
    return at + size


def past_strings(data: bytes, at: int, count: int) -> int:
    """Pass over many strings."""
    for _ in range(count):
        length = data[at]
        at = at + 1 + length if length < 64 else past_string(data, at)
    return at


def past_attributes(data: bytes, at: int) -> int:
    """Pass over what is said of a key before its type."""
    while True:
        opcode = data[at]
        if opcode in _ATTRIBUTES:
            at += _ATTRIBUTES[Opcode(opcode)]
        elif opcode == Opcode.IDLE:
            _, at = read_length(data, at + 1)
        else:
            return at


def past_opcode(data: bytes, at: int) -> int:
    """Pass over an opcode of no concern here."""
    return SKIPPED[Opcode(data[at])](data, at + 1)


def past_value(data: bytes, at: int, kind: int) -> int:
    """Pass over the value of a key.

    Raises:
        UnknownForm: It is of a type that cannot be read here.
    """
    past = _VALUES.get(kind)
    if past is None:
        raise UnknownForm(f"a key of type {kind}")
    return past(data, at)


def _past_hash(data: bytes, at: int) -> int:
    count, at = read_length(data, at)
    return past_strings(data, at, 2 * count)


def _past_set(data: bytes, at: int) -> int:
    count, at = read_length(data, at)
    return past_strings(data, at, count)


def _past_zset(data: bytes, at: int) -> int:
    count, at = read_length(data, at)
    for _ in range(count):
        at = past_string(data, at) + _SCORE_BYTES
    return at


def _past_list(data: bytes, at: int) -> int:
    count, at = read_length(data, at)
    for _ in range(count):
        if data[at] not in (PLAIN, PACKED):
            raise damaged(f"a node of a list is of kind {data[at]}")
        at = past_string(data, at + 1)
    return at


def _past_expiring_hash(data: bytes, at: int) -> int:
    count, at = read_length(data, at + _TIME_BYTES)
    for _ in range(count):
        _, at = read_length(data, at)
        at = past_strings(data, at, 2)
    return at


def _past_expiring_listpack(data: bytes, at: int) -> int:
    return past_string(data, at + _TIME_BYTES)


def _past_stream(data: bytes, at: int, times: int) -> int:
    nodes, at = read_length(data, at)
    at = past_strings(data, at, 2 * nodes)
    at = _past_lengths(data, at, 8)
    groups, at = read_length(data, at)
    for _ in range(groups):
        at = _past_lengths(data, past_string(data, at), 3)
        pending, at = read_length(data, at)
        for _ in range(pending):
            _, at = read_length(data, at + _ID_BYTES + _TIME_BYTES)
        consumers, at = read_length(data, at)
        for _ in range(consumers):
            at = past_string(data, at) + times * _TIME_BYTES
            pending, at = read_length(data, at)
            at += pending * _ID_BYTES
    return at


def _past_stream_2(data: bytes, at: int) -> int:
    return _past_stream(data, at, 1)


def _past_stream_3(data: bytes, at: int) -> int:
    return _past_stream(data, at, 2)


def _past_lengths(data: bytes, at: int, count: int) -> int:
    for _ in range(count):
        _, at = read_length(data, at)
    return at


def _past_slot(data: bytes, at: int) -> int:
    return _past_lengths(data, at, 3)


def _past_aux(data: bytes, at: int) -> int:
    return past_strings(data, at, 2)


def _past_module(data: bytes, at: int) -> int:
    """Pass over what a module keeps besides keys: its id, and values that each say what they are, up to an end."""
    _, at = read_length(data, at)
    while True:
        form, at = read_length(data, at)
        if form == _MODULE_END:
            return at
        if form in (_MODULE_SIGNED, _MODULE_UNSIGNED):
            _, at = read_length(data, at)
        elif form == _MODULE_STRING:
            at = past_string(data, at)
        elif form in (_MODULE_FLOAT, _MODULE_DOUBLE):
            at += 4 if form == _MODULE_FLOAT else 8
        else:
            raise damaged(f"a module's data is of form {form}")


_Past = Callable[[bytes, int], int]

SKIPPED: dict[Opcode, _Past] = {
    Opcode.AUX: _past_aux,
    Opcode.SLOT_INFO: _past_slot,
    Opcode.FUNCTION: past_string,
    Opcode.MODULE_AUX: _past_module,
}
"""Opcodes of no concern here. Functions are reported by the server, and what modules keep is theirs."""

_VALUES: dict[int, _Past] = {
    Kind.STRING: past_string,
    Kind.SET: _past_set,
    Kind.HASH: _past_hash,
    Kind.ZSET: _past_zset,
    Kind.SET_INTS: past_string,
    Kind.HASH_LISTPACK: past_string,
    Kind.ZSET_LISTPACK: past_string,
    Kind.LIST: _past_list,
    Kind.STREAM_2: _past_stream_2,
    Kind.SET_LISTPACK: past_string,
    Kind.STREAM_3: _past_stream_3,
    Kind.HASH_EXPIRING: _past_expiring_hash,
    Kind.HASH_LISTPACK_EXPIRING: _past_expiring_listpack,
}
