"""Connections to PostgreSQL: settings that make text exact, errors in our words."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from adbc_driver_manager import Error as AdbcError
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from blocks.errors import ConfigurationError, ServerUnusable, SourceFull, SourceUnavailable, UnsupportedState
from blocks.sources.postgres.hints import hint_for
from blocks.sources.postgres.pooler import refuse_shared_session

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
    # of a role or a database, against accidents; what a session may do it says when a transaction begins
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # a part of a large table is read by one of several connections already
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",
    "jit": "off",
    # the planner would call what a CHECK calls
    "constraint_exclusion": "off",
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

DISK_FULL = "53100"
_GONE = ("08", "28", "3D", "53", "57")
"""Classes of states of a server that lets nobody in, or ended the session."""

_UNREADABLE = {
    "22021": "The database is encoded in SQL_ASCII, which checks nothing. Convert it to UTF8.",
    "22P05": "A text has no counterpart in UTF8: mend it, or convert the database to UTF8.",
}
"""States of text that cannot be read."""

# two spaces follow it, in whatever language it is
_SEVERITY = re.compile(r": \w+: {2}")
_FUNCTION = re.compile(r"(?:PL/\w+|SQL) function ")
_DRIVER = re.compile(r"^[A-Z_]+: \[libpq\] ")


_ACCOUNT = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "user": "PGUSER", "service": "PGSERVICE"}
"""What names an account on a server, and the variables that say it where a conninfo does not."""


_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


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
    """Whether two conninfos name the same account on the same server, as libpq completes them."""
    return _account(_parsed(one)) == _account(_parsed(other))


def _account(known: dict[str, str]) -> tuple[str, ...]:
    said = {name: known.get(name, os.environ.get(variable, "")) for name, variable in _ACCOUNT.items()}
    if not said["service"]:  # whose file may say all that is not said here
        said["port"] = said["port"] or "5432"
        said["user"] = said["user"] or _own_name()
    return tuple(said.values())


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def has_secret(conninfo: str) -> bool:
    """Return whether one of the settings is a password, or is as good as one."""
    return any(_parsed(conninfo).get(name) for name in _SECRETS)


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
        said = told(exc)
        raise _kind_of(state)(f"{doing} {place}: {said}", hint=hint_for(state, said)) from exc
    except AdbcError as exc:
        said, state = said_by(exc), exc.sqlstate or ""
        if state in _UNREADABLE:
            raise UnsupportedState(f"{doing} {place}: {said}", hint=_UNREADABLE[state]) from exc
        raise _kind_of(state)(f"{doing} {place}: {said}", hint=hint_for(state, said)) from exc


def _kind_of(state: str) -> type[SourceUnavailable]:
    """Return what an error of the server is, by its SQLSTATE; one without is of a connection that broke."""
    if state == DISK_FULL:
        return SourceFull
    return ServerUnusable if not state or state.startswith(_GONE) else SourceUnavailable


def told(error: psycopg.Error) -> str:
    """Return what the server said, with the objects that it names only beside: of a constraint, a function."""
    diag = error.diag
    said = (diag.message_primary or str(error)).strip().replace("\n", " ")
    table = f"{diag.schema_name}.{diag.table_name}" if diag.schema_name and diag.table_name else diag.table_name
    named = {"table": table, "column": diag.column_name, "constraint": diag.constraint_name}
    named["type"] = None if table else diag.datatype_name
    found = [f"{kind} {name}" for kind, name in named.items() if name and name not in said]
    # whose line begins with the value, where it is about COPY
    where = next((line for line in (diag.context or "").split("\n") if _FUNCTION.match(line)), None)
    found += [f"in {where}"] if where else []
    return f"{said} ({', '.join(found)})" if found else said


def told_with_detail(error: psycopg.Error) -> str:
    """Return what the server said, and its own words on which row or key it was."""
    return f"{told(error)} ({error.diag.message_detail})" if error.diag.message_detail else told(error)


def plainly(error: psycopg.Error) -> str:
    """Say which rule an error is about, with the objects that it names, and no value of a row."""
    diag = error.diag
    table = ".".join(name for name in (diag.schema_name, diag.table_name) if name)
    named = {"constraint": diag.constraint_name, "column": diag.column_name, "table": table, "type": diag.datatype_name}
    objects = ", ".join(f"{kind} {name}" for kind, name in named.items() if name)
    words = " ".join(re.findall("[A-Z][a-z]+", type(error).__name__)).lower() or "error"
    return f"{words} (SQLSTATE {error.sqlstate}{f', {objects}' if objects else ''})"


def said_by(error: AdbcError) -> str:
    """Return what the server said, or the driver's own words where it said nothing."""
    # the driver repeats the query, which may name thousands of keys; in front it puts what it did, and behind the state
    text = str(error).partition("\n\nQuery was:")[0].partition(". SQLSTATE:")[0]
    said = _SEVERITY.split(text, maxsplit=1)[-1]
    return _DRIVER.sub("", said).strip().replace("\n", " ")


def connect(conninfo: str, timeout_seconds: float, doing: str = "cannot connect to") -> Session:
    """Open a connection in autocommit mode whose values print exactly.

    Raises:
        SourceUnavailable: It cannot be reached, or is older than what is supported.
        ConfigurationError: A pooler lends its sessions to others between transactions.
    """
    place = place_of(conninfo)
    with translated(place, doing):
        connection = _opened(conninfo, timeout_seconds)
        try:
            if connection.info.server_version >= OLDEST:
                refuse_shared_session(connection, place, lambda: _opened(conninfo, timeout_seconds))
                connection.execute(SETTINGS.encode())
                return connection
        except (psycopg.Error, ConfigurationError):
            connection.close()
            raise
    version = connection.info.server_version // 10000
    connection.close()
    raise ServerUnusable(
        f"{place} is PostgreSQL {version}; 13 is the oldest that is supported", hint="Upgrade the server."
    )


def _opened(conninfo: str, timeout_seconds: float) -> Session:
    # libpq counts whole seconds, and reads 1 as 2
    wait = str(max(2, round(timeout_seconds)))
    return psycopg.connect(conninfo, autocommit=True, connect_timeout=wait, application_name="lastgood")


BEGIN = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


def identifier(*names: str) -> str:
    """Quote a name, qualified or not."""
    return sql.Identifier(*names).as_string(None)


def literal(text: str) -> str:
    """Quote text as a constant (standard_conforming_strings is on)."""
    return "'" + text.replace("'", "''") + "'"
