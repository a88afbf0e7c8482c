"""Databases that a restore creates: one that was missing, or the scratch one of a verification."""

from __future__ import annotations

import psycopg

from blocks.errors import ConfigurationError
from blocks.sources.postgres.connect import Session, altered, connect, identifier, literal, place_of, settings_of

SCRATCH = "lastgood_scratch_"
"""How the names of scratch databases begin; only such are ever dropped on request."""


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


def create_database(conninfo: str, timeout_seconds: float, encoding: str, collate: str, ctype: str) -> None:
    """Create the database of a conninfo, empty, with an encoding and a locale."""
    with _maintenance(conninfo, timeout_seconds) as session:
        session.execute(
            f"CREATE DATABASE {identifier(settings_of(conninfo)['dbname'])} TEMPLATE template0"
            f" ENCODING {literal(encoding)} LC_COLLATE {literal(collate)} LC_CTYPE {literal(ctype)}".encode()
        )


def drop_created(conninfo: str, timeout_seconds: float) -> None:
    """Drop the database of a conninfo, which this restore created."""
    with _maintenance(conninfo, timeout_seconds) as session:
        session.execute(f"DROP DATABASE IF EXISTS {identifier(settings_of(conninfo)['dbname'])} WITH (FORCE)".encode())


def drop_database(conninfo: str, timeout_seconds: float) -> None:
    """Drop a scratch database.

    Raises:
        ConfigurationError: It is not one.
    """
    if not settings_of(conninfo).get("dbname", "").startswith(SCRATCH):
        raise ConfigurationError(f"{place_of(conninfo)} is no scratch database, and is not dropped")
    drop_created(conninfo, timeout_seconds)


def _maintenance(conninfo: str, timeout_seconds: float) -> Session:
    return connect(altered(conninfo, dbname="postgres"), timeout_seconds)
