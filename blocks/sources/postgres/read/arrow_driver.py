"""The driver whose answers are Arrow's, before Arrow is needed: it asks for all types of a server first."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import suppress
from threading import Lock

import adbc_driver_postgresql
from adbc_driver_manager import AdbcDatabase
from adbc_driver_manager import Error as AdbcError


class Driver:
    """One database as the driver knows it, for all connections of a view.

    Args:
        conninfo: Connection string of the database, as libpq reads it.
        beside: Where the types are asked for, which takes ten times as long as to connect.
    """

    def __init__(self, conninfo: str, beside: Executor) -> None:
        self.conninfo = conninfo
        self._lock = Lock()
        self._asked = beside.submit(_IDLE.take, conninfo)
        self._database: AdbcDatabase | None = None

    def database(self) -> AdbcDatabase:
        """Return it, with the types of the server.

        Raises:
            AdbcError: It cannot be reached.
        """
        with self._lock:
            if self._database is None:
                with suppress(AdbcError):  # which is raised again
                    self._database = self._asked.result()
            self._database = self._database or adbc_driver_postgresql.connect(self.conninfo)
            return self._database

    def close(self) -> None:
        """Leave it to the next view."""
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            _IDLE.put(self.conninfo, database)


class _Idle:
    """Databases that no view uses: all that is read is of types that every server has, and those never change."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._known: dict[str, AdbcDatabase] = {}

    def take(self, conninfo: str) -> AdbcDatabase:
        """Return one that no other view has."""
        with self._lock:
            known = self._known.pop(conninfo, None)
        return known or adbc_driver_postgresql.connect(conninfo)

    def put(self, conninfo: str, database: AdbcDatabase) -> None:
        """Keep it, and let another go: the one that was used last before all others, where there are too many."""
        with self._lock:
            gone = self._known.pop(conninfo, None)
            self._known[conninfo] = database
            if len(self._known) > self._most:
                gone = self._known.pop(next(iter(self._known)))
        if gone is not None:
            # one with a connection is left alone; it counts them without a lock, and may count wrongly: the driver's
            # own count ends in an AdbcError, the one of the package around it in a RuntimeError
            with suppress(AdbcError, RuntimeError):
                gone.close()


_IDLE = _Idle(4)
