"""Temporary databases: where a restore builds what becomes the missing database, and what a verification restores into.

Such a database has a name that identifies machine and process, and a comment with the plan. As long as the run that
made it lives, one of its sessions holds an advisory lock on the name; the server releases that lock when the session
ends, however it ends. So a later run recognises what a killed one left behind, and drops it.
"""

from __future__ import annotations

import hashlib
import logging
import re
from contextlib import suppress

import psycopg

from blocks.errors import ConfigurationError, LastgoodError
from blocks.host.leftovers import left_behind, owned_name
from blocks.sources.postgres.connect import Session, altered, connect, identifier, literal, place_of, settings_of
from blocks.sources.postgres.schema.live import is_empty
from blocks.sources.postgres.write.transaction_end import commit

logger = logging.getLogger(__name__)

SCRATCH = "lastgood_scratch_"
"""How the names of scratch databases begin; only such are ever dropped on request."""
BUILDING = "lastgood_building_"
"""How a database is named until it is complete."""

_MARK = "Made by lastgood for a restore or a verification that is running. One that was killed leaves it for the next."
_OWNED = "[0-9a-f]{16}|-[0-9a-f]{8}-[0-9]+-[0-9]+-[0-9a-f]{8}"
"""Those of earlier versions end with something random alone."""
_OURS = f"^({SCRATCH}|{BUILDING})({_OWNED})$"

_LEFT = """
SELECT d.datname::text FROM pg_catalog.pg_database d
WHERE d.datname ~ %s AND pg_catalog.pg_has_role(d.datdba, 'USAGE') ORDER BY 1
"""
_UNUSED = """
SELECT pg_catalog.shobj_description(d.oid, 'pg_database') FROM pg_catalog.pg_database d
WHERE d.datname = %s AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid)
"""
_LOOKS = 1000
"""How often to look whether our sessions have ended; the server would wait for them in steps of a tenth of a second."""


def scratch_name(seed: str) -> str:
    """Name a scratch database of this process; the same for the same seed."""
    return owned_name(SCRATCH)[:-8] + hashlib.sha256(seed.encode()).hexdigest()[:8]


def is_scratch(conninfo: str) -> bool:
    """Whether a conninfo names a scratch database."""
    return settings_of(conninfo).get("dbname", "").startswith(SCRATCH)


def is_missing(conninfo: str, timeout_seconds: float) -> bool:
    """Whether the server answers and has no database of that name."""
    name = settings_of(conninfo).get("dbname")
    if name is None:
        return False
    try:
        with psycopg.connect(conninfo, connect_timeout=str(max(2, round(timeout_seconds)))):
            return False
    except psycopg.OperationalError:
        pass
    with maintenance(conninfo, timeout_seconds) as session:
        found = session.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (name,)).fetchone()
    return found is None


class TemporaryDatabase:
    """A temporary database and the session whose lock shows that it is in use.

    Args:
        wanted: The database that it is to become; a scratch database stays what it is.
        timeout_seconds: How long to wait for a connection.
        plan: Name of the plan it is for; part of its comment, because it may be longer than a name.
        aside: How a database that has the wanted name is called in the end; None where there is none.
    """

    def __init__(self, wanted: str, timeout_seconds: float, plan: str = "", aside: str | None = None) -> None:
        self._timeout, self._wanted, self._plan = timeout_seconds, settings_of(wanted)["dbname"], plan
        self._aside = aside
        self._own = re.fullmatch(f"{SCRATCH}({_OWNED})", self._wanted) is not None
        self.name = self._wanted if self._own else owned_name(BUILDING)
        self.conninfo = altered(wanted, dbname=self.name)
        self._session = maintenance(wanted, timeout_seconds)
        _stay(self._session)

    def create(self, encoding: str, collate: str, ctype: str) -> list[str]:
        """Drop what killed runs have left, and create the database; return what was done about the former."""
        notes = sweep(self._session, self.conninfo, self._timeout)
        # locked before it exists, so that there is no moment in which it looks abandoned
        self._session.execute("SELECT pg_catalog.pg_advisory_lock(%s)", (_lock(self.name),))
        quoted = identifier(self.name)
        self._session.execute(
            f"CREATE DATABASE {quoted} TEMPLATE template0"
            f" ENCODING {literal(encoding)} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}".encode()
        )
        mark = f"{_MARK} Plan: {self._plan}." if self._plan else _MARK
        self._session.execute(f"COMMENT ON DATABASE {quoted} IS {literal(mark)}".encode())
        return notes

    def complete(self) -> bool:
        """Give it the name it was made for; return whether it is temporary no more."""
        if self._own:
            return False
        for _ in range(_LOOKS):
            if self._session.execute(_UNUSED, (self.name,)).fetchone():
                break
        quoted = identifier(self.name)
        self._session.execute("BEGIN")
        self._session.execute(f"COMMENT ON DATABASE {quoted} IS NULL".encode())
        wanted = identifier(self._wanted)
        if self._aside is not None:
            self._session.execute(f"ALTER DATABASE {wanted} RENAME TO {identifier(self._aside)}".encode())
        self._session.execute(f"ALTER DATABASE {quoted} RENAME TO {wanted}".encode())
        commit(self._session, altered(self.conninfo, dbname="postgres"), self._timeout)
        self._session.close()
        return True

    def drop(self) -> None:
        """Drop it, as far as it was created, and let go of the lock."""
        try:
            with maintenance(self.conninfo, self._timeout) as session:
                session.execute(f"DROP DATABASE IF EXISTS {identifier(self.name)} WITH (FORCE)".encode())
        finally:
            self._session.close()


