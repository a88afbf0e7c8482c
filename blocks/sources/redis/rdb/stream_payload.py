"""Streams for RESTORE: for those that no commands can make, as their last id is below an entry's, say."""

from __future__ import annotations

import time
from collections.abc import Iterator

from blocks.sources.redis.net.wire import packed, unpacked
from blocks.sources.redis.rdb.layout import Kind, milliseconds
from blocks.sources.redis.rdb.payload import length_bytes, listpack_bytes, sealed, string_bytes
from blocks.sources.redis.read.streams import Group, StreamHead, id_element
from blocks.sources.redis.rows import Elements, id_struct

_NODE_ENTRIES = 100
_UNKNOWN = 2**64 - 1
ZERO_ID = bytes(16)
EMPTY_ENTRY = packed()
"""The value of an entry without fields."""
_MOST = 2**63 - 1


def can_be_built(head: StreamHead, elements: Elements) -> bool:
    """Whether commands can make a stream, and make it as it is.

    XSETID takes no last id below others, nor a count below that of entries; XADD neither an id of 0-0 nor an entry
    without fields; XCLAIM writes the time of now for one to come.
    """
    ids = [element for element, _ in elements]
    plain = ZERO_ID not in ids and all(value != EMPTY_ENTRY for _, value in elements)
    return commands_make(head, len(ids), max(ids, default=ZERO_ID), plain=plain)


def commands_make(head: StreamHead, count: int, last: bytes, *, plain: bool) -> bool:
    """Whether commands can make a stream of which not all entries are here; see `can_be_built`.

    Args:
        head: All of it but its entries.
        count: How many entries it has.
        last: The highest id of one.
        plain: Whether none of them has the id 0-0, or no fields.
    """
    top, deleted = id_element(head.last_id), id_element(head.max_deleted_id)
    pending = [entry for group in head.groups for entry in group.pending]
    now_ms = time.time_ns() // 1_000_000
    return (
        plain
        and top >= max(last, deleted)
        and count <= int(head.entries_added) <= _MOST
        and all(id_element(entry.id) != ZERO_ID for entry in pending)
        and all(0 <= int(entry.delivered_ms) <= now_ms and int(entry.deliveries) <= _MOST for entry in pending)
        and all(int(group.entries_read or 0) <= _MOST for group in head.groups)
    )


def stream_payload(head: StreamHead, elements: Elements) -> bytes:
    """Write a stream for RESTORE."""
    entries = sorted(elements)
    nodes = [_node(some) for some in _batches(entries)]
    first = entries[0][0] if entries else bytes(16)
    pieces = [bytes([Kind.STREAM_2]), length_bytes(len(nodes)), *nodes, length_bytes(len(entries))]
    for element in (id_element(head.last_id), first, id_element(head.max_deleted_id)):
        pieces += map(length_bytes, id_struct.unpack(element))
    pieces += (length_bytes(int(head.entries_added)), length_bytes(len(head.groups)))
    for group in head.groups:
        pieces += _group(group)
    return sealed(b"".join(pieces))


def _batches(entries: Elements) -> Iterator[Elements]:
    return (entries[start : start + _NODE_ENTRIES] for start in range(0, len(entries), _NODE_ENTRIES))


def _node(entries: Elements) -> bytes:
    master = entries[0][0]
    first_ms, first_sequence = id_struct.unpack(master)
    words: list[bytes | int] = [len(entries), 0, 0, 0]
    for element, value in entries:
        ms, sequence = id_struct.unpack(element)
        flat = unpacked(value)
        words += (0, _signed(ms - first_ms), _signed(sequence - first_sequence), len(flat) // 2, *flat, len(flat) + 4)
    return string_bytes(master) + string_bytes(listpack_bytes(words))


def _signed(number: int) -> int:
    """Return what is the same modulo 2^64, in 64 bits with a sign: servers end that find more."""
    return (number + 2**63) % 2**64 - 2**63


def _group(group: Group) -> Iterator[bytes]:
    yield string_bytes(group.name)
    yield from map(length_bytes, id_struct.unpack(id_element(group.last_id)))
    yield length_bytes(int(group.entries_read) % 2**64 if group.entries_read else _UNKNOWN)
    yield length_bytes(len(group.pending))
    for entry in group.pending:
        yield id_element(entry.id) + milliseconds.pack(int(entry.delivered_ms)) + length_bytes(int(entry.deliveries))
    yield length_bytes(len(group.consumers))
    for consumer in group.consumers:
        own = [id_element(entry.id) for entry in group.pending if entry.consumer == consumer]
        yield string_bytes(consumer) + milliseconds.pack(0) + length_bytes(len(own)) + b"".join(own)
