"""Which way a database is restored, and what can be refused before the first write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from blocks.errors import PlaceUnfit, RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.choice import Choice
from blocks.sources.postgres.connect import Session, connect, identifier, place_of, settings_of
from blocks.sources.postgres.read.uncovered import lost_by_dropping
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.schema.dump import current_definitions
from blocks.sources.postgres.schema.entries import Entry, split
from blocks.sources.postgres.schema.live import TEMPLATES, LiveObjects, is_empty, is_template
from blocks.sources.postgres.schema.missing_tables import MissingTables
from blocks.sources.postgres.schema.ownership import Ownership
from blocks.sources.postgres.schema.privileges import (
    is_read_only,
    lacking_for_rows,
    lacking_to_make,
    lacking_to_replace,
    tablespaces_of,
)
from blocks.sources.postgres.schema.sequences import materialized_views
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, read_tables
from blocks.sources.postgres.write.create_checks import lacking_to_create, lacking_to_rename
from blocks.sources.postgres.write.disk_room import check_disk
from blocks.sources.postgres.write.in_place import Job
from blocks.sources.postgres.write.lock_room import LockRoom, lock_room, locks_of_all, locks_of_entries, locks_of_rows
from blocks.sources.postgres.write.locks import holders, tables_of_a_restore
from blocks.sources.postgres.write.scratch import MAINTENANCE, is_missing, maintenance
from blocks.sources.target import RestoreMode, RestoreScope


class RestoreMethod(StrEnum):
    """How a database is restored."""

    CREATE = "create"
    """It is missing: built under another name, then renamed."""
    BUILD = "build"
    """It is empty: built."""
    REPLACE = "replace"
    """What it holds is dropped, then it is built."""
    ROWS = "rows"
    """Rows are written into its tables; tables that it lacks are made."""
    ASIDE = "aside"
    """It is renamed, and another one is built in its place."""


@dataclass(frozen=True)
class Decision:
    """How a database is restored.

    Attributes:
        way: The method of the restore.
        job: What is done inside of it, where it is there.
        left_out: Whether the plan or the backup leaves something of it out.
    """

    way: RestoreMethod
    job: Job
    left_out: bool = False


class Preflight:
    """Looks at a database before anything is written.

    Args:
        conninfo: Connection string of the database, as libpq reads it.
        scope: The collections, rows and mode of the restore.
        choice: What the plan covers now.
        timeout_seconds: How long to wait for a connection.
        pg_dump: The pg_dump program; None to find one.
        ownership: What of the definitions that names roles is restored; the scope's definitions hold no more.
    """

    def __init__(
        self,
        conninfo: str,
        scope: RestoreScope,
        choice: Choice,
        timeout_seconds: float,
        pg_dump: str | None,
        ownership: Ownership,
    ) -> None:
        self._conninfo, self._place, self._choice = conninfo, place_of(conninfo), choice
        self._timeout, self._pg_dump, self._ownership = timeout_seconds, pg_dump, ownership
        self._backup, self._scope = Backup.of(scope.definition), scope
        self._whole = scope.selection.everything and not scope.narrowed
        self._exact = scope.mode is RestoreMode.EXACT

    def find(self) -> Decision:
        """Find out how the database is restored, and whether it can be.

        Raises:
            RestoreRefused: It cannot be, or something would be lost.
        """
        self.check_name()
        found = self._find()
        if found.job.build or (found.way in (RestoreMethod.CREATE, RestoreMethod.ASIDE) and found.job.missing is None):
            self._refuse_orphaned()
        return found

    def _refuse_orphaned(self) -> None:
        """Refuse definitions of which a foreign key is known to be broken by the rows that come with them."""
        if self._backup.orphaned and not self._scope.keep_going:
            key = self._backup.orphaned[0]
            raise RestoreRefused(
                f"foreign key {key.name} of {key.at} cannot be rebuilt in {self._place}: rows refer to rows of {key.to}"
                " that are not in the backup",
                hint="`--keep-going` restores all else, and the foreign key as NOT VALID.",
            )

    def _find(self) -> Decision:
        if is_missing(self._conninfo, self._timeout):
            job = Job(self._scope, self._backup)
            if not self._whole:
                job = replace(job, missing=self._missing(list(_tables(self._scope)), LiveObjects.empty()))
            self._refuse(lacking_to_create(self._conninfo, self._timeout, self._entries()))
            with maintenance(self._conninfo, self._timeout) as session:
                self._check_version(session)
                self._check_room(session)
                if job.missing is not None:
                    job = replace(job, locks=self._locks(session, locks_of_entries(job.missing.entries)))
            return Decision(RestoreMethod.CREATE, job)
        with connect(self._conninfo, self._timeout) as session:
            self.check_template(session)
            self._check_server(session)
            found = self._find_in(session)
            self._check_room(session)
            return replace(found, job=replace(found.job, locks=self._locks_in(session, found)))

    def _locks_in(self, session: Session, found: Decision) -> LockRoom | None:
        if found.way is RestoreMethod.ASIDE:  # built in many transactions
            return None
        job = found.job
        if job.build:
            return self._locks(session, locks_of_entries(self._entries()) + locks_of_all(session) * job.replace)
        needed, truncating = locks_of_rows(session, [identifier(*at) for at in job.tables().values()])
        needed += locks_of_entries(job.missing.entries) if job.missing is not None else 0
        return self._locks(session, needed + len(job.sequences()), truncating)

    def _locks(self, session: Session, needed: int, truncating: int = 0) -> LockRoom:
        found = lock_room(session, needed, truncating)
        found.refuse(self._place)
        return found

    def check_name(self) -> None:
        """Refuse what every server makes databases from, where that is not what was backed up.

        Raises:
            RestoreRefused: That is the place.
        """
        if not self._scope.in_place and self._name in TEMPLATES:
            self._refuse_template()

    def check_template(self, session: Session) -> None:
        """Refuse what others make databases from, where that is not what was backed up.

        Raises:
            RestoreRefused: That is the place.
        """
        if not self._scope.in_place and is_template(session):
            self._refuse_template()

    def _refuse_template(self) -> None:
        raise RestoreRefused(
            f"{self._place} is a template: all that is restored to it would be in every database that is made from it",
            hint="Name another database with --to; one that is missing is created.",
        )

    @property
    def _name(self) -> str:
        known = settings_of(self._conninfo)
        return known.get("dbname") or known.get("user") or ""

    def _check_room(self, session: Session) -> None:
        check_disk(session, self._conninfo, self._scope, spread=bool(tablespaces_of(self._entries())))

    def _find_in(self, session: Session) -> Decision:
        if self._whole and is_empty(session):
            self._refuse(lacking_to_make(session, self._entries(), inside=True))
            return Decision(RestoreMethod.BUILD, Job(self._scope, self._backup, build=True))
        if not self._scope.in_place and self._exact:
            return self._find_elsewhere(session)
        return self._find_live(session)

    def _find_elsewhere(self, session: Session) -> Decision:
        """Restore exactly to another database that is not empty: all of it is kept aside."""
        if not self._scope.overwrite:
            raise RestoreRefused(
                f"{self._place} is not empty", hint="Name an empty or a missing database, or allow to overwrite it."
            )
        if self._whole:
            return self.aside()
        return self._rows(session, Job(self._scope, self._backup, copied=True))

    def aside(self) -> Decision:
        """Return how the database is restored where it is renamed and another one built.

        Raises:
            RestoreRefused: Somebody uses it, or a privilege is lacking.
        """
        if not (self._whole and self._exact) or self._narrowed or (self._backup.narrowed and self._scope.in_place):
            raise RestoreRefused(
                f"{self._place} would have to be moved aside as a whole, but only a part of it is restored",
                hint="Restore all of it exactly, or to an empty database with --to.",
            )
        if self._name == MAINTENANCE:
            raise RestoreRefused(
                f"{self._place} would have to be renamed, and it is the database that every client of the server finds",
                hint="Name another database with --to; one that is missing is created.",
            )
        self._refuse(lacking_to_rename(self._conninfo, self._timeout))
        self._refuse(lacking_to_create(self._conninfo, self._timeout, self._entries()))
        return Decision(RestoreMethod.ASIDE, Job(self._scope, self._backup))

    def _find_live(self, session: Session) -> Decision:
        left_out = self._narrowed or self._backup.narrowed
        if self._whole and self._exact and not left_out and not self._same_definitions(session):
            self.check_replaced(session)
            self._refuse([*lacking_to_replace(session), *lacking_to_make(session, self._entries(), inside=False)])
            return Decision(RestoreMethod.REPLACE, Job(self._scope, self._backup, build=True, replace=True))
        # elsewhere there is no emergency backup of the rows that a merge replaces
        restored = Backup.of(dict(self._scope.taken_back)) if self._scope.taken_back else None
        job = Job(self._covered_scope(), self._covered_backup(), copied=not self._scope.in_place, restored=restored)
        if self._narrowed:
            job = replace(job, covers=self._choice.included)
        return replace(self._rows(session, job), left_out=self._whole and left_out)

    @property
    def _narrowed(self) -> bool:
        """Whether the plan leaves out something of the place."""
        return self._scope.in_place and self._choice.narrowed

    def _covered_scope(self) -> RestoreScope:
        if not self._narrowed:
            return self._scope
        kept = tuple(c for c in self._scope.collections if self._choice.covers(c[0]))
        return replace(self._scope, collections=kept)

    def _covered_backup(self) -> Backup:
        if not self._narrowed:
            return self._backup
        covered = self._choice.covers_sequence
        return replace(
            self._backup, sequences=tuple(s for s in self._backup.sequences if covered(s.schema, s.name, *s.owner))
        )

    def _rows(self, session: Session, job: Job) -> Decision:
        lacking = self._compare(session, job)
        if lacking:
            job = replace(job, missing=self._missing(lacking, LiveObjects.of(session)))
        there = {name: identifier(*at) for name, at in job.tables().items() if name not in {s.name for s in lacking}}
        emptied = [quoted for name, quoted in there.items() if self._exact and not self._narrows(name)]
        self._refuse(
            lacking_for_rows(
                session,
                emptied,
                [quoted for quoted in there.values() if quoted not in emptied],
                job.sequences(),
                materialized_views(session, job.backup.after, job.covers),
                large_objects=job.large_objects,
            )
        )
        if job.missing is not None:
            self._refuse(lacking_to_make(session, self._needed(job.missing.entries), inside=True))
        self._refuse_prepared(session, list(there.values()))
        return Decision(RestoreMethod.ROWS, job)

    def _narrows(self, collection: str) -> bool:
        return self._scope.selection_of(collection).narrows_keys

    def _missing(self, specs: Sequence[CollectionSpec], live: LiveObjects) -> MissingTables:
        return MissingTables(self._backup, specs, live, self._place)

    def missing_with(
        self, session: Session, job: Job, at: Sequence[tuple[str, str]], free: set[tuple[str, str]]
    ) -> MissingTables:
        """Return what makes the tables that are lacking, and those that are moved aside.

        Args:
            session: A session in the database.
            job: What is done inside of the database.
            at: The tables that are moved.
            free: All names that come free with them.
        """
        lacking = self._compare(session, job)
        moved = [spec for spec in _tables(job.scope) if job.tables()[spec.name] in at]
        return MissingTables(self._backup, [*lacking, *moved], LiveObjects.of(session).without(free), self._place, at)

    def _entries(self) -> list[Entry]:
        return self._needed(e for text in (self._backup.before, self._backup.after) for e in split(text)[1])

    def _needed(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return what has to be made: extensions, which a server may not have, only where nothing is left out."""
        return [entry for entry in entries if not (self._scope.keep_going and entry.type == "EXTENSION")]

    def _refuse(self, lacking: Sequence[str]) -> None:
        if lacking:
            raise PlaceUnfit(
                f"cannot restore to {self._place} with this role: {'; '.join(lacking)}",
                hint="The role needs to own what it restores, and all that the backup names has to exist.",
            )

    def _refuse_prepared(self, session: Session, tables: Sequence[str] | None) -> None:
        if held := holders(session, tables_of_a_restore(session, tables), prepared=True):
            raise RestoreRefused(
                f"tables of {self._place} are held by {', '.join(held)}", hint="Commit it or roll it back first."
            )

    def check_replaced(self, session: Session) -> None:
        """Refuse where what is dropped holds something that no backup has.

        Raises:
            RestoreRefused: It does.
        """
        if lost := lost_by_dropping(session):
            raise RestoreRefused(
                f"{self._place} has other definitions than the backup, so that all of it would be dropped, and no"
                f" backup holds its {'; '.join(lost)}",
                hint="Restore to a missing database with --to, or chosen tables with --collection; or save and drop"
                " what is named, and repeat it.",
            )
        self._refuse_prepared(session, None)

    def _check_server(self, session: Session) -> None:
        row = session.execute(
            "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_encoding')"
        ).fetchone()
        assert row is not None
        if row[0]:
            raise PlaceUnfit(f"{self._place} is a standby, which cannot be written", hint="Name its primary.")
        if is_read_only(session):
            raise PlaceUnfit(
                f"{self._place} lets this role write nothing: default_transaction_read_only is on",
                hint="Look where it is set: for the role, the database or the server.",
            )
        if row[1] != self._backup.encoding:
            raise RestoreRefused(f"{self._place} is encoded in {row[1]}, the backup in {self._backup.encoding}")
        self._check_version(session)

    def _check_version(self, session: Session) -> None:
        if session.info.server_version // 10000 < self._backup.server_version:
            raise PlaceUnfit(
                f"{self._place} is PostgreSQL {session.info.server_version // 10000},"
                f" older than the backup's {self._backup.server_version}",
                hint="Restore to a server of that version or later.",
            )

    def _same_definitions(self, session: Session) -> bool:
        live = current_definitions(session, self._conninfo, self._pg_dump)
        texts = [self._ownership.of_text(text) for text in (live.before, live.after)]
        return texts == [self._backup.before, self._backup.after]

    def _compare(self, session: Session, job: Job) -> list[CollectionSpec]:
        """Return the tables that the database lacks.

        Raises:
            RestoreRefused: One that is there is another one.
        """
        live = {table.spec.name: table.spec for table in read_tables(session).tables}
        wanted = {spec.name: spec for spec in _tables(job.scope)}
        for name in wanted.keys() & live.keys():
            if not live[name].fits(wanted[name]):
                raise RestoreRefused(
                    f"table {name} of {self._place} has other columns or another key than the backup", hint=_ELSEWHERE
                )
        return [spec for name, spec in wanted.items() if name not in live]

    def check_held(self, session: Session, found: Decision) -> None:
        """Look again at what others may have changed before it was locked.

        Raises:
            RestoreRefused: It can no longer be restored this way.
        """
        if found.job.replace:
            self.check_replaced(session)
        elif found.way is RestoreMethod.ROWS:
            made = {spec.name for spec in self._compare(session, found.job)}
            if made != set(found.job.missing.collections if found.job.missing is not None else ()):
                raise RestoreRefused(f"tables of {self._place} were made or dropped meanwhile", hint="Repeat it.")


def _tables(scope: RestoreScope) -> list[CollectionSpec]:
    return [spec for spec, _ in scope.collections if spec.name != LARGE_OBJECTS]


_ELSEWHERE = "Restore to an empty database with --to and copy what you need from there."
