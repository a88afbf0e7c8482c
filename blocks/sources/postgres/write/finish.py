"""Makes what comes after the rows, side by side where entries do not stand in each other's way.

pg_dump orders its entries so that each finds what it needs. Only neighbours of one kind are made at the same time:
indexes and the constraints that are indexes, and foreign keys. Neither needs another of its run. A comment on an entry,
which follows it, goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from threading import Condition

from psycopg import errors

from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.schema.entries import Entry, Name
from blocks.sources.postgres.sessions import Sessions
from blocks.sources.postgres.write.rebuild import Rebuild

_KINDS = {"INDEX": "indexes", "CONSTRAINT": "indexes", "FK CONSTRAINT": "foreign keys"}
_ATTEMPTS = 5


@dataclass
class Unit:
    """Entries that one session runs, and the tables that they lock: alone, or together with others of their kind."""

    kind: str
    entries: list[Entry]
    alone: frozenset[Name] = frozenset()
    shared: frozenset[Name] = field(default_factory=frozenset)

    def waits_for(self, others: Iterable[Unit]) -> bool:
        """Whether units that are running hold a lock that this one needs."""
        return any(self.alone & (u.alone | u.shared) or self.shared & u.alone for u in others)


def units(entries: Sequence[Entry]) -> Iterator[Unit]:
    """Group entries, in order."""
    unit: Unit | None = None
    for entry in entries:
        kind = _KINDS.get(entry.type, "")
        if unit is not None and unit.kind and entry.type == "COMMENT":
            unit.entries.append(entry)
            continue
        if unit is not None:
            yield unit
        unit = Unit(kind, [entry])
        if entry.type == "INDEX":
            unit.shared = frozenset(name[:2] for name in entry.names[:1])
        elif kind:
            # a foreign key also locks the table that it refers to, which it names next
            unit.alone = frozenset(name[:2] for name in entry.names[: 2 if kind == "foreign keys" else 1])
    if unit is not None:
        yield unit


def run_side_by_side(sessions: Sessions, entries: Sequence[Entry], most: int, rebuild: Rebuild) -> None:
    """Make all objects, with up to some sessions at a time."""
    for kind, run in groupby(units(entries), lambda unit: unit.kind):
        found = list(run)
        if kind and len(found) > 1:
            _Workers(sessions, found, rebuild).run(min(most, len(found)))
            continue
        with sessions.lend() as session:
            for unit in found:
                _execute(session, unit, rebuild)
    with sessions.lend() as session:
        rebuild.finish(session)


class _Workers:
    """Workers that take units as their locks become free."""

    def __init__(self, sessions: Sessions, waiting: list[Unit], rebuild: Rebuild) -> None:
        self._rebuild, self._sessions, self._waiting, self._running = rebuild, sessions, waiting, list[Unit]()
        self._changed = Condition()

    def run(self, workers: int) -> None:
        with ThreadPoolExecutor(workers, thread_name_prefix="lastgood-finish") as pool:
            for done in [pool.submit(self._work) for _ in range(workers)]:
                done.result()

    def _work(self) -> None:
        with self._sessions.lend() as session:
            while (unit := self._next()) is not None:
                try:
                    _execute(session, unit, self._rebuild)
                except BaseException:
                    with self._changed:
                        self._waiting.clear()
                    raise
                finally:
                    with self._changed:
                        self._running.remove(unit)
                        self._changed.notify_all()

    def _next(self) -> Unit | None:
        with self._changed:
            while self._waiting:
                for unit in self._waiting:
                    if not unit.waits_for(self._running):
                        self._waiting.remove(unit)
                        self._running.append(unit)
                        return unit
                self._changed.wait()
        return None


def _execute(session: Session, unit: Unit, rebuild: Rebuild) -> None:
    """Run a unit; again where partitions, whose locks it does not know, brought it into a deadlock."""
    for entry in unit.entries:
        for _ in range(_ATTEMPTS):
            with suppress(errors.DeadlockDetected):
                rebuild.attempt(session, entry)
                break
        else:
            rebuild.attempt(session, entry)
