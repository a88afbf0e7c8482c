"""What was written to a server since the base of a backup, by collection."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from blocks.errors import ConfigurationError, SourceChanged, SourceUnavailable
from blocks.sources.redis.globs import glob_regex
from blocks.sources.redis.history import History, Position
from blocks.sources.redis.keys import KeySpool
from blocks.sources.redis.server import Server
from blocks.sources.redis.touched import TouchedKeys
from blocks.sources.redis.wire import Reply

MOST = 0.7
"""The share of all keys up to which it is faster to read those that were touched than all: those need not be listed."""
_ALWAYS_KEYS, _ALWAYS_BYTES = 1_000, 2**20
"""So many touched keys are read one by one, and so much of a history is read, however little there is in all."""


def write_token(position: Position | None, patterns: Sequence[str]) -> str | None:
    """Write what a backup remembers for the next incremental: the position, and what is backed up there."""
    if position is None:
        return None
    text = f"{position.replication_id}:{position.offset}"
    # what other patterns left out was never read, touched or not
    return text if list(patterns) == ["*"] else f"{text}:{_hashed(patterns)}"


def read_token(token: str | None, patterns: Sequence[str]) -> Position | None:
    """Read a token; None where it is none, or not of these patterns."""
    replication_id, _, rest = (token or "").partition(":")
    offset = rest.partition(":")[0]
    if not (offset.isascii() and offset.isdigit()):
        return None
    position = Position(replication_id, int(offset))
    return position if token == write_token(position, patterns) else None


def _hashed(patterns: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(sorted(set(patterns))).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Changes:
    """Tells what changed in the databases of a server, if the server can. May be used from several threads.

    Args:
        server: A live one.
        databases: Number of each database by the name of its collection.
        patterns: Globs that keys have to match.
        folder: Where names of keys go that do not fit into memory.
    """

    def __init__(self, server: Server, databases: Mapping[str, int], patterns: Sequence[str], folder: Path) -> None:
        self._server, self._history = server, History(server)
        self._databases, self._patterns, self._folder = databases, patterns, folder
        self._matches = None if "*" in patterns else [*map(_matcher, patterns)]
        self._lock = Lock()
        self._now: tuple[Position | None] | None = None
        self._since: dict[str | None, dict[str, KeySpool] | None] = {}

    @property
    def token(self) -> str | None:
        """What the next incremental needs; the first time it is asked for, the server begins to keep a history."""
        return write_token(self._position(), self._patterns)

    @property
    def token_was_asked_for(self) -> bool:
        """Whether this look is for a backup."""
        return self._now is not None

    def since(self, token: str | None) -> Mapping[str, KeySpool] | None:
        """Return the keys that were touched since a token; None where that cannot be told, or is not worth it."""
        now = self._position()
        with self._lock:
            if token not in self._since:
                self._since[token] = self._touched(read_token(token, self._patterns), now)
            return self._since[token]

    def check_same(self) -> None:
        """Make sure that the data were not replaced since the token was made, if only some keys were read.

        Raises:
            SourceChanged: They were: a replica took a new dataset from its master.
        """
        with self._lock:
            now = self._now[0] if self._now else None
            used = any(found is not None for found in self._since.values())
        if used and now and not self._history.descends(now):
            raise SourceChanged(f"{self._server} took another dataset while it was read", hint="Run again.")

    def _position(self) -> Position | None:
        with self._lock:
            if self._now is None:
                self._now = (self._begun(),)
            return self._now[0]

    def _begun(self) -> Position | None:
        # who may not make it begin reads all, as if there were no history
        with suppress(ConfigurationError, SourceUnavailable):
            self._history.begin()
        return self._history.position()

    def _touched(self, before: Position | None, now: Position | None) -> dict[str, KeySpool] | None:
        if before is None or now is None or now.offset - before.offset > self._worth_bytes():
            return None
        if not self._history.continues(before):
            return None
        spools = {name: KeySpool(self._folder) for name in self._databases}
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

        try:
            TouchedKeys(self._describe, spool).take(self._history.between(before, now.offset))
        except (ConfigurationError, SourceUnavailable):
            return None
        for each in spools.values():
            each.end()
        return spools

    def _worth_bytes(self) -> int:
        """Return how long a history may be so that reading it is faster than reading all keys."""
        return max(_ALWAYS_BYTES, int(self._server.info("memory").get("used_memory_dataset", 0)))

    def _matching(self, keys: set[bytes]) -> list[bytes]:
        if self._matches is None:
            return list(keys)
        return [key for key in keys if any(match(key) for match in self._matches)]

    def _describe(self, command: bytes) -> Reply:
        return self._server.call("COMMAND", "INFO", command)


def _matcher(pattern: str) -> Callable[[bytes], object]:
    return glob_regex(pattern.encode("utf-8", "surrogateescape")).fullmatch
