"""Restoring into Redis: commands are made and checked first, and sent in `commit`; a failure before it writes nothing.

Nothing is ever flushed: keys are replaced one by one, and an exact restore then removes the others by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import LastgoodError, Partial, RestoreRefused, SourceUnavailable
from blocks.host import room
from blocks.sources.collection import CollectionSpec
from blocks.sources.redis.coverage import Coverage, Removal, patterns_of
from blocks.sources.redis.functions import libraries_of
from blocks.sources.redis.net.clients import named, writers
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server, is_master
from blocks.sources.redis.read.keys import KeySpool
from blocks.sources.redis.rows import byte_strings
from blocks.sources.redis.views.backlog import Position
from blocks.sources.redis.write.aside import Aside
from blocks.sources.redis.write.commands import CommandWriter
from blocks.sources.redis.write.functions import preview_of, restore_libraries, wanted_of
from blocks.sources.redis.write.guard import Affected, Guard
from blocks.sources.redis.write.left_out import LeftOut
from blocks.sources.redis.write.probe import Probe, longest_of
from blocks.sources.redis.write.rights import check_commands, check_keys
from blocks.sources.redis.write.room import Need, check_room, check_roughly
from blocks.sources.redis.write.staging import Staging
from blocks.sources.redis.write.swap import Swap, check_counts, count_there, frames_of, settle_killed, sweep
from blocks.sources.redis.write.temporary_keys import Names
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View

_STEP_KEYS = 200_000
_NAMED = 5


def replaces_strangers(scope: RestoreScope) -> bool:
    """Whether a restore may replace what no emergency backup has: at another place that need not be empty."""
    return not scope.in_place and (scope.overwrite or scope.mode is RestoreMode.MERGE)


@dataclass(frozen=True)
class Destination:
    """The server and the databases that a restore writes to.

    Attributes:
        opened: Opens the server.
        databases: The number of the database of each collection, by its name.
        coverage: The keys that the plan covers.
        only: The database that the place is, if it is one; then the others of its server are left alone.
        private: Whether the server is one of our own, that nobody else uses.
        tracked: Whether a server that keeps no history of what is written may be let begin to.
    """

    opened: Callable[[], AbstractContextManager[Server | Cluster]]
    databases: Mapping[str, int]
    coverage: Coverage
    only: int | None = None
    private: bool = False
    tracked: bool = True


class RedisTarget:
    """A server that takes restored keys.

    Args:
        destination: Where they go.
        scope: The collections, rows and mode of the restore.
        put_off_ms: Milliseconds added to every expiry, in the scratch restore of a verification.
    """

    def __init__(self, destination: Destination, scope: RestoreScope, put_off_ms: int = 0) -> None:
        self._opened, self._scope, self._databases = destination.opened, scope, destination.databases
        self._private, self._only, self._coverage = destination.private, destination.only, destination.coverage
        self._put_off, self._tracked = put_off_ms, destination.tracked
        self._exits = ExitStack()
        self._lock = Lock()
        self._staging = Staging(scope.plan, "Redis")
        self._names = Names(scope.plan, everything=replaces_strangers(scope) and not self._private)
        self._aside = Aside(self._names)
        self._server: Server | Cluster | None = None
        self._guard: Guard | None = None
        self._checked: list[Position | None] | None = None
        self._swap: Swap | None = None
        self._ready = False
        self._longest: int | None = None
        self._left_out = LeftOut(self._staging, self._databases)
        self.notes: list[str] = []
        """What `commit` found worth telling."""

    def _finish(self, server: Server | Cluster) -> None:
        """Called when all is written; a server keeps it by itself."""

    @property
    def changed(self) -> bool:
        """Whether anything that others see was sent."""
        return self._swap is not None and self._swap.begun

    def preflight(self) -> tuple[str, ...]:
        """Reach the server; see that it is a master, has the databases, takes the commands and may have room."""
        server = self._reached()
        if isinstance(server, Cluster):
            server.check_settled()
        elif not is_master(server):
            raise RestoreRefused(
                f"{server} is a replica: what is written to it would be lost", hint="Name its master with --to."
            )
        if not self._private:
            check_commands(server)
        numbers = sorted(set(self._databases.values()))
        for number in numbers:
            self._check_database(server, number)
        if isinstance(server, Cluster):
            self._check_only_first(server)
        room.check_room(self._staging.need_of(self._scope.size_bytes))
        if self._private:
            return ()
        for number in numbers:
            check_keys(server, number, _first(server.scan(number, self._coverage.patterns)))
        said = [f"Keys of {server} are replaced one by one; who reads meanwhile sees some of before, some of after."]
        wanted = wanted_of(self._scope, self._only is not None)
        said += preview_of(server, wanted) if wanted is not None else ()
        return (*said, *check_roughly(server, self._scope.size_bytes))

    def occupied(self) -> str | None:
        """Count the keys of the databases that the restore may change."""
        server = self._reached()
        counts = server.keyspace()
        if self._only is not None or not self._scope.selection.everything:
            counts = {number: counts.get(number, 0) for number in set(self._databases.values()) | self._only_numbers}
        if not (keys := sum(counts.values())):
            found = (
                0 if self._only is not None else sum(len(libraries_of([node]).found or {}) for node in server.nodes())
            )
            return f"{server} with {found} libraries of functions" if found else None
        named = [f"{number}" for number, count in sorted(counts.items()) if count]
        where = f"database{'s' * (len(named) > 1)} {', '.join(named)}"
        return f"{server} with {keys:,} keys in {where}"

    def hold(self) -> None:
        """Redis has no locks: `check_unwritten` compares what is there with what the emergency backup read."""

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Take keys that cannot be read: what is replaced or removed of them gets another name.

        Raises:
            RestoreRefused: The server as a whole cannot be read.
        """
        return self._aside.take(unread, self._number, str(self._reached()))

    def guard(self, view: View) -> None:
        """Let the view remember what it reads, for `check_unwritten`."""
        self._guard = Guard(self._reached(), self._staging.folder, self._tracked)
        self._guard.watch(view)
        self._names.guarded = not self._private

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Make the commands that bring rows back; they are sent in `commit`.

        Args:
            collection: A database.
            rows: Rows with the columns and types of `SCHEMA` (rows.py): key, element, type, value, expires_ms.
        """
        server, number = self._reached(), self._databases[collection.name]
        writer = CommandWriter(
            self._put_off,
            server.has_field_expiry,
            self._aside.names_of(number),
            self._longest_of(server),
            self._scope.keep_going or bool(self._put_off),
            Probe(server, number, self._names.owner),
        )
        self._staging.add(number, writer, rows, Need(server))
        return int(rows.num_rows)

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Take keys that are removed in `commit`, unless they are written; return how many records there were.

        The elements of a key are no records of their own here: a key that stays is written as a whole.

        Args:
            collection: A database.
            keys: One row per record to delete, with at least `key` (large_binary).
        """
        number = self._databases[collection.name]
        column = keys.column("key").cast(pa.large_binary())
        heads = column.filter(keys.column("element").is_null()) if "element" in keys.column_names else column
        names = _unique(column)
        found = count_there(self._reached(), number, names)
        there = pa.array([key for key, is_there in zip(names, found, strict=True) if is_there], pa.large_binary())
        # one that is not there and comes before the end is of somebody else
        self._staging.remove(number, _unique(heads.filter(pc.is_in(heads, there))))
        return int(pc.sum(pc.is_in(column, there)).as_py() or 0)

    def check_unwritten(self) -> None:
        """Compare what the restore writes and removes with what the emergency backup read.

        Raises:
            RestoreRefused: Some of it was written since; names keys and clients.
        """
        server = self._reached()
        self._make_ready(server)
        if self._guard is None or self._private:
            return
        before = self._guard.positions()
        if self._checked is not None and None not in before and before == self._checked:
            return
        written = [key for each in self._affected(server) for key in self._guard.written(each)]
        if written:
            raise RestoreRefused(
                f"{server}: {named(written)} written since the backup before the restore{writers(server)}",
                hint="Stop who writes, then run the restore again.",
            )
        self._checked = before

    def commit(self) -> None:
        """Send everything; then, in an exact restore, remove the keys that the backup does not hold.

        Raises:
            RestoreRefused: There is no room, or somebody wrote to what is replaced; nothing was changed.
            SourceUnavailable: The server failed before anything was changed.
            Partial: It failed on the way, or somebody wrote meanwhile; says what and how to go on.
        """
        server = self._reached()
        self.check_unwritten()
        self._swap = swap = Swap(server, self._guard if self._names.guarded else None)
        try:
            self._restore_functions(server, swap)
            self._write(server, swap)
            self._settle_killed(server)
            check_counts(server, self._staging)
            self._finish(server)
        except LastgoodError as exc:
            raise self._failed(exc) from exc
        self._tell(server)
        swap.check_late()
        self.abort()

    def abort(self) -> None:
        """Drop what was staged; what made room for something that did not come is given back."""
        if self._swap is not None:
            with suppress(Exception):
                self._swap.give_back()
        self._staging.discard()
        with self._lock:
            exits, self._exits, self._server = self._exits, ExitStack(), None
        with suppress(Exception):  # what is wrong was said, or is of no consequence any more
            exits.close()

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """The keys and libraries of functions that the server does not take, where they were left out."""
        return self._left_out.named()

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which rows are of keys that the server does not take, in a restore that leaves them out.

        Args:
            collection: A database.
            rows: Rows of it.
        """
        keys = self._left_out.keys(self._databases[collection.name])
        return pc.is_in(rows.column(collection.label[0]).combine_chunks(), keys)

    def _longest_of(self, server: Server | Cluster) -> int:
        with self._lock:
            if self._longest is None:
                self._longest = longest_of(server)
            return self._longest

    def _restore_functions(self, server: Server | Cluster, swap: Swap) -> None:
        wanted = wanted_of(self._scope, self._only is not None)
        if wanted is None:
            return

        def begun() -> None:
            swap.begun = swap.begun or not self._private

        outcome = restore_libraries(server, wanted, self._scope.keep_going or bool(self._put_off), begun)
        self.notes += outcome.notes
        self._left_out.libraries = outcome.left

    @property
    def _only_numbers(self) -> set[int]:
        return set() if self._only is None else {self._only}

    def _reached(self) -> Server | Cluster:
        with self._lock:
            if self._server is None:
                self._server = self._exits.enter_context(self._opened())
                self._names.clustered = isinstance(self._server, Cluster)
            return self._server

    def _number(self, name: str) -> int:
        return self._databases[name] if name in self._databases else int(name[2:])

    def _check_database(self, server: Server | Cluster, number: int) -> None:
        if isinstance(server, Cluster):
            if number:
                raise RestoreRefused(
                    f"{server} has no database {number}, only database 0",
                    hint="Select one database with --collection, and write its new number: --to redis+cluster://HOST/0.",
                )
            return
        try:
            server.call("PING", database=number)
        except SourceUnavailable as exc:
            raise RestoreRefused(
                f"{server} has no database {number}: {exc.message}", hint="Raise `databases` in its configuration."
            ) from exc

    def _check_only_first(self, server: Cluster) -> None:
        """Refuse what would remove keys of other databases than 0, as a cluster of Valkey 9 may have them."""
        if others := sorted(number for number, _ in self._removals(server) if number):
            raise RestoreRefused(
                f"{server} holds keys in database {others[0]}, which this restore would remove; "
                "of a cluster only database 0 can be restored",
                hint="Write /0 at the end of the URL to restore that one alone, or use --mode merge.",
            )

    def _make_ready(self, server: Server | Cluster) -> None:
        """Look at what is only known when all rows are there."""
        if self._ready:
            return
        self._staging.end()
        if isinstance(server, Cluster):
            self._check_only_first(server)
        if self._staging.need is not None and not self._private:
            check_room(server, self._staging.need, {} if self._names.everything else self._staging.keys)
        if not self._private:
            for number, spool in (*self._staging.keys.items(), *self._staging.removed.items()):
                steps = (spool.between(*step) for step in spool.steps(_STEP_KEYS))
                check_keys(server, number, (byte_strings(keys) for keys in steps))
        self._ready = True

    def _removals(self, server: Server | Cluster) -> Iterator[tuple[int, Removal]]:
        """Yield what is removed besides, by the number of the database: only what both plan and backup cover."""
        plan, scope = self._coverage.patterns, self._scope
        names = {spec.name: patterns_of(spec.definition) for spec, _ in scope.collections}
        exact = names if scope.mode is RestoreMode.EXACT else {}
        # what a merge added to an empty database is removed key by key, so that newer keys stay
        created = scope.created if scope.mode is RestoreMode.EXACT else ()
        found = exact | {name: patterns_of(scope.definition) for name in created if name not in names}
        removals = {self._databases[name]: (name, patterns) for name, patterns in found.items()}
        if scope.mode is RestoreMode.EXACT and scope.selection.everything and not scope.definition.get("narrowed"):
            there = server.keyspace().keys() if self._only is None else {self._only}
            removals = dict.fromkeys(there, ("", patterns_of(scope.definition))) | removals
        for number, (name, patterns) in sorted(removals.items()):
            if self._coverage.has_database(number):
                yield number, Removal(plan, patterns, scope.selection_of(name))

    def _affected(self, server: Server | Cluster) -> Iterator[Affected]:
        removals = dict(self._removals(server))
        written = {*self._staging.keys, *self._staging.removed}
        for number in sorted({*written, *removals} - self._aside.wholly):
            there, removal = KeySpool(self._staging.folder), removals.get(number)
            if removal is not None:
                there.fill(_removed(server, number, removal))
            spools = (self._staging.keys.get(number), self._staging.removed.get(number))
            given = [spool for spool in spools if spool is not None]
            removes = _nothing if removal is None else removal.of
            yield Affected(number, given, there, removes, self._aside.keys_of(number))

    def _write(self, server: Server | Cluster, swap: Swap) -> None:
        removals = list(self._removals(server))
        if not self._private:
            for number in {*self._databases.values(), *(number for number, _ in removals)}:
                sweep(server, number)
        for number, path in self._staging.files:
            frames = frames_of(path, self._staging.frames(path))
            swap.send(number, self._aside.names_of(number), frames, self._private)
        for number, spool in self._staging.removed.items():
            self._remove(swap, number, spool)
        for number, removal in removals:
            live = KeySpool(self._staging.folder)
            live.fill(_removed(server, number, removal))
            self._remove(swap, number, live)

    def _settle_killed(self, server: Server | Cluster) -> None:
        """Clear up what earlier restores left that were killed between two steps."""
        for number in sorted(set(self._databases.values())) if not self._private else ():
            kept = sorted(settle_killed(server, number, self._aside.names_of(number)).items())
            for key, name in kept[:_NAMED]:
                self.notes.append(
                    f"What key {key!r} held when a restore that was killed replaced it is kept as"
                    f" {name.decode(errors='replace')}, because it may be in no backup."
                )
            if len(kept) > _NAMED:
                self.notes.append(f"So is that of {len(kept) - _NAMED} other keys.")

    def _remove(self, swap: Swap, number: int, spool: KeySpool) -> None:
        """Remove those keys of a database that were not restored."""
        written = self._staging.keys.get(number)
        left = self._left_out.keys(number)
        for start, end in spool.steps(_STEP_KEYS):
            there = spool.between(start, end)
            there = there.filter(pc.invert(pc.is_in(there, left)))  # what is not brought stays what it is
            if written is not None:
                there = there.filter(pc.invert(pc.is_in(there, written.between(start, end))))
            swap.remove(number, self._aside.names_of(number), byte_strings(there), self._private)

    def _failed(self, error: LastgoodError) -> LastgoodError:
        if not self.changed or isinstance(error, Partial):
            return error
        hint = "Some keys are written, others are not: run the restore again, or undo it with its emergency backup."
        return Partial(error.message, hint=f"{error.hint} {hint}".strip())

    def _tell(self, server: Server | Cluster) -> None:
        if self._staging.expired:
            self.notes.append(f"{self._staging.expired} keys had expired since the backup and were not restored.")
        if self._staging.expired_fields:
            self.notes.append(
                f"{self._staging.expired_fields} fields of hashes had expired since the backup and were not restored."
            )
        self.notes += self._aside.notes(server, set(self._databases.values()))


def _removed(server: Server | Cluster, number: int, removal: Removal) -> Iterator[list[bytes]]:
    for keys in server.scan(number, removal.listed):
        yield byte_strings(removal.of(pa.array(keys, pa.large_binary())))


def _unique(column: pa.ChunkedArray) -> list[bytes]:
    return byte_strings(pc.unique(column.combine_chunks()))


def _nothing(keys: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    return keys.slice(0, 0)


def _first(batches: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """Yield the first keys there are."""
    for keys in batches:
        if keys:
            yield keys
            return
