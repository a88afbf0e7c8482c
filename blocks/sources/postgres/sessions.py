"""Several sessions in one database, lent to one thread at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

from blocks.errors import SourceUnavailable
from blocks.sources.postgres.connect import Session


class Sessions:
    """Opens sessions as they are wanted, up to a number, and fewer where the server has no more to give.

    Args:
        open_one: Opens a session.
        most: How many there may be.
    """

    def __init__(self, open_one: Callable[[], Session], most: int) -> None:
        self._open, self._most = open_one, most
        self._changed = Condition()
        self._idle: list[Session] = []
        self._opened: list[Session] = []
        self._opening = 0

    @contextmanager
    def lend(self) -> Iterator[Session]:
        """Lend a session, waiting for one where there can be no more."""
        session = self._take()
        try:
            yield session
        finally:
            with self._changed:
                self._idle.append(session)
                self._changed.notify()

    def _take(self) -> Session:
        with self._changed:
            while not self._idle:
                if len(self._opened) + self._opening < self._most:
                    self._opening += 1
                    break
                self._changed.wait()
            else:
                return self._idle.pop()
        return self._opened_one()

    def _opened_one(self) -> Session:
        try:
            session = self._open()
        except SourceUnavailable:
            with self._changed:
                self._opening -= 1
                if not self._opened:
                    # others that wait must find out for themselves
                    self._changed.notify_all()
                    raise
                self._most = len(self._opened) + self._opening
            return self._take()
        with self._changed:
            self._opening -= 1
            self._opened.append(session)
        return session

    def close(self) -> None:
        """Close all sessions; an open transaction is rolled back by that."""
        for session in self._opened:
            session.close()


_MEMORY_KILOBYTES = 128 * 1024


def enlarge_memory(session: Session) -> None:
    """Let indexes be sorted in memory where that is not much, unless the server allows more already."""
    session.execute(
        "SELECT pg_catalog.set_config(name, %s, false) FROM pg_catalog.pg_settings"
        " WHERE name = 'maintenance_work_mem' AND setting::int8 < %s::int8",
        (str(_MEMORY_KILOBYTES), _MEMORY_KILOBYTES),
    )
