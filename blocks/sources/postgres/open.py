"""Opening a view: locks first, then the snapshot, then what the database is made of."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from pydantic import JsonValue

from blocks.errors import SourceChanged
from blocks.sources.postgres.changes import Token, hashed, server_and_snapshot
from blocks.sources.postgres.connect import (
    BEGIN,
    Readers,
    Session,
    connect,
    identifier,
    place_of,
    translated,
)
from blocks.sources.postgres.dump import Definitions, dump_definitions
from blocks.sources.postgres.following import Following
from blocks.sources.postgres.large import large_object_definitions
from blocks.sources.postgres.slot import Slot, slot_state
from blocks.sources.postgres.tables import Catalogue, Table, large_objects, read_tables
from blocks.sources.postgres.types import state_of_types
from blocks.sources.postgres.uncovered import uncovered
from blocks.sources.postgres.view import PostgresView
from blocks.sources.runs import RunFolder

_ATTEMPTS = 3
_AHEAD = 2
"""As many parts are read at a time, as a rule."""


@dataclass(frozen=True)
class Choice:
    """What of a database is backed up.

    Attributes:
        included: Tells for a schema and a name whether a table (or a sequence) is.
        narrowed: Whether that may leave something out.
        words: What the plan says, to tell one choice from another.
        schemas_only: Whether whole schemas are chosen.
    """

    included: Callable[[str, str], bool]
    narrowed: bool
    schemas_only: bool
    words: str


@dataclass(frozen=True)
class Settings:
    """How a view is opened."""

    conninfo: str
    choice: Choice
    part_size_bytes: int
    connect_timeout_seconds: float
    lock_timeout_seconds: float
    pg_dump: str | None
    slot: str | None = None


@contextmanager
def open_view(settings: Settings, since: str | None = None) -> Iterator[PostgresView]:
    """Open one consistent look at a database.

    Args:
        settings: Of the source.
        since: The token of the view that the base of an incremental was made from.

    Raises:
        SourceUnavailable: It cannot be reached or read.
    """
    place = place_of(settings.conninfo)
    with ExitStack() as opened:
        folder = RunFolder("lastgood-postgres-")
        opened.callback(folder.close)
        session = connect(settings.conninfo, settings.connect_timeout_seconds)
        opened.callback(session.close)
        with translated(place, "cannot read the catalogue of"):
            following = _following(session, settings, since)
            catalogue = _hold(session, settings, place)
            taken_at = datetime.now(UTC)
            row = session.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
            assert row is not None
            snapshot = str(row[0])
            tables = _chosen(catalogue.tables, settings.choice)
            readers = Readers(settings.conninfo, snapshot)
            opened.callback(readers.close)
            readers.open_ahead(_AHEAD)  # while pg_dump runs
            view = _Opened(session, settings, snapshot, tables, catalogue).view(
                readers, place, taken_at, folder, following
            )
        yield view


def _following(session: Session, settings: Settings, since: str | None) -> Following | None:
    """Look at the replication slot before the snapshot is taken, which so sees all that the slot told before."""
    if settings.slot is None:
        return None
    slot = Slot(settings.conninfo, settings.slot, settings.connect_timeout_seconds, settings.lock_timeout_seconds)
    return Following(slot, slot_state(session, settings.slot), Token.parse(since))


def _chosen(tables: Sequence[Table], choice: Choice) -> list[Table]:
    return [table for table in tables if choice.included(table.shape.schema, table.shape.table)]


def _hold(session: Session, settings: Settings, place: str) -> Catalogue:
    """Lock all tables against changes of their definition, then take the snapshot.

    In this order a TRUNCATE or a rewrite, which a snapshot does not protect from, has ended before the snapshot is
    taken. A table that appeared or went in between is met with another attempt.
    """
    for _ in range(_ATTEMPTS):
        before = _to_lock(session, read_tables(session), settings.choice)
        session.execute(BEGIN)
        session.execute(f"SET LOCAL lock_timeout = {round(settings.lock_timeout_seconds * 1000)}".encode())
        with suppress(psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            if before:
                names = ", ".join(f"ONLY {identifier(*name)}" for name in before)
                session.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE".encode())
            catalogue = read_tables(session)
            if _to_lock(session, catalogue, settings.choice) == before:
                return catalogue
        session.execute("ROLLBACK")
    raise SourceChanged(f"{place}: tables were made and dropped all the time", hint="Try again at a quieter time.")


def _to_lock(session: Session, catalogue: Catalogue, choice: Choice) -> list[tuple[str, str]]:
    names = _names(_chosen(catalogue.tables, choice))
    if not choice.narrowed and (large := large_objects(session)) is not None:
        names.append((large.shape.schema, large.shape.table))
    return names


def _names(tables: Sequence[Table]) -> list[tuple[str, str]]:
    return [(table.shape.schema, table.shape.table) for table in tables]


_SEQUENCES = """
SELECT n.nspname::text, c.relname::text, coalesce(tn.nspname::text, ''), coalesce(t.relname::text, '')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
  AND d.refclassid = d.classid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_(toast|temp)'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                  WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY 1, 2
