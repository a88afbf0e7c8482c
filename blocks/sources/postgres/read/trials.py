"""What a restore computes again (materialised views, stored generated columns), tried while a backup is made.

That runs code of users, which may do what the session may, and could do more than its owner. So it runs only where its
owner is the role of the session, or a superuser. Of the materialised views of others only the catalogue is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psycopg

from blocks.sources.postgres.choice import Choice
from blocks.sources.postgres.connect import Session, told
from blocks.sources.postgres.hints import NOT_OF_AN_OBJECT
from blocks.sources.postgres.own_path import looked_at
from blocks.sources.postgres.schema.tables import Table

TRIED_SECONDS = 2
"""How long all trials of one backup take together at most."""
ROWS_TRIED = 10_000
"""How many rows of each view or table are computed at most."""
COST_TRIED = 100_000.0
"""What all trials together cost at most, as the server estimates it: about what it does in a second."""
OBJECTS_TRIED = 500
"""How many views, and how many tables, one backup looks at most at."""
_WITHOUT_PATH_SINCE = 170000
"""The first version of the server that refreshes materialised views without a search path."""
_SAID_CHARACTERS = 300
_DENIED = "42501"

_TRUSTED = """
       r.rolsuper OR (r.rolname = current_user AND current_user = session_user),
       r.rolname = current_user OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
"""
"""Whether the code of an owner `r` may run in this session, and whether what is denied to it here is denied there."""

_NOT_OF_AN_EXTENSION = """
0 = (SELECT pg_catalog.count(*) FROM pg_catalog.pg_depend e
     WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')
"""
"""Counted for each: where there is nothing to try, `NOT EXISTS` would first read all dependencies."""

_VIEWS = f"""
SELECT n.nspname::text, c.relname::text, pg_catalog.rtrim(pg_catalog.pg_get_viewdef(c.oid), ';'), {_TRUSTED},
       (SELECT pg_catalog.min(pg_catalog.format('%I.%I', tn.nspname, t.relname))
        FROM pg_catalog.pg_rewrite w
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> c.oid
        JOIN pg_catalog.pg_class t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p', 'v', 'm', 'f')
        JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
        WHERE w.ev_class = c.oid AND NOT CASE WHEN d.refobjsubid > 0
              THEN pg_catalog.has_column_privilege(c.relowner, t.oid, d.refobjsubid::int2, 'SELECT')
              ELSE pg_catalog.has_any_column_privilege(c.relowner, t.oid, 'SELECT') END)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE c.relkind = 'm' AND c.relispopulated AND {_NOT_OF_AN_EXTENSION}
ORDER BY 1, 2 LIMIT {OBJECTS_TRIED}
"""

_GENERATED = f"""
SELECT n.nspname::text, c.relname::text, pg_catalog.format('SELECT %s FROM ONLY %I.%I',
       pg_catalog.string_agg(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ', ' ORDER BY d.adnum), n.nspname, c.relname),
       {_TRUSTED}, NULL
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE a.attgenerated = 's' AND c.relkind = 'r' AND {_NOT_OF_AN_EXTENSION}
GROUP BY n.nspname, c.relname, r.rolname, r.rolsuper ORDER BY 1, 2 LIMIT {OBJECTS_TRIED}
"""


@dataclass(frozen=True)
class _Trial:
    """Something that is computed again.

    Attributes:
        name: As `schema.name`, unquoted.
        query: What computes it.
        view: Whether it is a materialised view, not the generated columns of a table.
        judged: Whether a privilege that is lacking here is lacking in a restore, too.
    """

    name: str
    query: str
    view: bool
    judged: bool

    def sentence(self, place: str, said: str) -> str:
        """Say that it fails."""
        if self.view:
            return (
                f"Materialised view {self.name} in {place} cannot be refreshed now ({said}): it cannot be restored, but"
                " with --keep-going, without rows."
            )
        return (
            f"Generated columns of {self.name} in {place} cannot be computed now ({said}): such rows cannot be"
            " restored; --keep-going leaves them out."
        )


def failing(
    session: Session,
    place: str,
    choice: Choice,
    tables: Sequence[Table],
    ask: Callable[[str], list[tuple[object, ...]]],
) -> list[str]:
    """Name what fails when it is computed again, as far as that shows in the time that there is, in sentences.

    Args:
        session: A session inside the snapshot of the view.
        place: Name of the place, without secrets; for messages.
        choice: What the plan covers.
        tables: The tables that it covers.
        ask: Asks the catalogue; returns no rows where that fails.
    """
    found, trials = list[str](), list[_Trial]()
    generated = {(table.shape.schema, table.shape.table) for table in tables if table.generated}
    whole = not choice.narrowed or choice.schemas_only
    for view, rows in ((True, ask(_VIEWS) if whole else []), (False, ask(_GENERATED) if generated else [])):
        for schema, name, query, trusted, judged, unreadable in rows:
            at = (str(schema), str(name))
            if at not in generated if not view else choice.narrowed and not choice.included(at[0], ""):
                continue
            trial = _Trial(".".join(at), str(query), view, bool(judged))
            if trusted:
                trials.append(trial)
            elif unreadable:
                found.append(trial.sentence(place, f"its owner may not read {unreadable}"))
    failed = _Trials(session).failed(trials) if trials else ()
    return found + [trial.sentence(place, told(error)[:_SAID_CHARACTERS]) for trial, error in failed]


class _Trials:
    """Tries within the time that one backup has for it."""

    def __init__(self, session: Session) -> None:
        self._session, self._until = session, time.monotonic() + TRIED_SECONDS

    def failed(self, trials: Sequence[_Trial]) -> Iterator[tuple[_Trial, psycopg.Error]]:
        """Yield what fails, and why: all are planned, then the cheapest run."""
        costs = list[tuple[float, _Trial]]()
        for trial in trials:
            planned = self._tried(trial, "EXPLAIN (FORMAT JSON)")
            if isinstance(planned, psycopg.Error):
                yield trial, planned
            elif planned is not None:
                costs.append((planned, trial))
        left = COST_TRIED
        for cost, trial in sorted(costs, key=lambda one: one[0]):
            left -= cost
            if left < 0:
                break
            error = self._tried(trial, "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)")
            if isinstance(error, psycopg.Error):
                yield trial, error

    def _tried(self, trial: _Trial, how: str) -> float | psycopg.Error | None:
        """Return the cost of a trial, or why it fails; None where it ended for another reason."""
        try:
            if trial.view and self._session.info.server_version >= _WITHOUT_PATH_SINCE:
                with self._session.transaction(force_rollback=True):
                    return self._explained(trial, how)
            return looked_at(self._session, lambda: self._explained(trial, how))
        except psycopg.Error as exc:
            state = exc.sqlstate or ""
            about_it = state and not state.startswith(NOT_OF_AN_OBJECT) and (state != _DENIED or trial.judged)
            return exc if about_it else None

    def _explained(self, trial: _Trial, how: str) -> float | None:
        milliseconds = round((self._until - time.monotonic()) * 1000)
        if milliseconds < 1:
            return None
        self._session.execute(f"SET LOCAL statement_timeout = {milliseconds}".encode())
        # of the outermost columns none is left out by the planner, and EXPLAIN throws their values away
        query = f"{how} SELECT * FROM ({trial.query}) q LIMIT {ROWS_TRIED}"
        row = self._session.execute(query.encode()).fetchone()
        match row:
            case ([{"Plan": {"Total Cost": float() | int() as cost}}, *_],):
                return float(cost)
        return None
