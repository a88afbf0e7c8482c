"""Streams: their entries, and in the head row what else belongs to them.

The head is a RESP array: last id, highest deleted id, entries ever added, then for each consumer group, sorted by name:
its name, last delivered id, entries read (empty where the server does not know), the number of consumers and their
names, the number of pending entries, and for each of those: id, consumer, delivery time (ms), deliveries.
When a consumer was last seen is not kept: no command can set it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from blocks.sources.redis.net.wire import Reply, Word, packed, unpacked
from blocks.sources.redis.rows import Elements, id_struct

KEY = b""
"""Stands for the key's name in the second word of a command."""

_FIRST = id_struct.pack(0, 1)
"""The lowest id that an entry can have."""


@dataclass(frozen=True)
class Pending:
    """An entry that was delivered and not acknowledged."""

    id: bytes
    consumer: bytes
    delivered_ms: bytes
    deliveries: bytes


@dataclass(frozen=True)
class Group:
    """A consumer group."""

    name: bytes
    last_id: bytes
    entries_read: bytes
    consumers: tuple[bytes, ...]
    pending: tuple[Pending, ...]


@dataclass(frozen=True)
class StreamHead:
    """All of a stream but its entries."""

    last_id: bytes
    max_deleted_id: bytes
    entries_added: bytes
    groups: tuple[Group, ...]

    def encode(self) -> bytes:
        """Write it as the value of a head row."""
        words = [self.last_id, self.max_deleted_id, self.entries_added]
        for group in self.groups:
            words += [group.name, group.last_id, group.entries_read, b"%d" % len(group.consumers), *group.consumers]
            words.append(b"%d" % len(group.pending))
            for entry in group.pending:
                words += [entry.id, entry.consumer, entry.delivered_ms, entry.deliveries]
        return packed(*words)

    @classmethod
    def decode(cls, value: bytes) -> StreamHead:
        """Read the value of a head row.

        Raises:
            ValueError: It is none.
        """
        words = iter(unpacked(value))
        try:
            last, deleted, added = next(words), next(words), next(words)
            groups = tuple(_groups(words))
        except (StopIteration, RuntimeError) as exc:
            raise ValueError("the head of a stream ends too early") from exc
        return cls(last, deleted, added, groups)


def _groups(words: Iterator[bytes]) -> Iterator[Group]:
    for name in words:
        last, read = next(words), next(words)
        consumers = tuple(next(words) for _ in range(int(next(words))))
        pending = tuple(Pending(next(words), next(words), next(words), next(words)) for _ in range(int(next(words))))
        yield Group(name, last, read, consumers, pending)


def read_stream(full: Reply) -> tuple[bytes, Elements]:
    """Turn the answer of XINFO STREAM FULL COUNT 0 into the head's value and the entries."""
    facts = _pairs(full)
    groups = tuple(sorted((_group(_pairs(each)) for each in _list(facts[b"groups"])), key=lambda group: group.name))
    head = StreamHead(
        _bytes(facts[b"last-generated-id"]),
        _bytes(facts.get(b"max-deleted-entry-id", b"0-0")),
        _bytes(facts.get(b"entries-added", 0)),
        groups,
    )
    entries = []
    for entry in _list(facts[b"entries"]):
        at, fields = cast("tuple[bytes, list[bytes]]", entry)
        entries.append((id_element(at), packed(*fields)))
    return head.encode(), entries


def stream_commands(head: StreamHead, elements: Elements) -> Iterator[tuple[Word, ...]]:
    """Yield the commands that make a stream.

    Entries that are pending and were deleted since can only be claimed while they are there. So they come first, alone,
    and are trimmed away before the others come: a deletion would leave a trace, which streams of Redis 6 do not have.
    """
    entries = {element: unpacked(value) for element, value in elements}
    pending = [(group.name, entry) for group in head.groups for entry in group.pending]
    absent = {id_element(entry.id) for _, entry in pending} - entries.keys()
    for element in sorted(absent or {_FIRST}):  # without an entry there is nothing to make groups of
        yield b"XADD", KEY, id_text(element), b"-", b"-"
    for group in head.groups:
        yield b"XGROUP", b"CREATE", KEY, group.name, group.last_id
        for consumer in group.consumers:
            yield b"XGROUP", b"CREATECONSUMER", KEY, group.name, consumer
    yield from _claims(pending, of=absent)
    yield b"XTRIM", KEY, b"MAXLEN", 0
    yield b"XSETID", KEY, b"0-0"
    for element in sorted(entries):
        yield b"XADD", KEY, id_text(element), *entries[element]
    yield from _claims(pending, of=entries.keys())
    counts = (b"ENTRIESADDED", head.entries_added, b"MAXDELETEDID", head.max_deleted_id)
    yield b"XSETID", KEY, head.last_id, *counts
    for group in head.groups:
        if group.entries_read:  # Redis 8 takes no more than entries were added, so only now
            yield b"XGROUP", b"SETID", KEY, group.name, group.last_id, b"ENTRIESREAD", group.entries_read


def _claims(pending: Iterable[tuple[bytes, Pending]], of: Collection[bytes]) -> Iterator[tuple[Word, ...]]:
    return (_claim(group, entry) for group, entry in pending if id_element(entry.id) in of)


def _claim(group: bytes, entry: Pending) -> tuple[Word, ...]:
    how = (b"TIME", entry.delivered_ms, b"RETRYCOUNT", entry.deliveries, b"FORCE", b"JUSTID")
    return b"XCLAIM", KEY, group, entry.consumer, 0, entry.id, *how


def id_element(text: bytes) -> bytes:
    """Turn an id into bytes that sort as ids do."""
    milliseconds, _, sequence = text.partition(b"-")
    return id_struct.pack(int(milliseconds), int(sequence))


def id_text(element: bytes) -> bytes:
    """Undo `id_element`."""
    return b"%d-%d" % id_struct.unpack(element)


def _group(facts: Mapping[bytes, Reply]) -> Group:
    names = (_bytes(_pairs(each)[b"name"]) for each in _list(facts[b"consumers"]))
    pending = [_pending(entry) for entry in _list(facts[b"pending"])]
    read = facts.get(b"entries-read")
    return Group(
        _bytes(facts[b"name"]),
        _bytes(facts[b"last-delivered-id"]),
        b"" if read is None else _bytes(read),
        tuple(sorted(names)),
        tuple(sorted(pending, key=lambda each: id_element(each.id))),
    )


def _pending(entry: Reply) -> Pending:
    at, consumer, delivered, count = _list(entry)
    return Pending(_bytes(at), _bytes(consumer), _bytes(delivered), _bytes(count))


def _pairs(reply: Reply) -> dict[bytes, Reply]:
    flat = _list(reply)
    return dict(zip(cast("list[bytes]", flat[::2]), flat[1::2], strict=True))


def _list(reply: Reply) -> list[Reply]:
    assert isinstance(reply, list)
    return reply


def _bytes(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else b"%d" % cast("int", reply)
