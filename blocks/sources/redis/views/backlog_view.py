"""One moment of a server that is reached from the moment of a base: without its dataset, and so without a fork.

The keys that were written since the base are read. Then the server's backlog says which keys were written meanwhile;
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
from blocks.sources.collection import REPARTITION_FACTOR, Bounds, CollectionSpec
from blocks.sources.reading import BaseLookup, Delta, Reading, Unchanged
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.read.keys import KeySpool
from blocks.sources.redis.read.parts import positions_in
from blocks.sources.redis.read.spool import RowSpool
from blocks.sources.redis.read.type_guesses import Guesses
from blocks.sources.redis.views.backlog import History
from blocks.sources.redis.views.changed_keys import WrittenKeys
from blocks.sources.redis.views.odd_keys import OddKeys
from blocks.sources.redis.views.snapshot_view import MEMORY_BYTES
from blocks.sources.redis.views.tokens import Share, read_token, write_token
from blocks.sources.redis.views.view import ViewSettings, dumped_keys, large_keys
from blocks.sources.runs import Allowance
from blocks.sources.view import View

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
        taken_at: The time of the snapshot, aware.
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


def reach_snapshot(
    server: Server, there: Callable[[], Mapping[str, int]], patterns: Sequence[str], folder: Path, since: str
) -> Reached | None:
    """Reach a moment of a server from an older one; None where its history does not reach back, or it does not rest.

    Args:
        server: The live server.
        there: Returns the number of each database that there is now, by the name of its collection.
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
    before, written = shares[0].position, WrittenKeys(server, databases, patterns, folder)
    rounds, room, dumped = list[_Round](), Allowance(MEMORY_BYTES), dict[str, dict[str, int]]()
    end = None
    while (keys := written.between([(server, before, now)])) is not None:
        if rounds and not any(map(len, keys.values())):
            dumps = [line for name, kinds in dumped.items() for line in dumped_keys(name, kinds)]
            token = write_token([Share("", now)], patterns, databases)
            return Reached(token, datetime.now(UTC), tuple(dumps), databases, rounds)
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


class BacklogView:
    """A moment reached from that of a base; a caller that asks for more than what changed gets a snapshot of its own.

    Args:
        reached: The snapshot that was reached from the base.
        since: The token of the base.
        collections: The databases.
        settings: How the view is opened: connection, selection, part size, slot.
        row_bytes: About the Arrow bytes of a row of each collection in which something was written.
        whole: Takes a moment of its own; called once.
    """

    def __init__(
        self,
        reached: Reached,
        since: str,
        collections: Sequence[CollectionSpec],
        settings: ViewSettings,
        row_bytes: Mapping[str, float],
        whole: Callable[[], View],
    ) -> None:
        self._reached, self._since, self._collections = reached, since, collections
        self._row_bytes, self._take = row_bytes, whole
        self._part_size_bytes, self._lock = settings.part_size_bytes, Lock()
        self._taken: View | None = None
        self._odd = OddKeys()
        self.taken_at = reached.taken_at - settings.standing.behind
        self.system, self.definition = settings.system, settings.definition
        self.token = reached.token
        self.warnings = (
            *settings.remarks,
            *reached.remarks,
            *settings.standing.remarks,
        )

    def collections(self) -> Sequence[CollectionSpec]:
        """Return the databases."""
        return self._collections

    def partition(self, collection: CollectionSpec) -> Sequence[Bounds]:
        """Partition into ranges of hash slots; within a slot, as ranges of the CRC of the key.

        Raises:
            SourceChanged: There are other databases by now.
        """
        whole = self._whole()
        self.taken_at = whole.taken_at  # only a full partitions, and all of it is of that moment
        return whole.partition(collection)

    def needs_repartition(self, collection: CollectionSpec, bounds: Sequence[Bounds]) -> bool:
        """Left to `read`: to tell takes all rows."""
        return False

    def read(self, collection: CollectionSpec, bounds: Bounds, base: BaseLookup | None) -> Reading:
        """Return the rows of one part: those that were written since the base, or all.

        Raises:
            BaseUnusable: The part holds by far more now than parts are partitioned for.
            SourceChanged: All has to be read, and there are other databases by now.
        """
        if base is None or base.token != self._since:
            return self._whole().read(collection, bounds, base)
        keys = self._reached.keys(collection.name, *positions_in(bounds))
        if not len(keys):
            return Unchanged()
        rows = self._reached.rows(collection.name, *positions_in(bounds))
        reread = base.under(keys)
        # a single key cannot be cut; only where there is more, all rows are looked at
        apart = base.rows - len(reread) + rows.num_rows - _most_of_one(rows)
        size_bytes = apart * self._row_bytes[collection.name]
        if size_bytes > REPARTITION_FACTOR * self._part_size_bytes and self._whole().needs_repartition(
            collection, [bounds]
        ):
            raise BaseUnusable(f"a part of {collection.name} has outgrown its bounds")
        name = collection.name
        return Delta(rows, reread, (*large_keys(name, rows), *self._odd.warnings(name, rows)))

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
