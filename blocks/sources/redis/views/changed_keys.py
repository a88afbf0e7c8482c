"""What was written to a server, or to the masters of a cluster, since the base of a backup, by collection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from blocks.errors import ConfigurationError, SourceChanged, SourceUnavailable, TemporaryFolderUnusable
from blocks.sources.redis.globs import Globs
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Reply
from blocks.sources.redis.read.keys import KeySpool
from blocks.sources.redis.temporary_names import not_ours
from blocks.sources.redis.views.backlog import History, Position
from blocks.sources.redis.views.stream_commands import TouchedKeys
from blocks.sources.redis.views.tokens import Share, read_token, write_token

MOST = 0.7
"""The share of all keys up to which it is faster to read those that were touched than all: those need not be listed."""
_ALWAYS_KEYS, _ALWAYS_BYTES = 1_000, 2**20
"""So many touched keys are read one by one, and so much of a history is read, however little there is in all."""

Spools = dict[str, KeySpool]


class WrittenKeys:
    """Finds the keys that were written between two moments, by collection.

    Args:
        server: A live one, or a cluster.
        databases: Number of each database by the name of its collection.
        patterns: Globs that keys have to match.
        folder: Where names of keys go that do not fit into memory.
    """

    def __init__(
        self, server: Server | Cluster, databases: Mapping[str, int], patterns: Sequence[str], folder: Path
    ) -> None:
        self._server, self._databases, self._folder = server, databases, folder
        self._globs = Globs(patterns)

    def between(self, spans: Iterable[tuple[Server, Position, Position]]) -> Spools | None:
        """Return the keys; None where that is not known, or is not worth it.

        Args:
            spans: For each server where its history stood before, and where it stands now.
        """
        spools = {name: KeySpool(self._folder) for name in self._databases}
        sink = self._sink(spools)
        try:
            for server, before, now in spans:
                if not _take(server, before, now, sink):
                    return None
        except (ConfigurationError, SourceUnavailable, TemporaryFolderUnusable):
            return None
        for each in spools.values():
            each.end()
        return spools

    def _sink(self, spools: Spools) -> Callable[[int | None, set[bytes]], None]:
        keys = self._server.keyspace()
        left = max(_ALWAYS_KEYS, int(MOST * sum(keys.get(number, 0) for number in self._databases.values())))

        def spool(database: int | None, touched: set[bytes]) -> None:
            nonlocal left
            for name, number in self._databases.items():
                if database in (None, number):
                    chosen = self._matching(touched)
                    spools[name].add(chosen)
                    left -= len(chosen)
            if left < 0:
                raise SourceUnavailable(f"{self._server}: so many keys were touched that all can be read as well")

        return spool

    def _matching(self, keys: set[bytes]) -> list[bytes]:
        found = not_ours(keys)
        return found if self._globs.everything else [*itertools.compress(found, self._globs.matches(found))]


class ChangeTracker:
    """Reports what changed in databases, if the servers can. May be used from several threads.

    Args:
        server: A live one, or a cluster.
        databases: Number of each database by the name of its collection.
        patterns: Globs that keys have to match.
        folder: Where names of keys go that do not fit into memory.
    """

    def __init__(
        self, server: Server | Cluster, databases: Mapping[str, int], patterns: Sequence[str], folder: Path
    ) -> None:
        self._server, self._patterns, self._databases = server, patterns, databases
        self._written = WrittenKeys(server, databases, patterns, folder)
        self._lock = Lock()
        self._now: list[tuple[Server, Share]] | None = None
        self._since: dict[str | None, Spools | None] = {}

    @property
    def token(self) -> str | None:
        """What the next incremental needs; the first time it is asked for, the server begins to keep a history."""
        return write_token([share for _, share in self._shares()], self._patterns, self._databases)

    @property
    def token_was_asked_for(self) -> bool:
        """Whether this look is for a backup."""
        return self._now is not None

    def since(self, token: str | None) -> Mapping[str, KeySpool] | None:
        """Return the keys that were touched since a token; None where that is not known, or is not worth it."""
        now = self._shares()
        with self._lock:
            if token not in self._since:
                self._since[token] = self._touched(read_token(token, self._patterns, self._databases), now)
            return self._since[token]

    def check_same(self) -> None:
        """Make sure that the data were not replaced since the token was made, if only some keys were read.

        Raises:
            SourceChanged: They were: a replica took a new dataset from its master.
        """
        with self._lock:
            now = self._now if any(found is not None for found in self._since.values()) else None
        for server, share in now or []:
            if not History(server).descends(share.position):
                raise SourceChanged(f"{server} took another dataset while it was read", hint="Run again.")

    def _shares(self) -> list[tuple[Server, Share]]:
        """Return where the histories stood when this was asked for first; nothing where one of them is not kept."""
        with self._lock:
            if self._now is None:
                found = [(server, slots, _begun(History(server))) for server, slots in _holders(self._server)]
                whole = [(server, Share(slots, position)) for server, slots, position in found if position]
                self._now = whole if len(whole) == len(found) else []
            return self._now

    def _touched(self, before: Sequence[Share], now: Sequence[tuple[Server, Share]]) -> Spools | None:
        earlier = {share.slots: share.position for share in before}
        if not now or earlier.keys() != {share.slots for _, share in now}:
            return None
        return self._written.between((server, earlier[share.slots], share.position) for server, share in now)


def _holders(server: Server | Cluster) -> list[tuple[Server, str]]:
    """Return the servers with the hash slots of each; nothing where some are just being moved."""
    if isinstance(server, Server):
        return [(server, "")]
    layout = server.layout()
    if layout.moving:
        return []
    slots: dict[str, list[str]] = {}
    for owner, run in itertools.groupby(range(len(layout.owners)), key=layout.owners.__getitem__):
        numbers = list(run)
        slots.setdefault(owner, []).append(f"{numbers[0]}-{numbers[-1]}")
    return [(server.node(layout.addresses[owner]), ",".join(ranges)) for owner, ranges in slots.items()]


def _begun(history: History) -> Position | None:
    # who may not make it begin reads all, as if there were no history
    with suppress(ConfigurationError, SourceUnavailable):
        history.begin()
    return history.position()


def _take(server: Server, before: Position, now: Position, sink: Callable[[int | None, set[bytes]], None]) -> bool:
    """Take the keys that were touched on one server; return False where it is not worth asking, or would fork."""
    history = History(server)
    # no longer than the data are, of which it would be faster to read all
    most = max(_ALWAYS_BYTES, int(server.info("memory").get("used_memory_dataset", 0)))
    # a replica may not have come as far as its master had
    if not 0 <= now.offset - before.offset <= most or not history.continues(before):
        return False

    def describe(command: bytes) -> Reply:
        return server.call("COMMAND", "INFO", command)

    TouchedKeys(describe, sink).take(history.between(before, now.offset))
    return True