"""

_DATABASE = """
SELECT pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text,
       pg_catalog.current_setting('server_version')
FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()
"""


class _Opened:
    """What is found out about a database inside its snapshot."""

    def __init__(
        self, session: Session, settings: Settings, snapshot: str, tables: list[Table], catalogue: Catalogue
    ) -> None:
        self._session, self._settings, self._snapshot = session, settings, snapshot
        self._tables, self._catalogue = tables, catalogue
        row = session.execute(_DATABASE.encode()).fetchone()
        assert row is not None
        self._database = row
        self._texts = self._dumped()
        large = None if settings.choice.narrowed else large_objects(session)
        if large is not None:
            self._tables.append(large)

    def view(
        self, readers: Readers, place: str, taken_at: datetime, folder: RunFolder, following: Following | None
    ) -> PostgresView:
        definition, token = self._definition()
        return PostgresView(
            self._session,
            readers,
            place=place,
            taken_at=taken_at,
            tables=self._tables,
            definition=definition,
            token=token,
            system=f"PostgreSQL {self._database[3]}, {place}",
            warnings=self._warnings(place),
            part_size_bytes=self._settings.part_size_bytes,
            folder=folder,
            following=following,
        )

    def _dumped(self) -> Definitions:
        options, settings = self._options(), self._settings
        if settings.choice.narrowed and not options:
            # without any option pg_dump would write down everything
            return Definitions("", "")
        version = self._session.info.server_version // 10000
        return dump_definitions(settings.conninfo, self._snapshot, options, version, settings.pg_dump)

    def _definition(self) -> tuple[dict[str, JsonValue], Token | None]:
        texts = self._texts
        large = "" if self._settings.choice.narrowed else large_object_definitions(self._session)
        sequences = self._sequences()
        definition: dict[str, JsonValue] = {
            "server_version": self._session.info.server_version // 10000,
            "encoding": str(self._database[0]),
            "collate": str(self._database[1]),
            "ctype": str(self._database[2]),
            "before": texts.before + large,
            "after": texts.after,
            "sequences": sequences,
            "narrowed": self._settings.choice.narrowed,
        }
        return definition, self._token(texts, hashed((sequences, large)))

    def _options(self) -> list[str]:
        """Narrow pg_dump down as the plan does; exact names, since its patterns differ from globs."""
        choice = self._settings.choice
        if not choice.narrowed:
            return []
        if choice.schemas_only:
            rows = self._session.execute("SELECT nspname::text FROM pg_catalog.pg_namespace ORDER BY 1")
            schemas = [str(name) for (name,) in rows if choice.included(str(name), "")]
            return [f"--schema={identifier(name)}" for name in schemas]
        return [f"--table={identifier(*name)}" for name in _names(self._tables)]

    def _sequences(self) -> list[JsonValue]:
        rows = [
            tuple(map(str, row))
            for row in self._session.execute(_SEQUENCES.encode())
            if self._chosen_sequence(*map(str, row))
        ]
        if not rows:
            return []
        values = " UNION ALL ".join(
            f"SELECT {n}, last_value, is_called FROM {identifier(row[0], row[1])}" for n, row in enumerate(rows)
        )
        found = {
            int(str(n)): (int(str(last)), bool(called)) for n, last, called in self._session.execute(values.encode())
        }
        return [[*row, *found[n]] for n, row in enumerate(rows)]

    def _chosen_sequence(self, schema: str, name: str, owner_schema: str, owner: str) -> bool:
        included = self._settings.choice.included
        if self._settings.choice.schemas_only or not self._settings.choice.narrowed:
            return included(schema, "" if self._settings.choice.narrowed else name)
        return bool(owner) and included(owner_schema, owner)

    def _token(self, texts: Definitions, other: str) -> Token | None:
        found = server_and_snapshot(self._session)
        if found is None:
            return None
        tables = {table.spec.name: hashed(table.facts) for table in self._tables if table.facts is not None}
        # where a table cannot be tracked no two tokens are equal
        nonce = "" if len(tables) == len(self._tables) else uuid.uuid4().hex
        types = state_of_types(self._session)
        definition = hashed((texts.before, texts.after, self._settings.choice.words, types))
        return Token(*found, definition, hashed((other, nonce)), tables)

    def _warnings(self, place: str) -> list[str]:
        foreign = [".".join(name) for name in self._catalogue.foreign if self._settings.choice.included(*name)]
        found = [f"The rows of foreign table {name} live elsewhere and are not in this backup." for name in foreign]
        found += uncovered(self._session, place, self._settings.slot)
        found += [f"pg_dump of {place} said: {said}" for said in self._texts.said]
        if not self._tables:
            found.append(f"No table of {place} is backed up.")
        return found
