"""Streams as Redis 5 and 6 kept them (RDB version 9): nothing says that entries were deleted, nor how many."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import pack

Id = tuple[int, int]

_VERSION, _TYPE = 9, 15
_POLYNOMIAL = 0x95AC9329AC4BC9B5
_TOP = 2**64 - 1


@dataclass
class OldGroup:
    """A group: for each consumer what is pending, with times and counts of delivery."""

    name: bytes
    last: Id
    consumers: dict[bytes, dict[Id, tuple[int, int]]] = field(default_factory=dict)


@dataclass
class OldStream:
    """A stream: its nodes, each with entries and whether they are deleted; its last id; its groups."""

    nodes: Sequence[Sequence[tuple[Id, bytes, bool]]]
    last: Id
    groups: Sequence[OldGroup] = ()

    def value(self) -> bytes:
        """Write it as an RDB does."""
        count = sum(not deleted for node in self.nodes for _, _, deleted in node)
        nodes = [_string(pack(">QQ", *node[0][0])) + _string(_listpack(_words(node))) for node in self.nodes]
        numbers = [_length(number) for number in (count, *self.last, len(self.groups))]
        return b"".join([_length(len(nodes)), *nodes, *numbers, *map(_group, self.groups)])

    def dump(self) -> bytes:
        """Write it as DUMP of Redis 6 does."""
        body = bytes([_TYPE]) + self.value() + pack("<H", _VERSION)
        return body + pack("<Q", _crc64(body))


def rdb_file(streams: dict[bytes, OldStream]) -> bytes:
    """Write an RDB of version 9 without a checksum."""
    keys = [bytes([_TYPE]) + _string(key) + stream.value() for key, stream in streams.items()]
    return b"".join([b"REDIS%04d" % _VERSION, b"\xfe\x00", *keys, b"\xff", bytes(8)])


def random_stream(rng: random.Random) -> OldStream:
    """Make a stream with gaps anywhere, of which some are still pending."""
    ids = sorted(_random_ids(rng))
    nodes: list[list[tuple[Id, bytes, bool]]] = []
    for at in ids:
        if rng.random() < 0.3:
            continue  # its node went with it, or it was trimmed
        if not nodes or rng.random() < 0.2:
            nodes.append([])
        nodes[-1].append((at, b"%d" % rng.randrange(99), rng.random() < 0.3))
    nodes = [node for node in nodes if not all(deleted for _, _, deleted in node)]
    last = max([*ids, *(at for node in nodes for at, _, _ in node), (0, 0)])
    if rng.random() < 0.3:
        last = (last[0] + 1, 0) if last[0] < _TOP else last
    return OldStream(nodes, last, [_random_group(rng, n, ids) for n in range(rng.randrange(4))])


def _random_ids(rng: random.Random) -> set[Id]:
    base = rng.choice([0, 5, 1_700_000_000_000, _TOP - 40])
    ids = {(base + rng.randrange(8), rng.choice([0, 1, 2, 3, 7, _TOP])) for _ in range(rng.randrange(25))}
    return ids - {(0, 0)}


def _random_group(rng: random.Random, number: int, ids: Sequence[Id]) -> OldGroup:
    group = OldGroup(b"g%d" % number, rng.choice([(0, 0), *ids]))
    for name in (b"", b"alice", b"\xff bob")[: rng.randrange(4)]:
        group.consumers[name] = {}
    for at in ids if group.consumers else ():
        if rng.random() < 0.5:
            owner = rng.choice(list(group.consumers))
            group.consumers[owner][at] = (rng.randrange(1, 1_700_000_000_000), rng.randrange(1, 9))
    # XCLAIM with FORCE took ids that never were
    if group.consumers and rng.random() < 0.2:
        never = (rng.randrange(2, 4), 99)
        group.consumers[next(iter(group.consumers))][never] = (1, 1)
    return group


def _words(node: Sequence[tuple[Id, bytes, bool]]) -> list[int | bytes]:
    (base_ms, base_sequence), living = node[0][0], sum(not deleted for _, _, deleted in node)
    words: list[int | bytes] = [living, len(node) - living, 1, b"f", 0]
    for n, ((ms, sequence), value, deleted) in enumerate(node):
        ids = [_signed(ms - base_ms), _signed(sequence - base_sequence)]
        if n % 2:
            words += [2 | deleted, *ids, value, 4]
        else:
            words += [int(deleted), *ids, 2, b"f", value, b"other", b"", 8]
    return words


def _signed(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def _listpack(words: Sequence[int | bytes]) -> bytes:
    body = b""
    for word in words:
        encoded = _integer(word) if isinstance(word, int) else bytes([0x80 | len(word)]) + word
        body += encoded + bytes([len(encoded)])
    return pack("<IH", len(body) + 7, len(words)) + body + b"\xff"


def _integer(word: int) -> bytes:
    # the server takes it for granted that small ones are written as short as it writes them
    return bytes([word]) if 0 <= word < 128 else pack("<bq", -12, word)


def _group(group: OldGroup) -> bytes:
    pending = {at: facts for owned in group.consumers.values() for at, facts in owned.items()}
    words = [_string(group.name), _length(group.last[0]), _length(group.last[1]), _length(len(pending))]
    words += [pack(">QQ", *at) + pack("<Q", ms) + _length(count) for at, (ms, count) in sorted(pending.items())]
    words.append(_length(len(group.consumers)))
    for name, owned in group.consumers.items():
        words += [_string(name), pack("<Q", 1), _length(len(owned)), *(pack(">QQ", *at) for at in sorted(owned))]
    return b"".join(words)


def _string(value: bytes) -> bytes:
    return _length(len(value)) + value


def _length(number: int) -> bytes:
    return b"\x81" + pack(">Q", number)


def _crc64(data: bytes) -> int:
    found = 0
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = (found >> 1) ^ (_POLYNOMIAL if found & 1 else 0)
    return found
