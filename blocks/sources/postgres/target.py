"""Restores into a database: which way each takes, and what can be refused before the first write.

A missing database is built beside the others and renamed at the end. An empty one is built, and one whose definitions
differ from the backup's is built anew, where all of it is restored exactly. Everything else is rows written into live
tables, and the tables that are missing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Protocol

import psycopg
import pyarrow as pa

from blocks.errors import LastgoodError, RestoreRefused, SourceUnavailable
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.postgres.backup import Backup
from blocks.sources.postgres.build import Build
from blocks.sources.postgres.connect import Session, connect, place_of, translated
from blocks.sources.postgres.dump import current_definitions
from blocks.sources.postgres.inplace import InPlace
from blocks.sources.postgres.live import Live, is_empty
from blocks.sources.postgres.missing import Missing
from blocks.sources.postgres.partial import Partial
from blocks.sources.postgres.scratch import Temporary, is_missing
from blocks.sources.postgres.tables import LARGE_OBJECTS, read_tables


class Way(StrEnum):
    """How a database is restored."""

    CREATE = "create"
    """It is missing: built under another name, then renamed."""
    BUILD = "build"
    """It is empty: built."""
    REPLACE = "replace"
    """What it holds is dropped, then it is built."""
    ROWS = "rows"
    """Rows are written into its tables; tables that it lacks are made."""


class Work(Protocol):
    """One restore on its way."""

    notes: list[str]

    def begin(self) -> None:
        """Begin what takes time before the first rows, beside other work."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> None:
        """Write the rows of one part."""

    def commit(self) -> None:
        """Complete it and make it visible."""

    def abort(self) -> None:
        """Undo it."""


