"""Temporary databases: where a restore builds what becomes the missing database, and what a verification restores into.

Such a database has a name of a known form and a comment. As long as the run that made it lives, one of its sessions
holds an advisory lock on the name; the server releases that lock when the session ends, however it ends. So a later
run can tell what was left behind by one that was killed, and drops it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import suppress

import psycopg

from blocks.errors import ConfigurationError, LastgoodError
from blocks.sources.postgres.connect import Session, altered, connect, identifier, literal, place_of, settings_of
from blocks.sources.postgres.live import is_empty

SCRATCH = "lastgood_scratch_"
"""How the names of scratch databases begin; only such are ever dropped on request."""
BUILDING = "lastgood_building_"
"""How a database is named until it is complete."""

_MARK = "Made by lastgood for a restore or a verification that is running. One that was killed leaves it for the next."
_RANDOM = "[0-9a-f]{16}"
_OURS = f"^({SCRATCH}|{BUILDING}){_RANDOM}$"

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
    """Name a scratch database."""
    return SCRATCH + hashlib.sha256(seed.encode()).hexdigest()[:16]


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
    with _maintenance(conninfo, timeout_seconds) as session:
        found = session.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (name,)).fetchone()
    return found is None


class Temporary:
    """A temporary database and the session whose lock tells that it is in use.

    Args:
        wanted: The database that it is to become; a scratch database stays what it is.
        timeout_seconds: How long to wait for a connection.
    """

    def __init__(self, wanted: str, timeout_seconds: float) -> None:
        self._timeout, self._wanted = timeout_seconds, settings_of(wanted)["dbname"]
        self._own = re.fullmatch(f"{SCRATCH}{_RANDOM}", self._wanted) is not None
        self.name = self._wanted if self._own else BUILDING + secrets.token_hex(8)
        self.conninfo = altered(wanted, dbname=self.name)
        self._session = _maintenance(wanted, timeout_seconds)
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
        self._session.execute(f"COMMENT ON DATABASE {quoted} IS {literal(_MARK)}".encode())
        return notes

    def complete(self) -> bool:
        """Give it the name it was made for; return whether it is temporary no more."""
        if self._own:
            return False
        for _ in range(_LOOKS):
            if self._session.execute(_UNUSED, (self.name,)).fetchone():
                break
        quoted = identifier(self.name)
        with self._session.transaction():
            self._session.execute(f"COMMENT ON DATABASE {quoted} IS NULL".encode())
            self._session.execute(f"ALTER DATABASE {quoted} RENAME TO {identifier(self._wanted)}".encode())
        self._session.close()
        return True

    def drop(self) -> None:
        """Drop it, as far as it was created, and let go of the lock."""
        try:
            with _maintenance(self.conninfo, self._timeout) as session:
                session.execute(f"DROP DATABASE IF EXISTS {identifier(self.name)} WITH (FORCE)".encode())
        finally:
            self._session.close()


def sweep(session: Session, conninfo: str, timeout_seconds: float) -> list[str]:
    """Drop temporary databases that no living run has made; return a sentence about each."""
    notes = []
    for (name,) in session.execute(_LEFT, (_OURS,)).fetchall():
        lock = _lock(str(name))
        if not _value(session, "SELECT pg_catalog.pg_try_advisory_lock(%s)", lock):
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


def _is_abandoned(session: Session, conninfo: str, timeout_seconds: float) -> bool:
    """Whether nobody uses a database that is surely ours; its lock is held."""
    found = session.execute(_UNUSED, (settings_of(conninfo)["dbname"],)).fetchone()
    if found is None:
        return False
    # one without a comment was left between two statements, and holds nothing yet
    return found[0] == _MARK or (found[0] is None and _is_empty(conninfo, timeout_seconds))


def drop_database(conninfo: str, timeout_seconds: float) -> None:
    """Drop a scratch database.

    Raises:
        ConfigurationError: It is not one.
    """
    name = settings_of(conninfo).get("dbname", "")
    if not name.startswith(SCRATCH):
        raise ConfigurationError(f"{place_of(conninfo)} is no scratch database, and is not dropped")
    with _maintenance(conninfo, timeout_seconds) as session:
        session.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)".encode())


class Kept:
    """Scratch databases that are complete and still read, by name: their locks are held until they are dropped."""

    def __init__(self) -> None:
        self._databases: dict[str, Temporary] = {}

    def keep(self, database: Temporary) -> None:
        """Hold on to one."""
        self._databases[database.name] = database

    def take(self, conninfo: str) -> Temporary | None:
        """Hand out the one that a conninfo names, or None."""
        return self._databases.pop(settings_of(conninfo).get("dbname", ""), None)

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """A session does not travel to another process."""
        return Kept, ()


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


def _maintenance(conninfo: str, timeout_seconds: float) -> Session:
    return connect(altered(conninfo, dbname="postgres"), timeout_seconds)
