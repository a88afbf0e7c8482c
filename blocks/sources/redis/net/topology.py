"""Who holds which hash slots of a Redis Cluster, as its nodes say it.

Each master is asked for what it holds itself: what it hears of the others may be old. Where two hold the same slot for
a moment, because a move is just being ended or a replica took over, the newer claim counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from blocks.errors import SourceUnavailable
from blocks.sources.redis.net.wire import Reply
from blocks.sources.redis.read.keys import SLOTS

Address = tuple[str, int]
"""Host and port of a node."""


@dataclass(frozen=True)
class Claim:
    """What a node says of itself.

    Attributes:
        id: Its name in the cluster.
        master: Whether it takes writes.
        epoch: How new its claim to its slots is.
        slots: Those it holds.
        moving: The node to which it is giving a slot, by the slot.
        known: Addresses of all nodes it knows of, by their ids.
    """

    id: str
    master: bool
    epoch: int
    slots: frozenset[int]
    moving: Mapping[int, str]
    known: Mapping[str, Address]


@dataclass(frozen=True)
class Layout:
    """Who holds which slots at one time.

    Attributes:
        owners: The node of each slot; empty where none says that it is its.
        moving: The node to which a slot is being given, by the slot.
        addresses: Of the nodes, by their ids.
    """

    owners: tuple[str, ...]
    moving: Mapping[int, str] = field(default_factory=dict)
    addresses: Mapping[str, Address] = field(default_factory=dict)

    def holders(self, slot: int) -> tuple[Address, ...]:
        """Return where keys of a slot may be, in the order in which they move."""
        ids = [self.owners[slot], *([self.moving[slot]] if slot in self.moving else [])]
        return tuple(self.addresses[each] for each in ids)

    def masters(self) -> list[Address]:
        """Return the nodes that hold slots, in the order of their first ones."""
        return [self.addresses[each] for each in dict.fromkeys(self.owners) if each]

    def unserved(self) -> list[int]:
        """Return the slots that no node holds."""
        return [slot for slot, owner in enumerate(self.owners) if not owner]

    def unlike(self, other: Layout) -> set[int]:
        """Return the slots that are held otherwise in another layout."""
        pairs = zip(self.owners, other.owners, strict=True)
        owned = {slot for slot, (mine, theirs) in enumerate(pairs) if mine != theirs}
        moving = self.moving.keys() | other.moving.keys()
        return owned | {slot for slot in moving if self.moving.get(slot) != other.moving.get(slot)}


def layout_of(claims: Iterable[Claim], addresses: Mapping[str, Address]) -> Layout:
    """Bring together what the masters say; `addresses` are those that clients should use."""
    owners = [""] * SLOTS
    moving: dict[int, str] = {}
    known: dict[str, Address] = {}
    for claim in sorted(claims, key=lambda each: each.epoch):
        known |= claim.known
        if claim.master:
            for slot in claim.slots:
                owners[slot] = claim.id
            moving |= claim.moving
    # one that has taken a slot may say so before the one that gave it does
    given = {slot: to for slot, to in moving.items() if owners[slot] not in ("", to)}
    return Layout(tuple(owners), given, known | dict(addresses))


def read_nodes(reply: Reply, asked: Address) -> Claim:
    """Read what a node answers to CLUSTER NODES."""
    assert isinstance(reply, bytes)
    known: dict[str, Address] = {}
    claim: Claim | None = None
    for line in reply.decode("utf-8", "replace").splitlines():
        words = line.split()
        known[words[0]] = read_address(words[1].partition(",")[0].rpartition("@")[0], asked)
        flags = words[2].split(",")
        if "myself" in flags:
            slots, moving = _slots(words[8:])
            claim = Claim(words[0], "master" in flags, int(words[6]), slots, moving, known)
            known[words[0]] = asked
    if claim is None:
        raise SourceUnavailable(f"Redis {asked[0]}:{asked[1]} does not say what it is in its cluster")
    return claim


def read_slots(reply: Reply, asked: Address) -> dict[str, Address]:
    """Read the addresses of masters, by their ids, from what a node answers to CLUSTER SLOTS."""
    assert isinstance(reply, list)
    found = {}
    for each in reply:
        assert isinstance(each, list)
        assert isinstance(each[2], list)
        host, port, name = each[2][:3]
        assert isinstance(port, int)
        assert isinstance(name, bytes)
        known = host.decode() if isinstance(host, bytes) else ""
        found[name.decode()] = read_address(f"{known}:{port}", asked)
    return found


def read_address(text: str, asked: Address) -> Address:
    """Read `host:port`; a node that does not know its host has that of the node which was asked."""
    host, _, port = text.rpartition(":")
    return (asked[0] if host in ("", "?") else host.strip("[]")), int(port)


def _slots(words: list[str]) -> tuple[frozenset[int], dict[int, str]]:
    slots: set[int] = set()
    moving: dict[int, str] = {}
    for word in words:
        if word.startswith("["):
            slot, arrow, to = word.strip("[]").partition("->-")
            if arrow:
                moving[int(slot)] = to
            continue
        first, _, last = word.partition("-")
        slots.update(range(int(first), int(last or first) + 1))
    return frozenset(slots), moving


def boundaries_of(owners: Sequence[object]) -> list[int]:
    """Return the positions at which the slots of another owner begin, by the owner of each slot."""
    return [slot << 16 for slot, (one, other) in enumerate(itertools.pairwise(owners), 1) if one != other]