class PostgresTarget:
    """A database that is restored as a whole or not at all.

    Args:
        conninfo: The database.
        scope: What is restored.
        connect_timeout_seconds: How long to wait for a connection.
        lock_timeout_seconds: How long to wait for a lock.
        pg_dump: The pg_dump program; None to find one.
        keep: Takes a database that stays a temporary one: that of a verification.
    """

    def __init__(
        self,
        conninfo: str,
        scope: RestoreScope,
        connect_timeout_seconds: float,
        lock_timeout_seconds: float,
        pg_dump: str | None,
        keep: Callable[[Temporary], None],
    ) -> None:
        self._conninfo, self._place, self._scope = conninfo, place_of(conninfo), scope
        self._timeout, self._lock_timeout, self._pg_dump = connect_timeout_seconds, lock_timeout_seconds, pg_dump
        self._keep = keep
        self._backup = Backup.of(scope.definition)
        self._specs = {spec.name: spec for spec, _ in scope.collections if spec.name != LARGE_OBJECTS}
        self._missing: Missing | None = None
        self._work: Work | None = None

    @property
    def notes(self) -> list[str]:
        """What was found worth telling."""
        return self._work.notes if self._work is not None else []

    def preflight(self) -> tuple[str, ...]:
        """Find out how the database is restored, and whether it can be."""
        with self._refusing("cannot look at"):
            way = self._find_way()
        self._work = self._open_work(way)
        database = {
            Way.CREATE: f"The database {self._place} is created; it appears when it is complete.",
            Way.BUILD: f"The empty database {self._place} is built, in one transaction.",
            Way.REPLACE: f"All that is in {self._place} is dropped and built again, in one transaction:"
            " its definitions differ.",
            Way.ROWS: f"Rows are written into {self._place}, in one transaction.",
        }
        return (database[way], *(self._missing.sentences() if self._missing is not None else ()))

    def _open_work(self, way: Way) -> Work:
        if way is not Way.CREATE:
            return self._in_place(self._conninfo, way)
        if self._whole:
            return Build(self._conninfo, self._scope, self._backup, self._timeout, self._keep)
        return Partial(self._conninfo, self._backup, self._timeout, lambda conninfo: self._in_place(conninfo, Way.ROWS))

    def _in_place(self, conninfo: str, way: Way) -> InPlace:
        return InPlace(
            conninfo,
            self._scope,
            self._backup,
            self._timeout,
            self._lock_timeout,
            build=way is Way.BUILD,
            replace=way is Way.REPLACE,
            missing=self._missing,
        )

    @property
    def _whole(self) -> bool:
        return self._scope.selection.everything and not self._scope.narrowed

    def _find_way(self) -> Way:
        if is_missing(self._conninfo, self._timeout):
            if not self._whole:
                self._miss(self._specs.values(), Live.empty())
            return Way.CREATE
        with connect(self._conninfo, self._timeout) as session:
            self._check_server(session)
            if self._whole and is_empty(session):
                return Way.BUILD
            exact = self._whole and self._scope.mode is RestoreMode.EXACT and not self._backup.narrowed
            if exact and not self._same_definitions(session):
                return Way.REPLACE
            self._compare(session)
        return Way.ROWS

    def _miss(self, specs: Iterable[CollectionSpec], live: Live) -> None:
        self._missing = Missing(self._backup, list(specs), live, self._place)

    def _check_server(self, session: Session) -> None:
        row = session.execute(
            "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_encoding')"
        ).fetchone()
        assert row is not None
        if row[0]:
            raise RestoreRefused(f"{self._place} is a standby, which cannot be written", hint="Name its primary.")
        if row[1] != self._backup.encoding:
            raise RestoreRefused(f"{self._place} is encoded in {row[1]}, the backup in {self._backup.encoding}")
        if session.info.server_version // 10000 < self._backup.server_version:
            raise RestoreRefused(
                f"{self._place} is PostgreSQL {session.info.server_version // 10000},"
                f" older than the backup's {self._backup.server_version}",
                hint="Restore to a server of that version or later.",
            )

    def _same_definitions(self, session: Session) -> bool:
        live = current_definitions(session, self._conninfo, self._pg_dump)
        return (live.before, live.after) == (self._backup.before, self._backup.after)

    def _compare(self, session: Session) -> None:
        live = {table.spec.name: table.spec for table in read_tables(session).tables}
        for name in self._specs.keys() & live.keys():
            if live[name].fingerprint != self._specs[name].fingerprint:
                raise RestoreRefused(
                    f"table {name} of {self._place} has other columns or another key than the backup", hint=_ELSEWHERE
                )
        if lacking := [spec for name, spec in self._specs.items() if name not in live]:
            self._miss(lacking, Live.of(session))

    def begin(self) -> None:
        """Begin to create a database that is missing."""
        assert self._work is not None
        self._work.begin()

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part."""
        assert self._work is not None
        with self._refusing(f"cannot write {collection.name} of"):
            self._work.apply(collection, rows)
        return int(rows.num_rows)

    def commit(self) -> None:
        """Complete the restore and make it visible."""
        assert self._work is not None
        with self._refusing("cannot complete the restore of"):
            self._work.commit()

    def abort(self) -> None:
        """Leave everything as it was before the first write."""
        if self._work is not None:
            # a server that is gone has kept nothing but, perhaps, a temporary database, which the next run drops
            with suppress(SourceUnavailable), translated(self._place, "cannot undo the restore of"):
                self._work.abort()

    @contextmanager
    def _refusing(self, doing: str) -> Iterator[None]:
        """Tell what the server refuses from a server that went away."""
        try:
            yield
        except LastgoodError:
            raise
        except psycopg.Error as exc:
            said = (exc.diag.message_primary or str(exc)).strip().replace("\n", " ")
            detail = f" ({exc.diag.message_detail})" if exc.diag.message_detail else ""
            hint = _REFUSALS.get((exc.sqlstate or "")[:2])
            if hint is None:
                with translated(self._place, doing):
                    raise
            raise RestoreRefused(f"{doing} {self._place}: {said}{detail}", hint=hint) from exc


_ELSEWHERE = "Restore to an empty database with --to and copy what you need from there."

_REFUSALS = {
    "23": "Restored rows and live ones exclude each other, or a foreign key points to nothing. Nothing was changed.",
    "42": "The role needs to own what it restores, and all roles that the backup names have to exist.",
    "22": "A value does not fit the live column. Restore to an empty database with --to.",
    "28": "Check the user and the password.",
    "58": "The server lacks a file: an extension of the backup is not installed there.",
    "0A": "The server cannot do this.",
    "2B": "Other objects depend on what is replaced.",
    "55": "An object is in use by another session. Try again later.",
}
