"""One Prefect server for all processes of a test run: the first one that needs it starts it, the last one ends it."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from deployments.server import LocalServer, deliver, local_server, running_server, stop_server

STARTERS_SECRET = "known to who starts the server"
_DATABASE = "prefect.db"


class SharedServer:
    """The server of a test run, which takes longer to start than most tests take.

    It does not outlive the process that started it, and stops when no process of the run uses it any more, for its
    services keep a processor busy, though nobody asks for anything.

    Args:
        folder: A folder that all processes of the run know.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._home, self._empty = folder / "home", folder / _DATABASE
        self._gate, self._users = folder / "gate", folder / "users"
        self._started = ExitStack()

    @contextmanager
    def used(self) -> Iterator[LocalServer]:
        """Use the server, which runs until the context ends, at least."""
        with self._users.open("ab") as users:
            with self._alone():
                server = running_server(self._home) or self._start()
                fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield server
            finally:
                deliver()
                with self._alone():
                    fcntl.flock(users, fcntl.LOCK_UN)
                    if _unused(users.fileno()):
                        stop_server(self._home)

    def close(self) -> None:
        """End what this process started, when nobody uses it any more."""
        with self._users.open("ab") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            self._started.close()

    def prepare_home(self, home: Path) -> None:
        """Make the folder of another server, with an empty database: to make its tables takes as long as to start.

        The shared server has been started before.
        """
        home.mkdir(mode=0o700, parents=True)
        shutil.copyfile(self._empty, home / _DATABASE)

    def _start(self) -> LocalServer:
        """Start the server; its starter knows a passphrase, which must not become the server's."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LASTGOOD_PASSPHRASE", STARTERS_SECRET)
            server = self._started.enter_context(local_server(self._home, port=0))
        if not self._empty.exists():
            with (
                closing(sqlite3.connect(self._home / _DATABASE)) as made,
                closing(sqlite3.connect(self._empty)) as copy,
            ):
                made.backup(copy)
        return server

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._gate.open("ab") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield


def _unused(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
