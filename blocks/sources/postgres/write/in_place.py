"""Writes into a database that is there, in one transaction that nobody sees before its end.

An empty one is built, one whose definitions differ is dropped inside and built again, and any other gets its rows, and
the tables that it lacks. The transaction begins with locks that keep others from writing; what they do not prevent is
looked for before the end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import psycopg
import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import Session, connect, identifier, place_of
from blocks.sources.postgres.run_once import RunOnce
from blocks.sources.postgres.schema.checks import computes, put_checks_aside
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.schema.entries import Entry
from blocks.sources.postgres.schema.live import Aside
from blocks.sources.postgres.schema.missing_tables import MissingTables
from blocks.sources.postgres.schema.sequences import materialized_views, set_sequences, to_set
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, Table, TableShape, read_tables
from blocks.sources.postgres.schema.witness import DatabaseWitness, database_of
from blocks.sources.postgres.sessions import enlarge_memory
from blocks.sources.postgres.write.aside import Moved
from blocks.sources.postgres.write.drop_created import drop_created, drop_empty
from blocks.sources.postgres.write.empty import drop_everything, drop_plpgsql, reset_system_privileges
from blocks.sources.postgres.write.large_objects import LargeObjects
from blocks.sources.postgres.write.lock_room import LockRoom
from blocks.sources.postgres.write.locks import hold, hold_large_objects
from blocks.sources.postgres.write.rebuild import Rebuild, lose_missing
from blocks.sources.postgres.write.rows import RowWriter
from blocks.sources.postgres.write.transaction_end import commit
from blocks.sources.target import RestoreMode, RestoreScope


@dataclass(frozen=True)
class Job:
    """What is done inside of one database.

    Attributes:
        scope: The collections, rows and mode of the restore.
        backup: What the manifest says of the database.
        build: Whether all is made from the backup's definitions.
        replace: Whether what is there is dropped first.
        missing: The tables that it lacks.
        moved: Tables that are moved aside first.
        copied: Whether rows that go are kept in tables beside theirs.
        covers: Whether a materialised view, by schema and name, is refreshed.
        restored: The backup whose restore is taken back, where that is known.
        locks: How many locks that takes, where it was looked at.
    """

    scope: RestoreScope
    backup: Backup
    build: bool = False
    replace: bool = False
    missing: MissingTables | None = None
    moved: Moved | None = None
    copied: bool = False
    covers: Callable[[str, str], bool] = field(default=lambda schema, name: True, compare=False)
    restored: Backup | None = None
    locks: LockRoom | None = None

    @property
    def whole(self) -> bool:
        """Whether all of a backup is restored."""
        return self.scope.selection.everything and not self.scope.narrowed

    def tables(self) -> dict[str, tuple[str, str]]:
        """Return schema and name of each table, by collection."""
        shapes = {spec.name: TableShape.of(spec) for spec, _ in self.scope.collections if spec.name != LARGE_OBJECTS}
        return {name: (shape.schema, shape.table) for name, shape in shapes.items()}

    def exact_owners(self) -> set[tuple[str, str]] | None:
        """Return the tables whose sequences are set as they were; None for all sequences."""
        scope = self.scope
        if self.build or (self.whole and scope.mode is RestoreMode.EXACT):
            return None
        if scope.mode is RestoreMode.MERGE:
            return set()
        return {at for name, at in self.tables().items() if not scope.selection_of(name).narrows_keys}

    def sequences(self) -> list[str]:
        """Return the sequences that may be set, quoted."""
        return to_set(self.backup.sequences, self.exact_owners(), set(self.tables().values()))

    @property
    def large_objects(self) -> bool:
        """Whether large objects are written or dropped."""
        named = [*(spec.name for spec, _ in self.scope.collections), *self.scope.created]
        return self.replace or LARGE_OBJECTS in named

    def may_stay(self, created: str) -> bool:
        """Whether rows of others stay in what the restore that is taken back has created, where there are any."""
        return self.scope.mode is RestoreMode.MERGE or created in self.scope.narrowed


class InPlace:
    """One transaction in a database that is there.

    Args:
        conninfo: Connection string of the database, as libpq reads it.
        job: What is done inside of the database.
        timeout_seconds: How long to wait for a connection.
        lock_timeout_seconds: How long to wait for a lock.
        rebuild: Makes objects.
    """

    def __init__(
        self, conninfo: str, job: Job, timeout_seconds: float, lock_timeout_seconds: float, rebuild: Rebuild
    ) -> None:
        self._conninfo, self._place, self.job = conninfo, place_of(conninfo), job
        self._timeout, self._lock_timeout = timeout_seconds, lock_timeout_seconds
        self._lock, self._hold, self._begin = Lock(), RunOnce(self._take_locks), RunOnce(self._open)
        self._session: Session | None = None
        self._watch: Session | None = None
        self._witness: DatabaseWitness | None = None
        self._rows: RowWriter | None = None
        self._large: LargeObjects | None = None
        self.rebuild, self._checks = rebuild, list[Entry]()
        self._created: dict[str, Table] = {}
        self._event_triggers = Aside(())
        self.changed = False
        self.notes: list[str] = []

    @property
    def session(self) -> Session:
        """The one whose transaction it is, once it has begun."""
        assert self._session is not None
        return self._session

    def hold(self) -> None:
        """Begin the transaction, in which nobody else writes to what is overwritten."""
        with self._lock:
            self._hold()

    def _take_locks(self) -> None:
        job = self.job
        self._session = session = connect(self._conninfo, self._timeout)
        created = [table.shape.quoted for table in tables_named(session, job.scope.created).values()]
        self._event_triggers = hold(
            session,
            None if job.replace else [*(identifier(*at) for at in job.tables().values()), *created],
            None if job.replace else job.sequences(),
            timeout_seconds=self._lock_timeout,
            place=self._place,
        )
        self._watch = connect(self._conninfo, self._timeout)
        self._witness = DatabaseWitness(self._watch, objects=job.replace, large_objects=job.large_objects)

    def begin(self) -> None:
        """Nothing: what is emptied is locked against readers for no longer than it takes to write."""

    def open(self) -> None:
        """Drop, make and empty what has to be before the first rows."""
        with self._lock:
            self._begin()

    def is_seen_by(self, database: tuple[str, str]) -> bool:
        """Whether a view of this database has seen what is going to be overwritten."""
        with self._lock:
            self._hold()
            return database_of(self.session) == database

    def check_unwritten(self) -> None:
        """Look for what others changed though tables were locked.

        Raises:
            RestoreRefused: They did.
        """
        with self._lock:
            if self.job.large_objects:
                hold_large_objects(self.session, self._lock_timeout)
            if self._witness is not None and (changed := self._witness.changed()):
                shown = ", ".join(changed[:10]) + (" and others" if len(changed) > 10 else "")
                raise RestoreRefused(
                    f"{self._place} was changed by others while it was about to be overwritten: {shown}",
                    hint="Repeat the restore when nobody alters the database.",
                )

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part, one at a time, because one transaction is one session; return how many it took.

        Args:
            collection: A table, or the large objects.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        with self._lock:
            self._begin()
            assert self._rows is not None
            assert self._large is not None
            if collection.name == LARGE_OBJECTS:
                self._large.write(rows)
                return int(rows.num_rows)
            return self._write(self._rows, collection, rows)

    def _write(self, writer: RowWriter, collection: CollectionSpec, rows: pa.Table) -> int:
        if not self.rebuild.keep_going and not computes(self.session, TableShape.of(collection).quoted):
            writer.write(collection, rows, freeze=True)
            return int(rows.num_rows)
        put: Callable[[pa.Table], None] = lambda some: writer.write(collection, some, freeze=False)  # noqa: E731
        return self.rebuild.write(self.session, collection, rows, put)

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Delete the records of some keys.

        Args:
            collection: A table, or the large objects.
            keys: One row per record to delete, with at least the collection's key columns.
        """
        with self._lock:
            self._begin()
            assert self._rows is not None
            assert self._large is not None
            if collection.name == LARGE_OBJECTS:
                return self._large.remove(keys)
            if collection.name in self.job.scope.created:
                if (table := self._created.get(collection.name)) is None:
                    return 0  # it has gone
                self._check_same(collection, table)
            rows = self._rows
            return self.rebuild.done(self.session, lambda: rows.remove(collection, keys))

    def _check_same(self, collection: CollectionSpec, live: Table) -> None:
        if not live.spec.fits(collection):
            raise RestoreRefused(
                f"table {collection.name} of {self._place} has other columns or another key than the restore made, so"
                " which of its rows that wrote cannot be told",
                hint="Drop it, or delete what you need no more, by hand.",
            )

    def _open(self) -> None:
        self._hold()
        session, job = self.session, self.job
        enlarge_memory(session)
        if job.replace:
            drop_everything(session)
        elif job.build and job.scope.in_place:
            reset_system_privileges(session)
        if job.build:
            drop_plpgsql(session, job.backup.before)
            self.rebuild.make(session, job.backup.before)
        if job.scope.created and not job.build:
            self._drop_created()
        if job.moved is not None:
            self.notes += job.moved.move(session)
        made: Collection[str] = [spec.name for spec, _ in job.scope.collections] if job.build else ()
        if job.missing is not None:
            job.missing.create(session, partial(self.rebuild.run, session))
            made = job.missing.collections
        scarce = job.locks is not None and job.locks.scarce
        lose_missing(session, self.rebuild, [spec for spec, _ in job.scope.collections if spec.name in made])
        self._rows = rows = RowWriter(session, job.scope, set(made), job.copied, sparing=scarce)
        self._checks = put_checks_aside(session, None if job.build else self._written())
        if not job.build:
            rows.put_aside([table.shape.quoted for table in self._created.values()])
            self.notes += self.rebuild.done(session, rows.clear)
        brought = job.restored.before if job.restored is not None else ""
        self._large = LargeObjects(session, job.scope, job.backup.before, job.build, job.copied, brought)

    def _written(self) -> list[str]:
        return [identifier(*at) for name, at in self.job.tables().items() if not self.rebuild.is_lost(name)]

    def _drop_created(self) -> None:
        """Drop what goes with all its rows; the rest is looked at when its restored rows are gone."""
        job = self.job
        created = tables_named(self.session, job.scope.created)
        self._created = {name: table for name, table in created.items() if job.may_stay(name)}
        goes = [at_of(table) for name, table in created.items() if name not in self._created]
        self.notes += drop_created(self.session, job.backup, job.restored, goes, all_of_them=True)

    def commit(self) -> None:
        """Bring indexes, constraints and triggers back, set sequences, refresh materialised views, count, commit."""
        with self._lock:
            self._begin()
            job, session, rows, large = self.job, self.session, self._rows, self._large
            assert rows is not None
            assert large is not None
            large.finish()
            self.notes += large.notes
            made = job.missing.sequences if job.missing is not None else set()
            tables = set(job.tables().values())
            self.notes += set_sequences(session, job.backup.sequences, job.exact_owners(), tables, made)
            # policies hide rows of a new table afterwards, from its owner too
            rows.check_counts(self.rebuild.is_lost, made=True)
            if job.build:
                self.rebuild.make(session, job.backup.after, [*self._checks, *self.rebuild.put_aside])
            else:
                self._finish(rows)
            if not job.replace:
                self._event_triggers.bring_back(session)
            self.changed = True  # also where this process is interrupted before it hears of that
            try:
                commit(session, self._conninfo, self._timeout)
            except psycopg.Error:
                self.changed = False
                raise
            self._close()

    def _finish(self, rows: RowWriter) -> None:
        job, session = self.job, self.session
        if job.missing is not None:
            self.notes += job.missing.notes
        after = [*self._checks, *self.rebuild.put_aside, *(job.missing.finish() if job.missing is not None else ())]
        self.rebuild.run(session, [*after, *(job.moved.back() if job.moved is not None else ()), *rows.finish()])
        self.rebuild.done(session, lambda: rows.check_counts(self.rebuild.is_lost, made=False))
        created = [at_of(table) for table in self._created.values()]
        self.notes += drop_empty(session, job.backup, job.restored, created)
        views = materialized_views(session, job.backup.after, job.covers)
        self.rebuild.run(
            session, [Entry("MATERIALIZED VIEW DATA", f"REFRESH MATERIALIZED VIEW {view};", "") for view in views]
        )

    def abort(self) -> None:
        """Roll back; what is being written ends soon, with an error."""
        while not self._lock.acquire(timeout=_SOON_SECONDS):
            if self._session is not None:
                with suppress(psycopg.Error):
                    self._session.cancel_safe(timeout=self._timeout)
        try:
            self._close()
        finally:
            self._lock.release()

    def _close(self) -> None:
        for session in (self._session, self._watch):
            if session is not None:
                # an open transaction is rolled back by closing
                session.close()


_SOON_SECONDS = 0.2


def tables_named(session: Session, collections: Sequence[str]) -> dict[str, Table]:
    """Return the tables that collections are, as far as they are there."""
    found = {table.spec.name: table for table in read_tables(session).tables} if collections else {}
    return {name: found[name] for name in collections if name in found}


def at_of(table: Table) -> tuple[str, str]:
    """Return schema and name of a table."""
    return table.shape.schema, table.shape.table
