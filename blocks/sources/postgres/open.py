"""Opening a view: locks first, then the snapshot, then what the database is made of."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from pydantic import JsonValue

from blocks.errors import SourceChanged
from blocks.sources.postgres.changes import Token, hashed, server_and_snapshot
from blocks.sources.postgres.connect import (
    BEGIN,
    Session,
    altered,
    connect,
    identifier,
    place_of,
    settings_of,
    translated,
)
from blocks.sources.postgres.driver import Driver
from blocks.sources.postgres.dump import Definitions, dump_definitions
from blocks.sources.postgres.following import Following
from blocks.sources.postgres.identity import Identity, identities
from blocks.sources.postgres.large import large_object_definitions
from blocks.sources.postgres.readers import Readers
from blocks.sources.postgres.slot import Slot, SlotState, slot_state
from blocks.sources.postgres.tables import Catalogue, Table, large_objects, read_tables
from blocks.sources.postgres.types import state_of_types
from blocks.sources.postgres.uncovered import uncovered

if TYPE_CHECKING:
    from blocks.sources.postgres.view import PostgresView

_ATTEMPTS = 3
FAR_BYTES = 1024**3
_DECODING_SECONDS = 30.0
"""How much of its log the server decodes in any case, and how long it may take; more where tables are large."""
_LOOKED_THROUGH_A_SECOND = 100 * 1024**2
_DECODING = 8
"""How many times longer the server takes to decode so much of its log than to look through tables of that size."""
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

    included: Callable[[str, str], bool] = field(compare=False)
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


def view_in(opened: ExitStack, settings: Settings, *, ask: bool = False) -> PostgresView:
    """Open one consistent look at a database.

    Args:
        opened: Closes it.
        settings: Of the view.
        ask: Whether to ask the replication slot, if the plan names one, what was written since the last backup.

    Raises:
        SourceUnavailable: It cannot be reached or read.
    """
    place = place_of(settings.conninfo)
    session = connect(settings.conninfo, settings.connect_timeout_seconds)
    opened.callback(session.close)
    with translated(place, "cannot read the catalogue of"), ThreadPoolExecutor(4, "lastgood-opening") as beside:
        driver = Driver(_for_the_driver(session, settings), beside)
        opened.callback(driver.close)
        # before the snapshot, which so sees all that the slot told until now
        slot_before = slot_state(session, settings.slot) if settings.slot else None
        catalogue = _hold(session, settings, place)
        taken_at = datetime.now(UTC)
        row = session.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
        assert row is not None
        now = server_and_snapshot(session)
        tables = _chosen(catalogue.tables, settings.choice)
        following = None
        if settings.slot and now:
            described = beside.submit(identities, session, tables)
            following = _following(settings, driver, slot_before, now[1], tables, described)
        asking = beside.submit(following.ask, session, keys=True) if following and ask else None
        options = _options(session, settings.choice, tables)
        dumping = beside.submit(_dumped, settings, str(row[0]), options, session.info.server_version)
        readers = Readers(driver, str(row[0]))
        opened.callback(readers.close)
        readers.open_ahead(_AHEAD)
        found = _Found(session, settings.choice, tables, now)
        # not sooner: a view may be begun before Arrow is imported, and what was submitted does not wait for that
        from blocks.sources.postgres.view import PostgresView
        from blocks.sources.runs import RunFolder

        folder = RunFolder("lastgood-postgres-")
        opened.callback(folder.close)
        missed = _missed(session, settings, catalogue, place)
        if not found.tables:
            missed.append(f"No table of {place} is backed up.")
        if settings.slot and not now:
            missed.append(f"All rows of {place} are read: a standby keeps no replication slot for backups.")
        texts = dumping.result()
        if asking:
            asking.result()
        view = PostgresView(
            session,
            readers,
            place=place,
            taken_at=taken_at,
            tables=found.tables,
            definition=found.definition(texts),
            token=found.token(texts),
            system=f"PostgreSQL {found.version}, {place}",
            warnings=[*missed, *(f"pg_dump of {place} said: {said}" for said in texts.said)],
            part_size_bytes=settings.part_size_bytes,
            folder=folder,
            following=following,
        )
        opened.callback(view.close)
        return view


def _for_the_driver(session: Session, settings: Settings) -> str:
    """Return the conninfo for the driver, which asks for the names of types before it can be told how to write them."""
    known = settings_of(settings.conninfo)
    wait = known.get("connect_timeout") or str(max(2, round(settings.connect_timeout_seconds)))
    row = session.execute(
        "SELECT reset_val = 'on' FROM pg_catalog.pg_settings WHERE name = 'quote_all_identifiers'"
    ).fetchone()
    if row != (True,):
        return altered(settings.conninfo, connect_timeout=wait)
    options = f"{known.get('options', '')} -c quote_all_identifiers=off".strip()
    return altered(settings.conninfo, connect_timeout=wait, options=options)


def _options(session: Session, choice: Choice, tables: Sequence[Table]) -> list[str]:
    """Narrow pg_dump down as the plan does; exact names, since its patterns differ from globs."""
    if not choice.narrowed:
        return []
    if choice.schemas_only:
        rows = session.execute("SELECT nspname::text FROM pg_catalog.pg_namespace ORDER BY 1")
        schemas = [str(name) for (name,) in rows if choice.included(str(name), "")]
        return [f"--schema={identifier(name)}" for name in schemas]
    return [f"--table={identifier(*name)}" for name in _names(tables)]


def _dumped(settings: Settings, snapshot: str, options: list[str], server_version: int) -> Definitions:
    if settings.choice.narrowed and not options:
        # without any option pg_dump would write down everything
        return Definitions("", "")
    return dump_definitions(settings.conninfo, snapshot, options, server_version // 10000, settings.pg_dump)


def _following(
    settings: Settings,
    driver: Driver,
    before: SlotState | None,
    snapshot: str,
    tables: Sequence[Table],
    described: Future[dict[str, Identity]],
) -> Following:
    assert settings.slot is not None
    size_bytes = sum(table.size_bytes for table in tables)
    slot = Slot(
        settings.conninfo,
        settings.slot,
        settings.connect_timeout_seconds,
        settings.lock_timeout_seconds,
        max(_DECODING_SECONDS, size_bytes / _LOOKED_THROUGH_A_SECOND),
    )
    return Following(slot, driver, before, snapshot, described, max(FAR_BYTES, size_bytes // _DECODING))


def _chosen(tables: Sequence[Table], choice: Choice) -> list[Table]:
    return [table for table in tables if choice.included(table.shape.schema, table.shape.table)]


def _hold(session: Session, settings: Settings, place: str) -> Catalogue:
    """Lock all tables against changes of their definition, then take the snapshot.

    In this order a TRUNCATE or a rewrite, which a snapshot does not protect from, has ended before the snapshot is
    taken. A table that appeared or went in between is met with another attempt.
    """
    # from now on: to measure a table waits for whoever changes it, too
    session.execute(f"SET lock_timeout = {round(settings.lock_timeout_seconds * 1000)}".encode())
    for _ in range(_ATTEMPTS):
        before = _to_lock(session, read_tables(session), settings.choice)
        session.execute(BEGIN)
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


class _Found:
    """What is found out about a database inside its snapshot, while pg_dump runs."""

    def __init__(
        self, session: Session, choice: Choice, tables: Sequence[Table], now: tuple[tuple[str, ...], str] | None
    ) -> None:
        self._session, self._choice = session, choice
        row = session.execute(_DATABASE.encode()).fetchone()
        assert row is not None
        self._encoding, self._collate, self._ctype, self.version = map(str, row)
        large = None if choice.narrowed else large_objects(session)
        self.tables = [*tables, *([large] if large else [])]
        self._large = "" if choice.narrowed else large_object_definitions(session)
        self._sequences = self._positions()
        self._types, self._now = state_of_types(session), now

    def definition(self, texts: Definitions) -> dict[str, JsonValue]:
        """Return what goes into the manifest."""
        return {
            "server_version": self._session.info.server_version // 10000,
            "encoding": self._encoding,
            "collate": self._collate,
            "ctype": self._ctype,
            "before": texts.before + self._large,
            "after": texts.after,
            "sequences": self._sequences,
            "narrowed": self._choice.narrowed,
        }

    def token(self, texts: Definitions) -> Token | None:
        """Return what the next incremental is told; None where changes cannot be tracked."""
        if self._now is None:
            return None
        tables = {table.spec.name: hashed(table.facts) for table in self.tables if table.facts is not None}
        # where a table cannot be tracked no two tokens are equal
        nonce = "" if len(tables) == len(self.tables) else uuid.uuid4().hex
        other = hashed((hashed((self._sequences, self._large)), nonce))
        definition = hashed((texts.before, texts.after, self._choice.words, self._types))
        return Token(*self._now, definition, other, tables)

    def _positions(self) -> list[JsonValue]:
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
        choice = self._choice
        if choice.schemas_only or not choice.narrowed:
            return choice.included(schema, "" if choice.narrowed else name)
        return bool(owner) and choice.included(owner_schema, owner)


def _missed(session: Session, settings: Settings, catalogue: Catalogue, place: str) -> list[str]:
    """Tell what is not in the backup."""
    foreign = [".".join(name) for name in catalogue.foreign if settings.choice.included(*name)]
    found = [f"The rows of foreign table {name} live elsewhere and are not in this backup." for name in foreign]
    return found + uncovered(session, place, settings.slot)
