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
        self._asked = beside.submit(adbc_driver_postgresql.connect, conninfo)
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
        """Let it go, unless it counts a connection as open: it counts without a lock, and may count wrongly."""
        if self._database is not None:
            # the driver's own count ends in an AdbcError, the one of the package around it in a RuntimeError
            with suppress(AdbcError, RuntimeError):
                self._database.close()
