"""Streams in an RDB: entries in listpacks, each of which begins with what its entries have in common."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.sources.redis.net.wire import packed
from blocks.sources.redis.rdb.cursor import Cursor
from blocks.sources.redis.rdb.layout import damaged
from blocks.sources.redis.read.streams import Group, Pending, StreamHead
from blocks.sources.redis.rows import Elements, id_struct

_DELETED, _SAME_FIELDS = 1, 2
_UNKNOWN = 2**64 - 1
_IDS = 2**64


def read_stream(cursor: Cursor, times: int) -> tuple[bytes, Elements]:
    """Read a stream; returns what `streams.read_stream` does.

    Args:
        cursor: Where it begins.
        times: How many times are kept of each consumer.

    Raises:
        SourceUnavailable: It is damaged.
    """
    entries: Elements = []
    for _ in range(cursor.length()):
        entries += _entries(cursor.string(), cursor.listpack())
    count, last = cursor.length(), _id(cursor)
    _id(cursor)  # of the first entry
    deleted, added = _id(cursor), b"%d" % cursor.length()
    if count != len(entries):
        raise damaged("a stream has another number of entries than was said")
    groups = sorted((_group(cursor, times) for _ in range(cursor.length())), key=lambda group: group.name)
    return StreamHead(last, deleted, added, tuple(groups)).encode(), entries


def _entries(master: bytes, listpack: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of one node that were not deleted."""
    if len(master) != id_struct.size:
        raise damaged("the id of a stream's node is of another size")
    base_ms, base_sequence = id_struct.unpack(master)
    words = iter(listpack)
    try:
        count, deleted = int(next(words)), int(next(words))
        common = [next(words) for _ in range(int(next(words)))]
        next(words)
        for _ in range(count + deleted):
            flags = int(next(words))
            ms, sequence = (base_ms + int(next(words))) % _IDS, (base_sequence + int(next(words))) % _IDS
            if flags & _SAME_FIELDS:
                flat = [word for name in common for word in (name, next(words))]
            else:
                flat = [next(words) for _ in range(2 * int(next(words)))]
            next(words)
            if not flags & _DELETED:
                yield id_struct.pack(ms, sequence), packed(*flat)
    except (RuntimeError, StopIteration, ValueError) as exc:
        raise damaged("an entry of a stream ends too early") from exc
    if next(words, None) is not None:
        raise damaged("a node of a stream has more entries than it says")


def _group(cursor: Cursor, times: int) -> Group:
    name, last, read = cursor.string(), _id(cursor), cursor.length()
    pending: dict[bytes, tuple[int, int]] = {}
    for _ in range(cursor.length()):
        at = cursor.raw(id_struct.size)
        pending[at] = (cursor.time_ms(), cursor.length())
    consumers: list[bytes] = []
    owners: dict[bytes, bytes] = {}
    for _ in range(cursor.length()):
        consumers.append(cursor.string())
        cursor.raw(8 * times)
        owners |= {cursor.raw(id_struct.size): consumers[-1] for _ in range(cursor.length())}
    if owners.keys() != pending.keys():
        raise damaged("what is pending in a group of a stream is not that of its consumers")
    return Group(
        name,
        last,
        b"" if read == _UNKNOWN else b"%d" % read,
        tuple(sorted(consumers)),
        tuple(_pending(at, owners[at], *pending[at]) for at in sorted(pending)),
    )


def _pending(at: bytes, consumer: bytes, delivered_ms: int, deliveries: int) -> Pending:
    return Pending(b"%d-%d" % id_struct.unpack(at), consumer, b"%d" % delivered_ms, b"%d" % deliveries)


def _id(cursor: Cursor) -> bytes:
    return b"%d-%d" % (cursor.length(), cursor.length())
