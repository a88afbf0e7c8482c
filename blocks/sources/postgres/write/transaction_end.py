"""The end of a restore's transaction, and what became of it where the answer got lost."""

from __future__ import annotations

import psycopg

from blocks.errors import LastgoodError, Partial, SourceUnavailable
from blocks.sources.postgres.connect import Session, connect, place_of

_DURABLE = """
SELECT pg_catalog.set_config('synchronous_commit', 'local', true)
WHERE pg_catalog.current_setting('synchronous_commit') = 'off'
"""


def commit(session: Session, conninfo: str, timeout_seconds: float) -> None:
    """Commit the open transaction, durably.

    Where the connection is lost the server is asked what became of it.

    Args:
        session: A session with the restore's transaction open.
        conninfo: Connection string to ask again with, as libpq reads it.
        timeout_seconds: How long to wait for a connection.

    Raises:
        psycopg.Error: The server refused, or went away: nothing was changed.
        Partial: It is not known whether it is live.
    """
    session.execute(_DURABLE.encode())
    row = session.execute("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text").fetchone()
    number = str(row[0]) if row and row[0] is not None else None
    try:
        session.execute("COMMIT")
    except psycopg.Error as exc:
        lost = number is not None and (exc.sqlstate or "")[:2] in _LOST
        if number is None or not lost or not _was_committed(number, conninfo, timeout_seconds):
            raise


_LOST = ("", "08", "57")
"""Classes of states that a lost connection has; an error in COMMIT itself has another."""


def _was_committed(number: str, conninfo: str, timeout_seconds: float) -> bool:
    try:
        with connect(conninfo, timeout_seconds) as session:
            row = session.execute("SELECT pg_catalog.pg_xact_status(%s::pg_catalog.xid8)", (number,)).fetchone()
    except (SourceUnavailable, psycopg.Error) as exc:
        raise _unknown(conninfo) from exc
    if row is None or row[0] not in ("committed", "aborted"):
        raise _unknown(conninfo)
    return row[0] == "committed"


def _unknown(conninfo: str) -> LastgoodError:
    return Partial(
        f"the connection to {place_of(conninfo)} was lost at the very end: it holds what it held before,"
        " or all that was restored",
        hint="Look at it when the server is back. An undo brings back what was there before in both cases.",
    )
