"""Whether what a restore replaces is still what the backup before it has.

Redis has no locks, so what the view of that backup read is compared with what is there: first as a whole, before
anything is sent, and then of each key when it was taken out of the way and nobody can write to it any more. Of keys
that the view did not read, the server's history says whether they were written since.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable, TemporaryFolderUnusable
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Reply
from blocks.sources.redis.read.fingerprints import Seen, Witness
from blocks.sources.redis.read.keys import END, KeySpool
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.rows import SCHEMA, byte_strings
from blocks.sources.redis.temporary_names import real_name
from blocks.sources.redis.views.backlog import History, Position
from blocks.sources.redis.views.stream_commands import TouchedKeys
from blocks.sources.redis.write.send import sender_to
from blocks.sources.view import View

_STEP_KEYS = 20_000

Wanted = Callable[[pa.LargeBinaryArray], pa.LargeBinaryArray]
"""Leaves those keys that the restore removes."""


@dataclass(frozen=True)
class Affected:
    """What a restore writes and removes of one database.

    Attributes:
        number: Number of the database.
        given: The keys that are written.
        there: The keys that there are and that are removed.
        removes: Leaves those that would be removed, if they were there.
        aside: Keys that are kept aside as they are.
    """

    number: int
    given: Sequence[KeySpool]
    there: KeySpool
    removes: Wanted
    aside: Collection[bytes]


class Guard:
    """Remembers the moment of a view, and what it read.

    Args:
        server: The server or cluster that is restored to.
        folder: Where goes what does not fit into memory.
        tracked: Whether a server that keeps no history may be let begin to.
    """

    def __init__(self, server: Server | Cluster, folder: Path, tracked: bool = True) -> None:
        self._server, self._seen = server, Seen(folder)
        self._guesses = Guesses()
        self._began = [(node, _begun(History(node), tracked)) for node in server.nodes()]
        self._evicted = self._count_evicted()

    def watch(self, view: View) -> None:
        """Remember what a view reads from now on."""
        if isinstance(view, Witness):
            view.remember(self._seen)

    def positions(self) -> list[Position | None]:
        """Return where the histories of the servers stand."""
        return [History(node).position() for node in self._server.nodes()]

    def written(self, affected: Affected) -> Iterator[bytes]:
        """Yield the keys that are affected and were written since.

        Raises:
            RestoreRefused: It is not known.
            SourceUnavailable: The server went away.
        """
        self._seen.end()
        aside = pa.array(sorted(affected.aside), pa.large_binary())
        spools = [*affected.given, affected.there]
        most = max(*map(len, spools), len(self._seen))
        steps = max(spools, key=len).steps(_STEP_KEYS) if most else iter([(0, END)])
        for start, end in steps:
            covered = self._seen.covers(affected.number, start, end)
            seen = self._seen.between(affected.number, start, end)
            known = affected.removes(pc.unique(seen.column("key").combine_chunks()))
            found = [spool.between(start, end) for spool in spools]
            keys = pc.unique(pa.concat_arrays([known, *found]))
            keys = keys.filter(pc.invert(pc.is_in(keys, aside)))
            if covered:
                yield from self._differing(affected, seen, keys)
            elif len(keys):
                yield from self._touched(affected.number, keys)

    def _differing(self, affected: Affected, seen: pa.Table, keys: pa.LargeBinaryArray) -> list[bytes]:
        seen = seen.filter(pc.is_in(seen.column("key"), keys))
        rows, _ = self._server.read(affected.number, keys, 0, self._guesses)
        return self._unlike(seen, rows)

    def late(self, database: int, keys: Sequence[bytes], moved: Sequence[bytes]) -> list[bytes]:
        """Name the keys that were written before their content was moved to other names, which nobody knows.

        Raises:
            SourceUnavailable: The server went away.
        """
        self._seen.end()
        rows, _ = self._server.read(database, pa.array(moved, pa.large_binary()), 0, self._guesses)
        names = [real_name(name) for name in byte_strings(rows.column("key").combine_chunks())]
        rows = rows.set_column(0, SCHEMA.field("key"), pa.array(names, pa.large_binary()))
        seen = self._seen.of(database, keys)
        # what is not there any more has expired, or somebody removed it
        there = pc.is_in(seen.column("key"), pc.unique(rows.column("key").combine_chunks()))
        return [key for key in self._unlike(seen.filter(there), rows) if self._seen.covers_key(database, key)]

    def new(self, server: Server | Cluster, database: int, keys: Sequence[bytes]) -> set[bytes]:
        """Return those keys that are there and were not when the view read, as far as that is known."""
        seen = set(self._seen.of(database, keys).column("key").to_pylist())
        unknown = [key for key in keys if key not in seen and self._seen.covers_key(database, key)]
        if not unknown:
            return set()
        with sender_to(server, database) as sender:
            return {key for key, there in zip(unknown, sender.count(unknown), strict=True) if there}

    def _unlike(self, seen: pa.Table, rows: pa.Table) -> list[bytes]:
        differing = self._seen.fingerprints.differing(seen, rows, time.time_ns() // 1_000_000)
        if not differing or self._count_evicted() == self._evicted:
            return differing
        there = set(rows.column("key").to_pylist())
        return [key for key in differing if key in there]  # the server may have evicted the others

    def _touched(self, database: int, keys: pa.LargeBinaryArray) -> Iterator[bytes]:
        touched: set[bytes] = set()

        def sink(number: int | None, some: Iterable[bytes]) -> None:
            if number in (None, database):
                touched.update(some)

        for node, before in self._began:
            _take(node, before, sink)
        yield from touched.intersection(byte_strings(keys)) if touched else ()

    def _count_evicted(self) -> int:
        return sum(int(node.info("stats").get("evicted_keys", 0)) for node in self._server.nodes())


def _begun(history: History, tracked: bool) -> Position | None:
    if tracked:
        with suppress(ConfigurationError, SourceUnavailable):
            history.begin()
    return history.position()


def _take(node: Server, before: Position | None, sink: Callable[[int | None, set[bytes]], None]) -> None:
    """Take the keys that were written on a node since a position.

    Raises:
        RestoreRefused: Its history does not say.
    """
    history = History(node)
    now = history.position()
    if before is None or now is None or not history.continues(before):
        raise RestoreRefused(
            f"{node} does not report what was written to it since the backup before the restore was begun",
            hint="Let it keep more of its history (`repl-backlog-size`), or stop who writes to it.",
        )
    if now == before:
        return

    def describe(command: bytes) -> Reply:
        return node.call("COMMAND", "INFO", command)

    try:
        TouchedKeys(describe, sink).take(history.between(before, now.offset))
    except (ConfigurationError, SourceUnavailable, TemporaryFolderUnusable) as exc:
        message = f"what was written to {node} since is not known: {exc.message}"
        raise RestoreRefused(message, hint=exc.hint) from exc
