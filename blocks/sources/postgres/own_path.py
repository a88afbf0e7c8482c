"""The search path of the database or the role, for code of a user that relies on it.

All sessions here have none, so that text is unambiguous. The planner calls immutable functions in the conditions of
indexes of a table, whatever is asked of it: one that finds its own tables by the search path fails then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg

from blocks.sources.postgres.connect import Session

T = TypeVar("T")

OWN_PATH = (
    "SELECT pg_catalog.set_config('search_path',"
    " pg_catalog.concat_ws(', ', 'pg_catalog', nullif(reset_val, '')), true)"
    " FROM pg_catalog.pg_settings WHERE name = 'search_path'"
)
"""The statement that sets it until the transaction or savepoint ends, behind `pg_catalog`: our queries mean that."""


def may_need_path(state: str | None) -> bool:
    """Whether an error, by its SQLSTATE, may be one of a name that was not found."""
    return (state or "")[:2] in ("42", "3F")


def planned_with_path(query: str) -> str:
    """Write a query that is planned with the search path and run without one, so that its text is as ever.

    The condition holds for no single row, so the server looks at it before it reads the first one.
    """
    return f"SELECT q.* FROM ({query}) q WHERE (SELECT pg_catalog.set_config('search_path', '', true)) = ''"


def looked_at(session: Session, work: Callable[[], T]) -> T:
    """Do something in a savepoint that is rolled back, so that locks go; if need be with the search path.

    Args:
        session: A session with a transaction open.
        work: What is done; it may be called again.
    """
    try:
        with session.transaction(force_rollback=True):
            return work()
    except psycopg.Error as exc:
        if session.closed or not may_need_path(exc.sqlstate):
            raise
        first = exc
    try:
        with session.transaction(force_rollback=True):
            session.execute(OWN_PATH.encode())
            return work()
    except psycopg.Error:
        raise first from None
