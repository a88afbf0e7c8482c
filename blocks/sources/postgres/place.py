"""Where a database is, in a form that does not depend on how it is spelled."""

from __future__ import annotations

import socket
from contextlib import suppress

import psycopg
from psycopg.pq import PGconn
from pydantic import JsonValue

from blocks.errors import LastgoodError, SourceUnavailable
from blocks.host.places import Location
from blocks.sources.postgres.connect import Session, altered, connect, place_of

_IDENTITY = """
SELECT (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8::text,
       pg_catalog.current_setting('port'), pg_catalog.current_setting('server_version_num')
"""
_LASTING = """
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()), datname::text, oid::text
FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
"""
_NO_DATABASE = "3D000"
_BESIDE = ("postgres", "template1")
"""Databases that every server has, to ask it where the wanted one is missing."""


def location_of(conninfo: str, timeout_seconds: float, part: str = "") -> Location:
    """Return where a database is: what its running server says of itself; where that does not answer, its address.

    A clone of a server has the same system identifier, so servers are distinguished by when they started.

    Args:
        conninfo: The database, which may be missing.
        timeout_seconds: How long to wait for a connection.
        part: What is taken of it, in words.
    """
    known = _effective(conninfo)
    database = known.get("dbname") or known.get("user") or ""
    server = _asked(conninfo, timeout_seconds) or _addressed(known)
    return Location(place_of(conninfo), server=server, databases=frozenset((database,)), part=part)


def lasting_identity(conninfo: str, timeout_seconds: float) -> dict[str, JsonValue]:
    """Return what a database keeps through restarts, failovers and moves; nothing where its server does not tell.

    A renamed database keeps its number, and one that was created again by a restore its name.

    Args:
        conninfo: The database.
        timeout_seconds: How long to wait for a connection.
    """
    with suppress(LastgoodError, psycopg.Error), connect(conninfo, timeout_seconds) as session:
        row = session.execute(_LASTING.encode()).fetchone()
        assert row is not None
        system, name, number = map(str, row)
        return {"system identifier": [system], "database": [name, f"number {number}"]}
    return {}


def _asked(conninfo: str, timeout_seconds: float) -> tuple[str, ...]:
    for beside in (None, *_BESIDE):
        there = conninfo if beside is None else altered(conninfo, dbname=beside)
        with suppress(SourceUnavailable, psycopg.Error), connect(there, timeout_seconds) as session:
            return _identity(session)
        if not _answers_without_it(there, timeout_seconds):
            return ()
    return ()


def _answers_without_it(conninfo: str, timeout_seconds: float) -> bool:
    """Whether the server answers and only lacks the database."""
    try:
        psycopg.connect(conninfo, connect_timeout=str(max(2, round(timeout_seconds)))).close()
    except psycopg.OperationalError as exc:
        # before a session there is no state, but the server has answered
        return exc.sqlstate == _NO_DATABASE or (
            exc.pgconn is not None and b"does not exist" in exc.pgconn.error_message
        )
    return True


def _identity(session: Session) -> tuple[str, ...]:
    row = session.execute(_IDENTITY.encode()).fetchone()
    assert row is not None
    return ("postgres", *map(str, row))


def _effective(conninfo: str) -> dict[str, str]:
    """Return the settings that libpq takes: of the conninfo, a service file, the environment, and its own."""
    connection = PGconn.connect_start(altered(conninfo).encode())
    try:
        options = [(option.keyword.decode(), option.val) for option in connection.info]
    finally:
        connection.finish()
    return {name: value.decode() for name, value in options if value}


def _addressed(known: dict[str, str]) -> tuple[str, ...]:
    """Name the addresses of hosts, resolved; this machine is one place, by socket or by network."""
    hosts = (known.get("hostaddr") or known.get("host") or "").split(",")
    ports = (known.get("port") or "5432").split(",")
    ports = ports if len(ports) == len(hosts) else ports * len(hosts)
    found = sorted({f"{_resolved(host)}:{port or '5432'}" for host, port in zip(hosts, ports, strict=False)})
    return ("postgres", "unanswered", *found)


def _resolved(host: str) -> str:
    if not host or host.startswith(("/", "@")):
        return "here"
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return host.lower()
    return "here" if any(map(_is_ours, addresses)) else min(addresses)


def _is_ours(address: str) -> bool:
    """Whether an address is one of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return address == "::1" or address.startswith("127.")
    return True
