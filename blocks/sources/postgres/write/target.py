"""Restores into a database, as a whole or not at all.

A missing database is built beside the others and renamed at the end. An empty one is built, and one whose definitions
differ from the backup's is rebuilt, where all of it is restored exactly. Everything else is rows written into live
tables, and the tables that are missing there. What the backup before the restore could not read is moved aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

import psycopg
import pyarrow as pa

from blocks.errors import LastgoodError, PlaceUnfit, RestoreRefused
from blocks.host.leftovers import temporary_folder
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.choice import Choice
from blocks.sources.postgres.connect import connect, place_of, settings_of, told, told_with_detail, translated
from blocks.sources.postgres.hints import lacks_something, refusal_hint
from blocks.sources.postgres.read.view import PostgresView
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.schema.live import what_is_there
from blocks.sources.postgres.schema.ownership import Ownership
from blocks.sources.postgres.write.aside import Moved
from blocks.sources.postgres.write.build import Build
from blocks.sources.postgres.write.in_place import InPlace
from blocks.sources.postgres.write.partial import Partial
from blocks.sources.postgres.write.rebuild import Rebuild
from blocks.sources.postgres.write.scratch import TemporaryDatabase, is_missing
from blocks.sources.postgres.write.strategies import Decision, Preflight, RestoreMethod
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View


class Work(Protocol):
    """One restore on its way."""

    notes: list[str]
    changed: bool

    def begin(self) -> None:
        """Begin what takes time before the first rows, beside other work."""

    def open(self) -> None:
        """See that all that comes before the first rows is done."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part; return how many the server took.

        Args:
            collection: A table, or the large objects.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """

    def commit(self) -> None:
        """Complete it and make it visible."""

    def abort(self) -> None:
        """Undo it."""


@dataclass(frozen=True)
class Destination:
    """The database that a restore writes to.

    Attributes:
        conninfo: Where it is.
        connect_timeout_seconds: How long to wait for a connection.
        lock_timeout_seconds: How long to wait for a lock.
        pg_dump: The pg_dump program; None to find one.
        ownership: What of the definitions that names roles is restored.
    """

    conninfo: str
    connect_timeout_seconds: float
    lock_timeout_seconds: float
    pg_dump: str | None
    ownership: Ownership


class PostgresTarget:
    """A database that is restored as a whole or not at all.

    Args:
        destination: The database.
        scope: The collections, rows and mode of the restore.
        choice: What the plan covers now.
        keep: Takes a database that stays a temporary one: that of a verification.
    """

    def __init__(
        self,
        destination: Destination,
        scope: RestoreScope,
        choice: Choice,
        keep: Callable[[TemporaryDatabase], None],
    ) -> None:
        conninfo, timeout_seconds = destination.conninfo, destination.connect_timeout_seconds
        self._ownership = destination.ownership
        scope = replace(scope, definition=self._ownership.of_definition(scope.definition))
        self._conninfo, self._place, self._scope = conninfo, place_of(conninfo), scope
        self._timeout, self._lock_timeout, self._keep = timeout_seconds, destination.lock_timeout_seconds, keep
        self._backup = Backup.of(scope.definition)
        self._preflight = Preflight(conninfo, scope, choice, timeout_seconds, destination.pg_dump, self._ownership)
        self._found: Decision | None = None
        self._work: Work | None = None
        self._rebuild = self._rebuilding()
        self._guarded = False

    @property
    def notes(self) -> Sequence[str]:
        """Notes for the user, each a sentence."""
        return self._work.notes if self._work is not None else []

    @property
    def not_rebuilt(self) -> Sequence[NotRebuilt]:
        """What was left out because it could not be made."""
        return self._rebuild.not_rebuilt

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows the server did not take, in a restore that leaves them out.

        Args:
            collection: A table, or the large objects.
            rows: Rows of it.
        """
        if self._rebuild.is_lost(collection.name):
            return pa.array([True] * rows.num_rows, pa.bool_())
        return self._rebuild.refused.of(collection, rows)

    def _rebuilding(self) -> Rebuild:
        return Rebuild(self._place, settings_of(self._conninfo).get("dbname", ""), self._scope.keep_going)

    @property
    def changed(self) -> bool:
        """Whether others see what was restored."""
        return self._work is not None and self._work.changed

    def preflight(self) -> tuple[str, ...]:
        """Find out how the database is restored, and whether it can be."""
        if self._scope.in_place:
            temporary_folder()  # where rows wait while what is there is backed up
        with self._refusing("cannot look at"):
            self._found = found = self._preflight.find()
        self._work = self._open_work(found)
        said = [_SAID[found.way].format(place=self._place)]
        if found.left_out:
            said.append(f"What the plan or the backup leaves out of {self._place} stays as it is.")
        said += self._ownership.sentences()
        return (*said, *(found.job.missing.sentences() if found.job.missing is not None else ()))

    def occupied(self) -> str | None:
        """Say what the database holds."""
        with self._refusing("cannot look at"):
            self._preflight.check_name()
            if is_missing(self._conninfo, self._timeout):
                return None
            with connect(self._conninfo, self._timeout) as session:
                self._preflight.check_template(session)
                return what_is_there(session)

    def _open_work(self, found: Decision) -> Work:
        scope, job = self._scope, found.job
        self._rebuild = self._rebuilding()
        if found.way is RestoreMethod.ASIDE or (found.way is RestoreMethod.CREATE and job.missing is None):
            aside = found.way is RestoreMethod.ASIDE
            build = Build(self._conninfo, scope, self._backup, self._timeout, self._keep, aside=aside)
            self._rebuild = build.rebuild
            return build
        if found.way is not RestoreMethod.CREATE:
            return self._in_place(self._conninfo, found)
        inside = lambda conninfo: self._in_place(conninfo, found)  # noqa: E731
        return Partial(self._conninfo, self._backup, self._timeout, inside, scope.plan)

    def _in_place(self, conninfo: str, found: Decision) -> InPlace:
        return InPlace(conninfo, found.job, self._timeout, self._lock_timeout, self._rebuild)

    def hold(self) -> None:
        """Keep others from writing to what is overwritten; a missing database has nobody to keep away."""
        found, work = self._at_work()
        if isinstance(work, InPlace):
            with self._refusing("cannot lock"):
                work.hold()
                self._preflight.check_held(work.session, found)

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Move tables aside that cannot be backed up; where that is not enough, the database as a whole."""
        found, work = self._at_work()
        if not isinstance(work, InPlace):
            return ()
        tables = found.job.tables()
        if found.way is RestoreMethod.ROWS and all(one.collection is not None for one in unread):
            hit = {one.collection: one for one in unread if one.collection in tables}
            rest = [one for one in unread if one.collection not in tables and self._overwrites(found, one)]
            if rest:
                raise RestoreRefused(f"{rest[0].collection} of {self._place} cannot be moved aside: {rest[0].reason}")
            with self._refusing("cannot move tables aside in"):
                return self._move([str(name) for name in hit], unread) if hit else ()
        with self._refusing("cannot move aside"):
            work.abort()
            self._found = self._preflight.aside()
        self._work = self._open_work(self._found)
        return (f"The database {self._place} cannot be backed up ({unread[0].reason}): it is renamed as a whole.",)

    def _overwrites(self, found: Decision, unread: Unread) -> bool:
        return any(spec.name == unread.collection for spec, _ in found.job.scope.collections)

    def _move(self, names: Sequence[str], unread: Sequence[Unread]) -> tuple[str, ...]:
        found, work = self._at_work()
        assert isinstance(work, InPlace)
        job, at = found.job, [found.job.tables()[name] for name in names]
        partly = [n for n in names if self._scope.selection_of(n).narrows_keys or self._scope.mode is RestoreMode.MERGE]
        if partly:
            raise RestoreRefused(
                f"table {partly[0]} of {self._place} keeps some of its rows, so it cannot be moved aside, and it cannot"
                f" be backed up: {unread[0].reason}",
                hint="Restore all of the table exactly, or to another database with --to.",
            )
        moved = Moved([*(job.moved.tables if job.moved is not None else ()), *at])
        missing = self._preflight.missing_with(work.session, job, moved.tables, moved.names(work.session))
        work.job = replace(job, moved=moved, missing=missing)
        self._found = replace(found, job=work.job)
        return moved.sentences()

    def guard(self, view: View) -> None:
        """See that a view is one of this database; what it sees is locked already."""
        _, work = self._at_work()
        self._guarded = True
        if isinstance(work, InPlace) and isinstance(view, PostgresView):
            with self._refusing("cannot look at"):
                if not work.is_seen_by(view.database):
                    raise RestoreRefused(f"what was backed up before the restore is not {self._place}")

    def check_unwritten(self) -> None:
        """Look for what others changed though tables were locked."""
        _, work = self._at_work()
        if self._guarded and isinstance(work, InPlace):
            with self._refusing("cannot look at"):
                work.check_unwritten()

    def _at_work(self) -> tuple[Decision, Work]:
        assert self._found is not None
        assert self._work is not None
        return self._found, self._work

    def begin(self) -> None:
        """Begin to create a database that is missing."""
        self._at_work()[1].begin()

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part; none of a table that the plan leaves out.

        Args:
            collection: A table, or the large objects.
            rows: The rows to write, with the collection's columns in any order; already narrowed to the selection.
        """
        found, work = self._at_work()
        if not any(spec.name == collection.name for spec, _ in found.job.scope.collections):
            return 0
        self._open(work)
        with self._refusing(f"cannot write {collection.name} of"):
            return work.apply(collection, rows)

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Delete the records of some keys; a database that was missing has none.

        Args:
            collection: A table, or the large objects.
            keys: One row per record to delete, with at least the collection's key columns.
        """
        _, work = self._at_work()
        if not isinstance(work, InPlace):
            return 0
        self._open(work)
        with self._refusing(f"cannot remove rows of {collection.name} of"):
            return work.remove(collection, keys)

    def _open(self, work: Work) -> None:
        # an error there is none of the table whose rows happen to come first
        with self._refusing("cannot make ready for rows"):
            work.open()

    def commit(self) -> None:
        """Complete the restore and make it visible."""
        self._open(self._at_work()[1])
        with self._refusing("cannot complete the restore of"):
            self._at_work()[1].commit()

    def abort(self) -> None:
        """Leave everything as it was before the first write."""
        if self._work is not None:
            # a server that is gone has kept nothing but, perhaps, a temporary database, which the next run drops
            with suppress(LastgoodError, psycopg.Error), translated(self._place, "cannot undo the restore of"):
                self._work.abort()

    @contextmanager
    def _refusing(self, doing: str) -> Iterator[None]:
        """Distinguish what the server refuses from a server that went away."""
        try:
            yield
        except LastgoodError:
            raise
        except psycopg.Error as exc:
            state = exc.sqlstate or ""
            hint = refusal_hint(state)
            if hint is None:
                with translated(self._place, doing):
                    raise
            if state == _NO_LOCK_LEFT and self._found is not None and (locks := self._found.job.locks) is not None:
                raise PlaceUnfit(f"{doing} {self._place}: {told(exc)}: {locks.said}", hint=locks.hint) from exc
            kind = PlaceUnfit if lacks_something(state) else RestoreRefused
            raise kind(f"{doing} {self._place}: {told_with_detail(exc)}", hint=hint) from exc


_NO_LOCK_LEFT = "53200"

_SAID = {
    RestoreMethod.CREATE: "The database {place} is created; it appears when it is complete.",
    RestoreMethod.BUILD: "The empty database {place} is built, in one transaction.",
    RestoreMethod.REPLACE: "All of {place} is dropped and built again, in one transaction: its definitions differ.",
    RestoreMethod.ROWS: "Rows are written into {place}, in one transaction.",
    RestoreMethod.ASIDE: "The database {place} is renamed, and kept; another one is built in its place.",
}
