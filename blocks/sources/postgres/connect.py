"""Connections to PostgreSQL: settings that make text exact, errors in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from adbc_driver_manager import Error as AdbcError
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from blocks.errors import ConfigurationError, SourceUnavailable, UnsupportedState

Session = psycopg.Connection[tuple[object, ...]]

OLDEST = 130000
"""The oldest version of the server that is supported, as `server_version_num`."""

_SETTINGS = {
    # the text of a value must not depend on who asks
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "timezone": "UTC",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "search_path": "",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "client_encoding": "UTF8",
    # rows that a policy would hide have to be an error instead
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # a part of a large table is read by one of several connections already
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    "jit": "off",
    # what reads ranges of pages would read the whole table for each of them
    "enable_tidscan": "on",
}
_LATER = "('idle_session_timeout', 'transaction_timeout')"
"""Settings that versions after 13 brought, and that would end a long backup."""
SETTINGS = (
    "SELECT "
    + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())
    + f", (SELECT count(set_config(name, '0', false)) FROM pg_catalog.pg_settings WHERE name IN {_LATER})"
)
"""The query that settles them for a session."""

_HINTS = {
    "28P01": "Check the password: `password_env` in the plan, PGPASSWORD, or ~/.pgpass.",
    "28000": "Check the user and the server's pg_hba.conf.",
    "3D000": "Check the database in `dsn`.",
    "53300": "The server has no connection left: raise max_connections, or back up at a quieter time.",
    "42501": "Grant the role pg_read_all_data (and BYPASSRLS where tables have row level security).",
    "55P03": "Another session holds a lock: try again later.",
    "57P03": "The server is starting up or shutting down: try again later.",
}

_UNREADABLE = {
    "22021": "The database is encoded in SQL_ASCII, which checks nothing. Convert it to UTF8.",
    "22P05": "A text has no counterpart in UTF8: mend it, or convert the database to UTF8.",
}
"""States of text that cannot be read."""

# two spaces follow it, in whatever language it is
_SEVERITY = re.compile(r": \w+: {2}")
_DRIVER = re.compile(r"^[A-Z_]+: \[libpq\] ")
_NO_CONNECTION_LEFT = re.compile("too many clients|too many connections|remaining connection slots")


def place_of(conninfo: str) -> str:
    """Name a database without secrets."""
    known = _parsed(conninfo)
    host = known.get("host") or known.get("hostaddr") or "the local socket"
    port = f":{known['port']}" if known.get("port") else ""
    return f"{known.get('dbname') or known.get('user') or 'the default database'} at {host}{port}"


def _parsed(conninfo: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value is not None}
    except psycopg.Error:
        # what libpq says of a URL may quote the password in it
        raise ConfigurationError(
            "the `dsn` of a PostgreSQL source is neither a URL nor a list of settings",
            hint="Write it as postgresql://user@host:5432/database.",
        ) from None


def altered(conninfo: str, **settings: str | None) -> str:
    """Return a conninfo with other settings; None takes one away."""
    known: dict[str, str | None] = {**_parsed(conninfo)}
    return make_conninfo("", **{name: v for name, v in (known | settings).items() if v is not None})


def same_server(one: str, other: str) -> bool:
    """Whether two conninfos name the same account on the same server."""
    first, second = _parsed(one), _parsed(other)
    return all(first.get(name) == second.get(name) for name in ("host", "hostaddr", "port", "user"))


def settings_of(conninfo: str) -> dict[str, str]:
    """Return the settings of a conninfo by name."""
    return _parsed(conninfo)


@contextmanager
def translated(place: str, doing: str) -> Iterator[None]:
    """Turn the drivers' errors into `SourceUnavailable`, saying what was tried, and where.

    Raises:
        SourceUnavailable: The server refused, or went away.
        UnsupportedState: Text is not in the encoding that the server says.
    """
    try:
        yield
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        said = (exc.diag.message_primary or str(exc)).strip().replace("\n", " ")
        raise SourceUnavailable(f"{doing} {place}: {said}", hint=hint_for(state, said)) from exc
    except AdbcError as exc:
        said, state = said_by(exc), exc.sqlstate or ""
        if state in _UNREADABLE:
            raise UnsupportedState(f"{doing} {place}: {said}", hint=_UNREADABLE[state]) from exc
        raise SourceUnavailable(f"{doing} {place}: {said}", hint=hint_for(state, said)) from exc


def said_by(error: AdbcError) -> str:
    """Return what the server said, or the driver's own words where it said nothing."""
    # the driver repeats the query, which may name thousands of keys; in front it puts what it did, and behind the state
    text = str(error).partition("\n\nQuery was:")[0].partition(". SQLSTATE:")[0]
    said = _SEVERITY.split(text, maxsplit=1)[-1]
    return _DRIVER.sub("", said).strip().replace("\n", " ")


def hint_for(state: str, said: str) -> str:
    """Say what a person can do about an SQLSTATE."""
    if "row-level security" in said:
        return "Give the role BYPASSRLS: a backup must see all rows."
    # a connection that fails before the server has answered carries no state
    if not state and "password" in said:
        return _HINTS["28P01"]
    if not state and _NO_CONNECTION_LEFT.search(said):
        return _HINTS["53300"]
    return _HINTS.get(state, "Check that the server runs and that `dsn` is right.")


def connect(conninfo: str, timeout_seconds: float, doing: str = "cannot connect to") -> Session:
    """Open a connection in autocommit mode whose values print exactly.

    Raises:
        SourceUnavailable: It cannot be reached, or is older than what is supported.
    """
    place = place_of(conninfo)
    # libpq counts whole seconds, and reads 1 as 2
    wait = str(max(2, round(timeout_seconds)))
    with translated(place, doing):
        connection: Session = psycopg.connect(
            conninfo, autocommit=True, connect_timeout=wait, application_name="lastgood"
        )
        try:
            if connection.info.server_version >= OLDEST:
                connection.execute(SETTINGS.encode())
                return connection
        except psycopg.Error:
            connection.close()
            raise
    version = connection.info.server_version // 10000
    connection.close()
    raise SourceUnavailable(
        f"{place} is PostgreSQL {version}; 13 is the oldest that is supported", hint="Upgrade the server."
    )


BEGIN = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


def identifier(*names: str) -> str:
    """Quote a name, qualified or not."""
    return sql.Identifier(*names).as_string(None)


def literal(text: str) -> str:
    """Quote text as a constant (standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"