def sweep(session: Session, conninfo: str, timeout_seconds: float) -> list[str]:
    """Drop temporary databases that no living run has made; return a sentence about each."""
    notes = []
    for (name,) in session.execute(_LEFT, (_OURS,)).fetchall():
        lock = _lock(str(name))
        if _is_alive_here(str(name)) or not _value(session, "SELECT pg_catalog.pg_try_advisory_lock(%s)", lock):
            continue
        try:
            if _is_abandoned(session, altered(conninfo, dbname=str(name)), timeout_seconds):
                session.execute(f"DROP DATABASE {identifier(str(name))}".encode())
                notes.append(f"Database {name} was dropped: a run that was killed had left it.")
        except psycopg.Error as exc:
            said = exc.diag.message_primary or str(exc)
            notes.append(f"Database {name}, which a killed run has left, could not be dropped: {said}.")
        finally:
            _value(session, "SELECT pg_catalog.pg_advisory_unlock(%s)", lock)
    return notes


def sweep_beside(session: Session, conninfo: str, timeout_seconds: float) -> None:
    """Drop what killed runs have left on the server of a database that is going to be read; failing is no harm."""
    left = [str(name) for (name,) in session.execute(_LEFT, (_OURS,)) if not _is_alive_here(str(name))]
    if not left or settings_of(conninfo).get("dbname") in left:
        return
    with suppress(LastgoodError, psycopg.Error), maintenance(conninfo, timeout_seconds) as beside:
        for note in sweep(beside, conninfo, timeout_seconds):
            logger.warning(note)


def _is_alive_here(name: str) -> bool:
    """Whether the process that such a name identifies runs on this machine."""
    prefix = next((p for p in (SCRATCH, BUILDING) if name.startswith(f"{p}-")), None)
    if prefix is None:
        return False
    here = owned_name(prefix).split("-")[1]
    return name.split("-")[1] == here and not left_behind(name, prefix)


def _is_abandoned(session: Session, conninfo: str, timeout_seconds: float) -> bool:
    """Whether nobody uses a database that is surely ours; its lock is held."""
    found = session.execute(_UNUSED, (settings_of(conninfo)["dbname"],)).fetchone()
    if found is None:
        return False
    # one without a comment was left between two statements, and holds nothing yet
    return str(found[0]).startswith(_MARK) or (found[0] is None and _is_empty(conninfo, timeout_seconds))


def drop_database(conninfo: str, timeout_seconds: float) -> None:
    """Drop a scratch database.

    Raises:
        ConfigurationError: It is not one.
    """
    name = settings_of(conninfo).get("dbname", "")
    if not name.startswith(SCRATCH):
        raise ConfigurationError(f"{place_of(conninfo)} is no scratch database, and is not dropped")
    with maintenance(conninfo, timeout_seconds) as session:
        session.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)".encode())


class KeptDatabases:
    """Scratch databases that are complete and still read, by name: their locks are held until they are dropped."""

    def __init__(self) -> None:
        self._databases: dict[str, TemporaryDatabase] = {}

    def keep(self, database: TemporaryDatabase) -> None:
        """Hold on to one."""
        self._databases[database.name] = database

    def take(self, conninfo: str) -> TemporaryDatabase | None:
        """Hand out the one that a conninfo names, or None."""
        return self._databases.pop(settings_of(conninfo).get("dbname", ""), None)

    def __reduce__(self) -> tuple[type[KeptDatabases], tuple[()]]:
        """A session does not travel to another process."""
        return KeptDatabases, ()


def _is_empty(conninfo: str, timeout_seconds: float) -> bool:
    with suppress(LastgoodError), connect(conninfo, timeout_seconds) as session:
        return is_empty(session)
    return False


def _stay(session: Session) -> None:
    """Let a session be idle for as long as it likes; the setting is new in PostgreSQL 14."""
    session.execute(
        "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout'"
    )


def _lock(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"lastgood {name}".encode()).digest()[:8], "big", signed=True)


def _value(session: Session, query: str, *args: object) -> object:
    row = session.execute(query.encode(), args).fetchone()
    return row[0] if row is not None else None


MAINTENANCE = "postgres"
"""The database that every server has."""


def maintenance(conninfo: str, timeout_seconds: float) -> Session:
    """Connect to the database that every server has."""
    return connect(altered(conninfo, dbname=MAINTENANCE), timeout_seconds)
