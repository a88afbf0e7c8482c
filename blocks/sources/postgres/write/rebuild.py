"""Makes objects from their definitions one by one, so that the one that cannot be made is known, and may be left out.

Where a definition calls what relies on a `search_path`, it is tried once more with the one that the database or the
role has set. What still fails waits for the others, because pg_dump does not see what the code of a function needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TypeVar

import psycopg
import pyarrow as pa

from blocks.errors import RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import Session, identifier, plainly, told_with_detail
from blocks.sources.postgres.hints import NOT_OF_AN_OBJECT, lacks_something, refusal_hint
from blocks.sources.postgres.own_path import may_need_path
from blocks.sources.postgres.schema.checks import broken_check, put_broken_check_aside
from blocks.sources.postgres.schema.entries import Entry, split, statements
from blocks.sources.postgres.schema.tables import LARGE_OBJECTS, TableShape
from blocks.sources.postgres.write.refused import RefusedRows
from blocks.sources.target import NotRebuilt

T = TypeVar("T")

_NAMED = {
    "FK CONSTRAINT": "foreign key",
    "MATERIALIZED VIEW DATA": "materialised view",
    "MATERIALIZED VIEW": "materialised view",
    "ACL": "privileges",
}

_NOT_THERE = ("42", "3F")
"""Classes of states that speak of what is named and is not there."""

_OWN_PATH = """
SELECT coalesce((
    SELECT pg_catalog.substr(c.setting, 13) FROM pg_catalog.pg_db_role_setting s
    CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c (setting)
    WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = %s))
      AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user))
      AND c.setting LIKE 'search\\_path=%%'
    ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
    (SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path'))
"""


@dataclass(frozen=True)
class _Failed:
    entry: Entry
    error: psycopg.Error


class Rebuild:
    """The objects of one restore that are made from definitions.

    Args:
        place: Name of the place, without secrets; for messages.
        database: Name of the database that is restored, whatever the one that is written to is called meanwhile.
        keep_going: Whether what cannot be made is left out.

    Attributes:
        refused: The rows that were left out.
        put_aside: What brings CHECK constraints back that rows have broken.
    """

    def __init__(self, place: str, database: str, keep_going: bool) -> None:
        self._place, self._database, self.keep_going = place, database, keep_going
        self._lock = Lock()
        self._failed: list[_Failed] = []
        self._lost: dict[str, NotRebuilt] = {}
        self._left_out: list[NotRebuilt] = []
        self.refused, self.put_aside = RefusedRows(), list[Entry]()
        self._checks, self._gone = set[str](), set[str]()
        self._lacks_extension = False

    @property
    def not_rebuilt(self) -> list[NotRebuilt]:
        """What was left out, or made in part."""
        return [*self._lost.values(), *self.refused.not_rebuilt, *self._left_out]

    def make(self, session: Session, text: str, first: Sequence[Entry] = ()) -> None:
        """Make all objects of a text of definitions, after some others.

        Raises:
            RestoreRefused: One cannot be made, and is not to be left out.
        """
        preamble, entries = split(text)
        session.execute(preamble.encode())
        self.run(session, [*first, *entries])

    def run(self, session: Session, entries: Iterable[Entry]) -> None:
        """Make objects, in order.

        Raises:
            RestoreRefused: One cannot be made, and is not to be left out.
        """
        for entry in entries:
            self.attempt(session, entry)
        self.finish(session)

    def attempt(self, session: Session, entry: Entry) -> None:
        """Make one object, or remember it for `finish`; several threads may do that.

        Raises:
            RestoreRefused: It cannot be made, and is not to be left out.
        """
        error = self._error_of(session, entry.script)
        if error is None:
            return
        if not self.keep_going:
            raise self._refusal(named(entry), error) from error
        with self._lock:
            self._failed.append(_Failed(entry, error))

    def finish(self, session: Session) -> None:
        """Try what failed again as long as that makes one more object; then make less of the rest, or leave it out."""
        progress = True
        while progress and self._failed:
            waiting, self._failed = self._failed, []
            for one in waiting:
                self.attempt(session, one.entry)
            progress = len(self._failed) < len(waiting)
        failed, self._failed = self._failed, []
        # what needs a type or a function of an extension that the server lacks fails in its own words
        self._lacks_extension |= any(one.entry.type == "EXTENSION" for one in failed)
        self._left_out += [self._less(session, one) for one in failed]

    def _is_faulty(self, state: str) -> bool:
        return not (lacks_something(state) or (self._lacks_extension and state.startswith(_NOT_THERE)))

    def _less(self, session: Session, failed: _Failed) -> NotRebuilt:
        entry, reason, plain = failed.entry, told_with_detail(failed.error), plainly(failed.error)
        faulty = self._is_faulty(failed.error.sqlstate or "")
        if entry.type in ("FK CONSTRAINT", "CHECK CONSTRAINT"):
            parts = [text for _, text in statements(entry.text)]
            weaker = "\n".join([f"{parts[0][:-1]} NOT VALID;", *parts[1:]])
            if self._error_of(session, f"{entry.settings}\n{weaker}".encode()) is None:
                own, at = _own_name(entry), parts[0].partition(" ADD CONSTRAINT ")[0]
                validate = f"{at} VALIDATE CONSTRAINT {identifier(own)};"
                there = "it is there as NOT VALID"
                said = f"{reason}; {there}"
                return NotRebuilt(named(entry), said, validate, faulty=faulty, plain=f"{plain}; {there}")
        return NotRebuilt(named(entry), reason, entry.script.decode().strip(), faulty=faulty, plain=plain)

    def write(self, session: Session, spec: CollectionSpec, rows: pa.Table, put: Callable[[pa.Table], None]) -> int:
        """Write some rows of a table, inside a transaction of their own or of the restore; return how many it took.

        Args:
            session: The session that writes.
            spec: The table.
            rows: The rows.
            put: Writes some of them, in one go; called again where it failed.

        Raises:
            RestoreRefused: They cannot be written, and are not to be left out.
        """
        if self.is_lost(spec.name):
            return 0
        written: Callable[[pa.Table], psycopg.Error | None] = lambda some: self._written(session, lambda: put(some))  # noqa: E731
        error = written(rows)
        if error is None:
            return int(rows.num_rows)
        if not self.keep_going:
            raise self._refusal(f"rows of table {spec.name}", error) from error
        return self.refused.salvage(spec, rows, error, written)

    def _written(self, session: Session, work: Callable[[], None]) -> psycopg.Error | None:
        """Write rows; where all is kept going, without the CHECKs that they break. Return why it cannot be done."""
        error, met = self._tried(session, work), set[str]()
        while self.keep_going and isinstance(error, psycopg.errors.CheckViolation):
            check = repr(broken_check(error))
            with self._lock:
                if check not in self._checks:
                    self._checks.add(check)
                    _failure(session, partial(self._put_aside, session, error, check))
            if check in met or check not in self._gone:
                break
            met.add(check)
            error = self._tried(session, work)
        return error

    def _put_aside(self, session: Session, error: psycopg.Error, check: str) -> None:
        entries = put_broken_check_aside(session, error)
        self.put_aside += entries
        self._gone |= {check} if entries else set()

    def done(self, session: Session, work: Callable[[], T]) -> T:
        """Do something that reads or changes rows, if need be with the database's own search path.

        Args:
            session: A session with the restore's transaction open.
            work: What is done; called again where it failed.
        """
        found: list[T] = []
        if (error := self._tried(session, lambda: found.append(work()))) is not None:
            raise error
        return found[-1]

    def lose(self, name: str) -> None:
        """Say that the rows of a table have no place, because it could not be made; none of them is written."""
        faulty = not self._lacks_extension
        self._lost.setdefault(name, NotRebuilt(f"rows of table {name}", "the table could not be made", faulty=faulty))

    def is_lost(self, name: str) -> bool:
        """Whether a table could not be made."""
        return name in self._lost

    def _refusal(self, what: str, error: psycopg.Error) -> RestoreRefused:
        hint = refusal_hint(error.sqlstate or "") or ""
        return RestoreRefused(
            f"{what} cannot be rebuilt in {self._place}: {told_with_detail(error)}",
            hint=f"{hint} `--keep-going` restores all else, and names what is left out.".strip(),
        )

    def _error_of(self, session: Session, script: bytes) -> psycopg.Error | None:
        return self._tried(session, lambda: _execute(session, script))

    def _tried(self, session: Session, work: Callable[[], None]) -> psycopg.Error | None:
        """Do something, if need be with the database's own search path; return why it cannot be done."""
        first = _failure(session, work)
        if first is None or not may_need_path(first.sqlstate):
            return first

        def with_path() -> None:
            path = session.execute(_OWN_PATH, (self._database,)).fetchone()
            session.execute("SELECT pg_catalog.set_config('search_path', %s, true)", path)
            work()
            # where it is the transaction of the whole restore, what follows is named in full again
            session.execute("SELECT pg_catalog.set_config('search_path', '', true)")

        return None if _failure(session, with_path) is None else first


def _execute(session: Session, script: bytes) -> None:
    session.execute(script)


def _failure(session: Session, work: Callable[[], None]) -> psycopg.Error | None:
    try:
        with session.transaction():
            work()
    except psycopg.Error as exc:
        state = exc.sqlstate or ""
        if session.closed or refusal_hint(state) is None or state.startswith(NOT_OF_AN_OBJECT):
            raise
        return exc
    return None


def named(entry: Entry) -> str:
    """Name the object of an entry, with its kind."""
    kind, own = _NAMED.get(entry.type, entry.type.lower()), _own_name(entry)
    at = ".".join(entry.names[0]) if entry.names else ""
    if own:
        return f"{kind} {own} of {at}"
    plain = at or entry.plain("EXISTS") or entry.plain("CREATE", entry.type) or " ".join(entry.text.split())[:60]
    return f"{kind} {plain}"


def _own_name(entry: Entry) -> str:
    if entry.type.endswith("CONSTRAINT"):
        return entry.plain("ADD", "CONSTRAINT") or ""
    return (entry.plain(entry.type) or "") if entry.type in ("INDEX", "TRIGGER", "RULE", "POLICY") else ""


def lose_missing(session: Session, rebuild: Rebuild, specs: Iterable[CollectionSpec]) -> None:
    """Leave out the rows of tables that could not be made."""
    if not rebuild.keep_going:
        return
    for spec in specs:
        if spec.name != LARGE_OBJECTS:
            found = session.execute("SELECT pg_catalog.to_regclass(%s)", (TableShape.of(spec).quoted,)).fetchone()
            if found == (None,):
                rebuild.lose(spec.name)
