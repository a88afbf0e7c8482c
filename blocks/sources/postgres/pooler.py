"""Tells a connection of one's own from one that a pooler lends out for a transaction at a time.

Settings of a session and what pg_dump sets would be left in the sessions of other programs there, `search_path` first
of all, and a snapshot or a lock is not where the next statement runs.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from blocks.errors import ConfigurationError

_Session = psycopg.Connection[tuple[object, ...]]

_PROCESS = "SELECT pg_catalog.pg_backend_pid()"
_TURNS = "0010110100110"
"""In which order two connections ask: no regular order in which a pooler lends its own fits to it."""


def refuse_shared_session(session: _Session, place: str, open_another: Callable[[], _Session]) -> None:
    """Refuse a connection whose statements may run in different sessions of the server; nothing is set before.

    A server names its process when a connection begins; a pooler in between names something of its own. In session mode
    each connection keeps one session of the server to itself, and no other has it.

    Args:
        session: A session in autocommit mode in which nothing was set.
        place: Name of the database, without secrets.
        open_another: Opens a second one in the same way.

    Raises:
        ConfigurationError: A pooler lends sessions for a transaction, or for a statement, at a time.
    """
    if _process(session) == session.info.backend_pid:
        return
    another = open_another()
    try:
        asked = [(turn, _process(another if turn == "1" else session)) for turn in _TURNS]
    finally:
        another.close()
    if len(set(asked)) == len({process for _, process in asked}) == len(set(_TURNS)):
        return
    raise ConfigurationError(
        f"{place} is reached through a connection pooler that lends sessions for one transaction or statement at a"
        " time: settings would leak from there into the sessions of applications, and no snapshot or lock would hold",
        hint="Name the server itself in `dsn`, or a pool in session mode (PgBouncer: `pool_mode = session`).",
    )


def _process(session: _Session) -> object:
    row = session.execute(_PROCESS, prepare=False).fetchone()
    assert row is not None
    return row[0]
