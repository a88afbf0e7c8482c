"""One moment of a server that is reached from the moment of a base: without its dataset, and so without a fork.

The keys that were written since the base are read. Then the server's history tells which keys were written meanwhile;
those are read again, and so on, until nothing was written while something was read. All that was read then is what the
server held at once, and every other key is as it was in the base. On a server that is written all the time this does
not come to an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import BaseUnusable, ConfigurationError, SourceChanged
from blocks.sources.base import OUTGROWN, Bounds, CollectionSpec, Known, Reading, View
from blocks.sources.redis.bounds import positions_in
from blocks.sources.redis.changes import Written
from blocks.sources.redis.guesses import Guesses
from blocks.sources.redis.history import History
from blocks.sources.redis.keys import KeySpool
from blocks.sources.redis.moment import MEMORY_BYTES
from blocks.sources.redis.rows import SCHEMA
from blocks.sources.redis.server import Server
from blocks.sources.redis.spool import RowSpool
from blocks.sources.redis.tokens import Share, read_token, write_token
from blocks.sources.redis.view import dumped_keys, not_covered
from blocks.sources.runs import Allowance

_PATIENCE_SECONDS = 2.0
"""For how long to try after all keys were read once; a dataset takes longer than that if it is not small."""
_FIRST, _AT_ONCE = 100, 20_000
"""How many keys are read at once: at first, and at most where they are small."""
_WANTED_BYTES = 16 * 1024 * 1024
"""About how large rows that are read at once become."""


@dataclass(frozen=True)
class _Round:
    """Keys that were read, and the rows they had then, by collection."""

    keys: Mapping[str, KeySpool]
    rows: Mapping[str, RowSpool]


@dataclass(frozen=True)
class Reached:
    """A moment that was reached from an older one.

    Attributes:
        token: What the next incremental needs.
        taken_at: When that was.
        remarks: What a backup should say.
        databases: Number of each database that there was, by the name of its collection.
    """

    token: str | None
    taken_at: datetime
    remarks: tuple[str, ...]
    databases: Mapping[str, int]
    rounds: Sequence[_Round]

    def has(self, name: str) -> bool:
        """Whether a key of a collection was written since the older moment."""
        return any(len(each.keys[name]) for each in self.rounds)

    def keys(self, name: str, start: int, end: int) -> pa.LargeBinaryArray:
        """Return the keys of a collection that were written since the older moment, in a range of positions."""
        found = [each.keys[name].between(start, end) for each in self.rounds]
        return pa.concat_arrays(found) if len(found) == 1 else pc.unique(pa.concat_arrays(found))

    def rows(self, name: str, start: int, end: int) -> pa.Table:
        """Return what they hold: of a key that was read more than once, what was read last."""
        tables, later = list[pa.Table](), pa.array([], pa.large_binary())
        for each in reversed(self.rounds):
            rows = each.rows[name].between(start, end)
            tables.append(rows.filter(pc.invert(pc.is_in(rows.column("key"), later))) if len(later) else rows)
            later = pa.concat_arrays([later, each.keys[name].between(start, end)])
        return pa.concat_tables(tables).combine_chunks()


def moment_since(
    server: Server, there: Callable[[], Mapping[str, int]], patterns: Sequence[str], folder: Path, since: str
) -> Reached | None:
    """Reach a moment of a server from an older one; None where its history does not tell, or it does not rest.

    Args:
        server: A live one.
        there: Tells the number of each database that there is now, by the name of its collection.
        patterns: Globs that keys have to match.
        folder: Where goes what does not fit into memory.
        since: The token of the older moment.

    Raises:
        SourceUnavailable: The server went away.
    """
    try:
        return _reached(server, there, patterns, folder, since)
    except (ConfigurationError, SourceChanged):  # the user may only take datasets; or single keys do not rest
        return None


def _reached(
    server: Server, there: Callable[[], Mapping[str, int]], patterns: Sequence[str], folder: Path, since: str
) -> Reached | None:
    databases, history = there(), History(server)
    shares = read_token(since, patterns, databases)
    if len(shares) != 1 or (now := history.position()) is None:
        return None
    before, written = shares[0].position, Written(server, databases, patterns, folder)
    rounds, room, dumped = list[_Round](), Allowance(MEMORY_BYTES), dict[str, dict[str, int]]()
    end = None
    while (keys := written.between([(server, before, now)])) is not None:
        if rounds and not any(map(len, keys.values())):
            dumps = [line for name, kinds in dumped.items() for line in dumped_keys(name, kinds)]
            token = write_token([Share("", now)], patterns, databases)
            return Reached(token, datetime.now(UTC), (*not_covered([server]), *dumps), databases, rounds)
        rounds.append(_read(server, databases, keys, folder, room, dumped))
        end = end or time.monotonic() + _PATIENCE_SECONDS
        if there() != databases:  # asked before the end of the round, of which the moment is
            return None
        before, after = now, history.position()
        if after is None or time.monotonic() > end:
            return None
        now = after
    return None


def _read(
    server: Server,
    databases: Mapping[str, int],
    keys: Mapping[str, KeySpool],
    folder: Path,
    room: Allowance,
    dumped: dict[str, dict[str, int]],
) -> _Round:
    guesses, rows = Guesses(), {name: RowSpool(folder, room) for name in keys}
    for name, spool in keys.items():
        counted, at_once = dumped.setdefault(name, {}), _FIRST
        for start, end in spool.steps(_AT_ONCE) if len(spool) else ():
            left = spool.between(start, end)
            while len(left):
                found, kinds = server.read(databases[name], left.slice(0, at_once), 0, guesses)
                left = left.slice(at_once)
                rows[name].add(found)
                at_once = min(_AT_ONCE, at_once * 2) if found.nbytes < _WANTED_BYTES else max(1, at_once // 2)
                for kind, count in kinds.items():
                    counted[kind] = counted.get(kind, 0) + count
        rows[name].end()
    return _Round(keys, rows)


class SinceView:
    """A moment reached from that of a base; for whoever asks for more than what changed, one of its own is taken.

    Args:
        reached: The moment.
        since: The token of the base.
        collections: The databases.
        part_size_bytes: What parts are drawn for.
        system: How the manifest calls the server.
        definition: What a restore has to know.
        row_bytes: About the Arrow bytes of a row of each collection in which something was written.
        whole: Takes a moment of its own; called once.
    """

    def __init__(
        self,
        reached: Reached,
        since: str,
        collections: Sequence[CollectionSpec],
        part_size_bytes: int,
        system: str,
        definition: Bounds,
        row_bytes: Mapping[str, float],
        whole: Callable[[], View],
    ) -> None:
        self._reached, self._since, self._collections = reached, since, collections
        self._row_bytes, self._take = row_bytes, whole
        self._part_size_bytes, self._lock = part_size_bytes, Lock()
        self._taken: View | None = None
        self.taken_at, self.system, self.definition = reached.taken_at, system, definition
        self.token, self.warnings = reached.token, reached.remarks

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return self._collections

    def draw(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Draw parts as ranges of hash slots; within a slot, as ranges of the CRC of the key.

        Raises:
            SourceChanged: There are other databases by now.
        """
        whole = self._whole()
        self.taken_at = whole.taken_at  # only a full draws, and all of it is of that moment
        return whole.draw(collection)

    def outgrown(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Left to `read`: to tell takes all rows."""
        return False

    def read(self, collection: CollectionSpec, bounds: Bounds, known: Known | None) -> Reading:
        """Return the rows of one part: those that were written since the base, or all.

        Raises:
            BaseUnusable: The part holds by far more now than parts are drawn for.
            SourceChanged: All has to be read, and there are other databases by now.
        """
        if known is None or known.token != self._since:
            return self._whole().read(collection, bounds, known)
        keys = self._reached.keys(collection.name, *positions_in(bounds))
        if not len(keys):
            return Reading(SCHEMA.empty_table(), whole_part_unchanged=True)
        rows = self._reached.rows(collection.name, *positions_in(bounds))
        touched = known.under(keys)
        # a single key cannot be cut; only where there is more, all rows are looked at
        apart = known.rows - len(touched) + rows.num_rows - _most_of_one(rows)
        size_bytes = apart * self._row_bytes[collection.name]
        if size_bytes > OUTGROWN * self._part_size_bytes and self._whole().outgrown(collection, [bounds]):
            raise BaseUnusable(f"a part of {collection.name} has outgrown its bounds")
        return Reading(rows, rest_unchanged=True, touched=touched)

    def finish(self) -> None:
        """All was read before: nothing can have changed."""

    def _whole(self) -> View:
        with self._lock:
            if self._taken is None:
                self._taken = self._take()
        if {spec.name for spec in self._taken.collections()} != {spec.name for spec in self._collections}:
            raise SourceChanged(f"{self.system}: databases came or went before the whole was taken", hint="Run again.")
        return self._taken


def _most_of_one(rows: pa.Table) -> int:
    """Count the rows of the key that has most."""
    return int(pc.max(rows.column("key").value_counts().field("counts")).as_py() or 0) if rows.num_rows else 0
