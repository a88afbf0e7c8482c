"""A whole Redis Cluster: its masters, each asked for the keys of the hash slots it holds.

Slots may move between nodes meanwhile. A key moves from its old node to its new one; so a reader that looks for it at
the old one first, and then where that sends him, never misses it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Lock

import pyarrow as pa

from blocks.errors import ConfigurationError, RestoreRefused, SourceChanged, SourceUnavailable
from blocks.sources.redis.connect import Access
from blocks.sources.redis.globs import Globs
from blocks.sources.redis.net.node import Node
from blocks.sources.redis.net.redirect import Redirection
from blocks.sources.redis.net.server import Server, is_master
from blocks.sources.redis.net.topology import Address, Layout, boundaries_of, layout_of, read_nodes, read_slots
from blocks.sources.redis.place import Kind, Place
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import SCHEMA, byte_strings
from blocks.sources.redis.temporary_names import not_ours

_ATTEMPTS = 6
_ROUNDS = 12
_PAUSE_SECONDS = 0.05


class Cluster:
    """A cluster that is reached and known; may be used from several threads, as `Server` may.

    Args:
        place: What the URL names; any nodes of the cluster.
        access: How the nodes let us in; all in the same way.

    Raises:
        ConfigurationError: Wrong password, or too few rights.
        SourceUnavailable: No node answers, one is too old, or some slots have no master.
    """

    in_cluster = True
    remarks: tuple[str, ...] = ()
    """What a backup of it should say."""

    def __init__(self, place: Place, access: Access) -> None:
        self.place, self._access = place, access
        self._nodes: dict[Address, Node] = {}
        self._read: set[Address] = set()
        self._lock = Lock()
        try:
            self._locations = self._located(self.layout())
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        hosts = ", ".join(f"{host}:{port}" for host, port in self.place.hosts) or str(self.place.path)
        return f"Redis Cluster {hosts}"

    @property
    def product(self) -> str:
        """Name and version of the masters, and how many they are."""
        nodes = self.nodes()
        return f"{min(nodes, key=lambda node: node.version).product} ({len(nodes)} masters)"

    @property
    def has_field_expiry(self) -> bool:
        """Whether fields of a hash may expire by themselves, on all nodes."""
        return all(node.has_field_expiry for node in self.nodes())

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            nodes, self._nodes = list(self._nodes.values()), {}
        for node in nodes:
            node.close()

    def nodes(self) -> Sequence[Node]:
        """Return the masters that hold slots, as far as is known."""
        return [self.node(address) for address in dict.fromkeys(self._locations)]

    def node(self, address: Address) -> Node:
        """Reach a node that holds keys."""
        node = self._reached(address)
        with self._lock:
            self._read.add(address)
        return node

    def address_of(self, slot: int) -> Address:
        """Return where the node is that holds a hash slot, as far as is known."""
        return self._locations[slot]

    def moved(self, slot: int, address: Address) -> None:
        """Remember that a slot was found at another node."""
        self._locations[slot] = address

    def keyspace(self) -> dict[int, int]:
        """Return how many keys each database holds that holds any; more than one only a cluster of Valkey 9 has."""
        return summed(node.keyspace() for node in self.nodes())

    def boundaries(self) -> list[int]:
        """Return the positions at which the slots of another node begin."""
        return boundaries_of(self._locations)

    def layout(self) -> Layout:
        """Ask all masters who holds which slots now.

        Raises:
            SourceUnavailable: No node answers; or some slots have no master, or one that does not answer, also after
                a while.
        """
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_SECONDS * 2**attempt)
            addresses = self._addresses()
            try:
                layout = self._layout(addresses)
            except SourceUnavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            if not (unserved := layout.unserved()):
                return layout
        raise SourceUnavailable(
            f"{self}: {len(unserved)} hash slots have no master, {unserved[0]} is the first: state would be missing",
            hint="`redis-cli --cluster check` shows what is wrong.",
        )

    def scan(self, database: int, patterns: Sequence[str]) -> Iterator[list[bytes]]:
        """Yield the names of all keys that one of the patterns matches, some of them more than once.

        Raises:
            SourceChanged: Slots moved on and on.
        """
        before = self.layout()
        for address in before.masters():
            yield from self.node(address).scan(database, patterns)
        now = self.layout()
        self._locations = self._located(now)
        yield from self._unsettled(now, before.unlike(now) | before.moving.keys() | now.moving.keys(), patterns)

    def read(
        self, database: int, keys: pa.LargeBinaryArray, put_off_ms: int, guesses: Guesses
    ) -> tuple[pa.Table, dict[str, int]]:
        """Return the rows of those keys that are there, and how many of each type belong to a module.

        Raises:
            SourceChanged: Slots moved on and on.
        """
        tables: list[pa.Table] = [SCHEMA.empty_table()]
        dumped: dict[str, int] = {}
        wanted = self._by_location(byte_strings(keys))
        for attempt in range(_ROUNDS):
            elsewhere: dict[bytes, Redirection] = {}
            for where, some in wanted.items():
                reading = self.node(where.address).read_here(some, where, attempt > 0, put_off_ms, guesses)
                tables.append(reading.rows)
                elsewhere |= reading.elsewhere
                for kind, count in reading.dumped.items():
                    dumped[kind] = dumped.get(kind, 0) + count
            if not elsewhere:
                return pa.concat_tables(tables), dumped
            wanted = self._followed(elsewhere, attempt)
        raise self._restless()

    def check_settled(self) -> None:
        """Make sure that no slot is being moved between nodes now.

        Raises:
            RestoreRefused: One is.
        """
        if moving := sorted(self.layout().moving):
            raise RestoreRefused(
                f"{self}: {len(moving)} hash slots are being moved between its nodes, {moving[0]} is the first",
                hint="Finish the resharding; `redis-cli --cluster fix` ends one that was broken off.",
            )

    def check_same(self) -> None:
        """Make sure that every node that was read is still the same process, and a master.

        Raises:
            SourceChanged: One was started again, or a replica took its place.
        """
        with self._lock:
            nodes = [self._nodes[address] for address in self._read]
        for node in nodes:
            node.check_same()
            if not is_master(node):
                raise SourceChanged(
                    f"{node} is no longer a master of {self}: while it was read, a replica took its place, "
                    "or all of its slots moved away"
                )

    def _layout(self, addresses: Mapping[str, Address]) -> Layout:
        nodes = [self._reached(address) for address in dict.fromkeys(addresses.values())]
        return layout_of([read_nodes(node.call("CLUSTER", "NODES"), node.address) for node in nodes], addresses)

    def _addresses(self) -> dict[str, Address]:
        """Ask any node that answers where the masters are: those that the URL names, then others that are known."""
        with self._lock:
            known = dict.fromkeys([*self.place.hosts, *self._nodes])
        said = []
        for address in known:
            try:
                node = self._reached(address)
                if not node.in_cluster:
                    raise ConfigurationError(
                        f"{node} is no node of a Redis Cluster", hint="Write redis:// in place of redis+cluster://."
                    )
                return read_slots(node.call("CLUSTER", "SLOTS"), address)
            except SourceUnavailable as exc:
                said.append(exc.message)
        raise SourceUnavailable(f"{self}: no node answers ({'; '.join(said)})", hint="Is the cluster up?")

    def _reached(self, address: Address) -> Node:
        with self._lock:
            if address not in self._nodes:
                place = replace(self.place, kind=Kind.TCP, hosts=(address,))
                self._nodes[address] = Node(place, self._access)
            return self._nodes[address]

    def _unsettled(self, now: Layout, slots: set[int], patterns: Sequence[str]) -> Iterator[list[bytes]]:
        """List keys of slots that were moving, slot by slot, until each has been listed while it rested."""
        globs = Globs(patterns)
        for _ in range(_ROUNDS):
            if not slots:
                return
            for slot in sorted(slots):
                for address in now.holders(slot):  # first where its keys come from, then where they go
                    keys = self.node(address).keys_in(slot)
                    yield not_ours(itertools.compress(keys, globs.matches(keys)))
            then = self.layout()
            slots, now = slots & now.unlike(then), then
            self._locations = self._located(now)
        raise self._restless()

    def _by_location(self, keys: list[bytes]) -> dict[Redirection, list[bytes]]:
        """Sort keys by where they are, and there by their slots: those of one slot are read together."""
        by_slot: dict[int, list[bytes]] = {}
        for key in keys:
            by_slot.setdefault(slot_of(key), []).append(key)
        found: dict[Redirection, list[bytes]] = {}
        for slot, some in by_slot.items():
            found.setdefault(Redirection(self._locations[slot]), []).extend(some)
        return found

    def _followed(self, elsewhere: dict[bytes, Redirection], attempt: int) -> dict[Redirection, list[bytes]]:
        """Say where to look next for keys that are not where they were thought to be."""
        if attempt or any(where.later for where in elsewhere.values()):
            time.sleep(min(1.0, _PAUSE_SECONDS * 2**attempt))
        found: dict[Redirection, list[bytes]] = {}
        for key, where in elsewhere.items():
            if not where.asking:
                self.moved(slot_of(key), where.address)
            found.setdefault(replace(where, later=False), []).append(key)
        return found

    def _located(self, layout: Layout) -> list[Address]:
        return [layout.addresses[owner] for owner in layout.owners]

    def _restless(self) -> SourceChanged:
        return SourceChanged(
            f"{self}: hash slots kept moving between its nodes", hint="Run again when the resharding is done."
        )


def summed(keyspaces: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Add up how many keys nodes hold, by database."""
    found = {0: 0}
    for each in keyspaces:
        for number, keys in each.items():
            found[number] = found.get(number, 0) + keys
    return found


def check_only_first(place: object, databases: Iterable[int]) -> None:
    """Make sure that of a cluster only database 0 is backed up.

    Args:
        place: How errors call the cluster.
        databases: The numbers of those that are.

    Raises:
        SourceUnavailable: There are others, as a cluster of Valkey 9 may have them.
    """
    if others := sorted({number for number in databases if number}):
        raise SourceUnavailable(
            f"{place} holds keys in database {others[0]}; of a cluster only database 0 can be backed up",
            hint="Write /0 at the end of `url` to back up that one alone.",
        )


def reach(place: Place, access: Access) -> Server | Cluster:
    """Reach what a place names: a server, or the whole cluster that it is a node of.

    Raises:
        ConfigurationError: Wrong password, too few rights, or no cluster where one is named.
        SourceUnavailable: It cannot be reached, or is too old.
    """
    if place.kind is Kind.CLUSTER:
        return Cluster(place, access)
    server = Server(place, access)
    if not server.in_cluster:
        return server
    server.close()
    hosts = place.hosts or (("localhost", int(server.facts["tcp_port"])),)
    return Cluster(replace(place, kind=Kind.CLUSTER, hosts=hosts), access)
