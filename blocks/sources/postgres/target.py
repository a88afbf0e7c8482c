"""Restores into a database, in one transaction that nobody sees before its end.

An empty or a missing database is built: definitions, rows, then indexes and constraints. So is one whose definitions
differ from the backup's, where all of it is restored exactly: what it holds is dropped in the same transaction.
Everything else is rows written into live tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock

import psycopg
import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import LastgoodError, RestoreRefused
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.postgres.connect import Session, connect, place_of, translated
from blocks.sources.postgres.dump import current_definitions
from blocks.sources.postgres.live import drop_everything, is_empty
from blocks.sources.postgres.rows import LargeObjects, RowWriter
from blocks.sources.postgres.scratch import create_database, drop_created, is_missing
from blocks.sources.postgres.sequences import Sequence_, materialized_views, set_sequences
from blocks.sources.postgres.tables import LARGE_OBJECTS, TableShape, large_objects, read_tables


class Way(StrEnum):
    """How a database is restored."""

    CREATE = "create"
    """It is missing: made, then built."""
    BUILD = "build"
    """It is empty: built."""
    REPLACE = "replace"
    """What it holds is dropped, then it is built."""
    ROWS = "rows"
    """Rows are written into its tables."""


@dataclass(frozen=True)
class Backup:
    """What the manifest says of the database."""

    server_version: int
    encoding: str
    collate: str
    ctype: str
    before: str
    after: str
    sequences: tuple[Sequence_, ...]
    narrowed: bool

    @classmethod
    def of(cls, definition: dict[str, JsonValue]) -> Backup:
        """Read it.

        Raises:
            RestoreRefused: It is not that of a PostgreSQL database.
        """
        match definition:
            case {"server_version": int(version), "before": str(before), "after": str(after), "sequences": list(rows)}:
                return cls(
                    server_version=version,
                    encoding=str(definition.get("encoding")),
                    collate=str(definition.get("collate")),
                    ctype=str(definition.get("ctype")),
                    before=before,
                    after=after,
                    sequences=tuple(Sequence_.of(row) for row in rows),
                    narrowed=bool(definition.get("narrowed")),
                )
        raise RestoreRefused("the manifest does not describe a PostgreSQL database")


class PostgresTarget:
    """A database that is restored in one transaction.

    Args:
        conninfo: The database.
        scope: What is restored.
        connect_timeout_seconds: How long to wait for a connection.
        lock_timeout_seconds: How long to wait for a lock.
        pg_dump: The pg_dump program; None to find one.
    """

    def __init__(
        self,
        conninfo: str,
        scope: RestoreScope,
        connect_timeout_seconds: float,
        lock_timeout_seconds: float,
        pg_dump: str | None,
    ) -> None:
        self.notes: list[str] = []
        self._conninfo, self._place, self._scope = conninfo, place_of(conninfo), scope
        self._timeout, self._lock_timeout, self._pg_dump = connect_timeout_seconds, lock_timeout_seconds, pg_dump
        self._backup = Backup.of(scope.definition)
        self._specs = {spec.name: spec for spec, _ in scope.collections}
        self._lock = Lock()
        self._way: Way | None = None
        self._created = False
        self._session: Session | None = None
        self._rows: RowWriter | None = None
        self._large: LargeObjects | None = None

    @property
    def _whole(self) -> bool:
        return self._scope.selection.everything and not self._scope.narrowed

    def preflight(self) -> tuple[str, ...]:
        """Find out how the database is restored, and whether it can be."""
        with self._refusing("cannot look at"):
            self._way = self._find_way()
        database = {
            Way.CREATE: f"The database {self._place} is created.",
            Way.BUILD: f"The empty database {self._place} is built.",
            Way.REPLACE: f"All that is in {self._place} is dropped and built again: its definitions differ.",
            Way.ROWS: f"Rows are written into {self._place}.",
        }
        return (f"{database[self._way]} All in one transaction.",)

    def _find_way(self) -> Way:
        if is_missing(self._conninfo, self._timeout):
            return Way.CREATE
        with connect(self._conninfo, self._timeout) as session:
            self._check_server(session)
            if is_empty(session):
                return Way.BUILD
            exact = self._whole and self._scope.mode is RestoreMode.EXACT and not self._backup.narrowed
            if exact and not self._same_definitions(session):
                return Way.REPLACE
            self._compare(session)
        return Way.ROWS

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
        if (large := large_objects(session)) is not None:
            live[LARGE_OBJECTS] = large.spec
        for name, spec in self._specs.items():
            there = live.get(name)
            if name == LARGE_OBJECTS:
                continue
            if there is None:
                raise RestoreRefused(f"{self._place} has no table {name}", hint=_ELSEWHERE)
            if there.fingerprint != spec.fingerprint:
                raise RestoreRefused(
                    f"table {name} of {self._place} has other columns or another key than the backup", hint=_ELSEWHERE
                )

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Write the rows of one part."""
        with self._lock, self._refusing(f"cannot write {collection.name} of"):
            self._begin()
            assert self._rows is not None
            assert self._large is not None
            if collection.name == LARGE_OBJECTS:
                self._large.write(rows)
            else:
                self._rows.write(collection, rows)
        return int(rows.num_rows)

    def _begin(self) -> None:
        if self._large is not None:
            return
        if self._session is not None:
            # another thread's part began it and failed; that error is the one to read
            raise RestoreRefused(f"the restore of {self._place} could not be begun, because of a lock or an error")
        if self._way is Way.CREATE:
            b = self._backup
            create_database(self._conninfo, self._timeout, b.encoding, b.collate, b.ctype)
            self._created = True
        self._session = session = connect(self._conninfo, self._timeout)
        session.execute("BEGIN")
        session.execute(f"SET LOCAL lock_timeout = {round(self._lock_timeout * 1000)}".encode())
        if self._way is Way.REPLACE:
            drop_everything(session)
        fresh = self._way is not Way.ROWS
        if fresh:
            session.execute(self._backup.before.encode())
        self._rows = RowWriter(session, self._scope, fresh)
        if not fresh:
            self._rows.clear()
        # set last: it tells that all of this was done
        self._large = LargeObjects(session, self._scope, self._backup.before, fresh)

    def commit(self) -> None:
        """Bring indexes, constraints and triggers back, set sequences, refresh materialised views, commit."""
        with self._lock, self._refusing("cannot complete the restore of"):
            self._begin()
            session, rows, large = self._session, self._rows, self._large
            assert session is not None
            assert rows is not None
            assert large is not None
            large.finish()
            self.notes += set_sequences(session, self._backup.sequences, self._exact_tables(), self._merged_tables())
            if self._way is Way.ROWS:
                rows.finish()
                for view in materialized_views(session, self._backup.after):
                    session.execute(f"REFRESH MATERIALIZED VIEW {view}".encode())
            else:
                session.execute(self._backup.after.encode())
            session.execute("COMMIT")
            session.close()
            self._created = False

    def _exact_tables(self) -> set[tuple[str, str]] | None:
        """Return the tables whose sequences are set as they were; None for all sequences."""
        if self._way is not Way.ROWS or (self._whole and self._scope.mode is RestoreMode.EXACT):
            return None
        if self._scope.mode is RestoreMode.MERGE:
            return set()
        return {at for name, at in self._tables().items() if not self._scope.selection_of(name).narrows_keys}

    def _merged_tables(self) -> set[tuple[str, str]]:
        return set(self._tables().values())

    def _tables(self) -> dict[str, tuple[str, str]]:
        shapes = {name: TableShape.of(spec) for name, spec in self._specs.items()}
        return {name: (shape.schema, shape.table) for name, shape in shapes.items()}

    def abort(self) -> None:
        """Roll back, and drop the database where this restore created it."""
        with self._lock:
            if self._session is not None:
                # an open transaction is rolled back by closing
                self._session.close()
            if self._created:
                self._created = False
                with translated(self._place, "cannot drop"):
                    drop_created(self._conninfo, self._timeout)

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
