"""Opening a view: locks first, then the snapshot, then what the database is made of."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
from pydantic import JsonValue

from blocks.errors import SourceChanged
from blocks.sources.postgres.choice import Choice, Settings
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
from blocks.sources.postgres.read.arrow_driver import Driver
from blocks.sources.postgres.read.capture import ChangeCapture, NoCapture, Opening
from blocks.sources.postgres.read.capture_lookup import prepare_capture
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.read.salvage import SalvageView
from blocks.sources.postgres.read.suspects import Suspects, suspects
from blocks.sources.postgres.read.uncovered import uncovered, unlogged_on_standby, unreadable
from blocks.sources.postgres.read.view import Contents, PostgresView
from blocks.sources.postgres.read.xmin_tracking import Token, hashed, server_and_snapshot
from blocks.sources.postgres.schema.dump import Definitions, dump_definitions, without_data
from blocks.sources.postgres.schema.large_object_definitions import large_object_definitions
from blocks.sources.postgres.schema.tables import Catalogue, Table, collection_name, large_objects, read_tables
from blocks.sources.postgres.schema.types import state_of_types
from blocks.sources.postgres.slot_log import held_log
from blocks.sources.postgres.write.pieces import in_pieces
from blocks.sources.postgres.write.scratch import sweep_beside
from blocks.sources.runs import RunFolder
from blocks.sources.view import Unread

_ATTEMPTS = 3
_SEQUENCES_AT_ONCE = 100
_PREFETCHED = 2
"""As many parts are read at a time, as a rule."""


@contextmanager
def open_view(settings: Settings, since: str | None = None) -> Iterator[PostgresView]:
    """Open one consistent look at a database.

    Args:
        settings: How the view is opened: connection, selection, part size, slot.
        since: The token of the base's view; change capture, if the plan wants it, is asked only where there is one.

    Raises:
        SourceUnavailable: It cannot be reached or read.
    """
    with ExitStack() as opened:
        view = _view_in(opened, settings, ask=since is not None)
        view.since = Token.parse(since)
        yield view


def _view_in(opened: ExitStack, settings: Settings, *, ask: bool) -> PostgresView:
    """Open a view that `opened` closes with its connections."""
    place = place_of(settings.conninfo)
    session = connect(settings.conninfo, settings.connect_timeout_seconds)
    opened.callback(session.close)
    with translated(place, "cannot read the catalogue of"), ThreadPoolExecutor(4, "lastgood-opening") as beside:
        driver = Driver(_for_the_driver(session, settings), beside)
        opened.callback(driver.close)
        sweep_beside(session, settings.conninfo, settings.connect_timeout_seconds)
        # before the snapshot, which so sees all that was reported until now
        open_capture = prepare_capture(settings, session)
        unread = unreadable(session, settings.choice.included) if settings.salvage else []
        lost = unlogged_on_standby(session)
        settings = replace(settings, choice=settings.choice.without([*(at for at, _ in unread), *lost]))
        catalogue = _hold(session, settings, place)
        taken_at = datetime.now(UTC)
        row = session.execute("SELECT pg_catalog.pg_export_snapshot()").fetchone()
        assert row is not None
        now = server_and_snapshot(session)
        tables = _chosen(catalogue.tables, settings.choice)
        opening = Opening(session, now[1], tables, driver, beside) if now else None
        capture: ChangeCapture = open_capture(opening) if opening else NoCapture()
        asking = beside.submit(capture.ask, session) if ask else None
        options = _options(session, settings.choice, tables)
        options += [f"--exclude-table={identifier(*at)}" for at, _ in unread if not settings.choice.narrowed]
        if options or not settings.choice.narrowed:  # nothing is chosen where nothing narrows pg_dump down
            options += without_data(session)
        dumping = beside.submit(_dumped, settings, str(row[0]), options, session.info.server_version)
        readers = Readers(driver, str(row[0]))
        opened.callback(readers.close)
        readers.prefetch(_PREFETCHED)
        found = _DatabaseFacts(session, settings.choice, tables, now, complete=not (unread or lost), lost=lost)
        folder = RunFolder("postgres")
        opened.callback(folder.close)
        suspected = suspects(session, place, settings.choice, tables)
        missed = [*_missed(session, settings, catalogue, place), *suspected.sentences]
        if lost:
            missed.append(
                f"What unlogged tables and sequences of {place} hold ({', '.join(map('.'.join, lost))}) is not in this"
                " backup: a standby does not have it."
            )
        if not found.tables:
            missed.append(f"No table of {place} is backed up.")
        if settings.followed and not now:
            missed.append(f"All rows of {place} are read: a standby keeps no replication slot for backups.")
        held = held_log(session, settings.followed) if settings.followed else None
        if held is not None and held.is_much:
            missed.append(f"{held.sentence(place)} Back up more often, or drop the slot where nothing uses it.")
        texts = dumping.result()
        if asking:
            asking.result()
        view = (SalvageView if settings.salvage else PostgresView)(
            session,
            readers,
            Contents(
                place=place,
                taken_at=taken_at,
                tables=found.tables,
                definition=found.definition(texts, suspected) | ({"slot": held.to_manifest()} if held else {}),
                token=found.token(texts),
                system=f"PostgreSQL {found.version}, {place}",
                warnings=(*missed, *(f"pg_dump of {place} said: {said}" for said in texts.said)),
            ),
            settings.part_size_bytes,
            folder,
            capture,
        )
        opened.callback(view.close)
        if isinstance(view, SalvageView):
            view.set_unread([Unread(why, collection_name(*at)) for at, why in unread])
        return view


def _for_the_driver(session: Session, settings: Settings) -> str:
    """Return the conninfo for the driver, which asks for the names of types before it can be set how to write them."""
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


def _chosen(tables: Sequence[Table], choice: Choice) -> list[Table]:
    return [table for table in tables if choice.included(table.shape.schema, table.shape.table)]


def _hold(session: Session, settings: Settings, place: str) -> Catalogue:
    """Lock all tables against changes of their definition, then take the snapshot.

    In this order a TRUNCATE or a rewrite, which a snapshot does not protect from, has ended before the snapshot is
    taken. Where a table appeared or went in between, this is tried again.
    """
    # from now on: measuring a table waits for sessions that change it, too
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


class _DatabaseFacts:
    """What is found out about a database inside its snapshot, while pg_dump runs."""

    def __init__(
        self,
        session: Session,
        choice: Choice,
        tables: Sequence[Table],
        now: tuple[tuple[str, ...], str] | None,
        *,
        complete: bool,
        lost: Sequence[tuple[str, str]],
    ) -> None:
        self._session, self._choice, self._complete, self._lost = session, choice, complete, frozenset(lost)
        row = session.execute(_DATABASE.encode()).fetchone()
        assert row is not None
        self._encoding, self._collate, self._ctype, self.version = map(str, row)
        large = None if choice.narrowed else large_objects(session)
        self.tables = [*tables, *([large] if large else [])]
        self._large = "" if choice.narrowed else large_object_definitions(session)
        self._sequences = self._positions()
        self._types, self._now = state_of_types(session), now

    def definition(self, texts: Definitions, suspected: Suspects) -> dict[str, JsonValue]:
        """Return what goes into the manifest."""
        orphaned: list[JsonValue] = [key.to_manifest() for key in suspected.orphaned]
        known: dict[str, JsonValue] = {"orphaned": orphaned} if orphaned else {}
        return known | {
            "server_version": self._session.info.server_version // 10000,
            "encoding": self._encoding,
            "collate": self._collate,
            "ctype": self._ctype,
            "before": texts.before + self._large,
            "after": texts.after,
            "sequences": self._sequences,
            "narrowed": self._choice.narrowed or not self._complete,
        }

    def token(self, texts: Definitions) -> Token | None:
        """Return the token for the next incremental; None where changes cannot be tracked."""
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
            if self._choice.covers_sequence(*map(str, row)) and (str(row[0]), str(row[1])) not in self._lost
        ]
        found: list[JsonValue] = []
        for some in in_pieces(rows, _SEQUENCES_AT_ONCE):
            values = " UNION ALL ".join(
                f"SELECT {n}, last_value, is_called FROM {identifier(row[0], row[1])}" for n, row in enumerate(some)
            )
            # what is rolled back lets its locks go, of which a server has no more than it was given
            with self._session.transaction(force_rollback=True):
                for n, last, called in sorted(self._session.execute(values.encode()).fetchall()):
                    found.append([*some[int(str(n))], int(str(last)), bool(called)])
        return found


def _missed(session: Session, settings: Settings, catalogue: Catalogue, place: str) -> list[str]:
    """Report what is not in the backup."""
    foreign = [".".join(name) for name in catalogue.foreign if settings.choice.included(*name)]
    found = [f"The rows of foreign table {name} live elsewhere and are not in this backup." for name in foreign]
    return found + uncovered(session, place, settings.slot)
