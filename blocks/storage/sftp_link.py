"""The connection of a tier to an SFTP server: an event loop in its own thread, which calls from any thread share."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from blocks.storage.sftp_errors import BROKEN
from blocks.storage.sftp_login import SftpLogin
from blocks.storage.sftp_session import Session

R = TypeVar("R")

LEAVE_SECONDS = 2.0
"""For so long the end of a process waits for its connection to close."""


class SftpLink:
    """Makes the connection with the first call, and another one after it broke. Thread-safe, also after a fork.

    Args:
        login: Opens a connection.
    """

    def __init__(self, login: SftpLogin) -> None:
        self._login = login
        self._starting = threading.Lock()
        self._running: _Running | None = None
        self._finalizer: weakref.finalize[[], SftpLink] | None = None
        _links.add(self)

    def call(self, work: Callable[[Session], Coroutine[Any, Any, R]]) -> R:
        """Do work with a session, and wait for it.

        Raises:
            asyncssh.Error, OSError: The server or the connection failed.
        """
        running = self._started()
        future = asyncio.run_coroutine_threadsafe(running.work(self._login, work), running.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Close the connection and end the thread; the next call begins anew."""
        with self._starting:
            self._running = None
            if self._finalizer is not None:
                self._finalizer()

    def _started(self) -> _Running:
        with self._starting:
            if self._running is None:
                self._running = _Running()
                # also at the end of the process
                self._finalizer = weakref.finalize(self, self._running.stop)
            return self._running

    def forget(self) -> None:
        """Leave the connection to the parent of this forked process, where its thread is."""
        if self._finalizer is not None:
            self._finalizer.detach()
        if self._running is not None:
            # its end would take the parent's event loop apart, too
            _inherited.append(self._running)
        # another thread of the parent may hold it
        self._starting = threading.Lock()
        self._running = self._finalizer = None


class _Running:
    """An event loop in a daemon thread, and the session that lives in it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._left = asyncio.Event()
        self._session: asyncio.Task[Session] | None = None
        self._thread = threading.Thread(target=self._run, name="sftp", daemon=True)
        self._thread.start()

    async def work(self, login: SftpLogin, work: Callable[[Session], Coroutine[Any, Any, R]]) -> R:
        session = await self._opened(login)
        try:
            return await work(session)
        except BROKEN:
            session.abort()
            raise

    async def _opened(self, login: SftpLogin) -> Session:
        """Return the session that is open, or one that all who wait for it share."""
        if self._session is None or (self._session.done() and not _usable(self._session)):
            self._session = asyncio.ensure_future(Session.open(login))
        return await asyncio.shield(self._session)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._until_left())

    async def _until_left(self) -> None:
        await self._left.wait()
        if self._session is not None and self._session.done() and _usable(self._session):
            self._session.result().abort()
            # the socket is closed one turn of the loop later
            await asyncio.sleep(0)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._left.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(LEAVE_SECONDS)


def _usable(task: asyncio.Task[Session]) -> bool:
    return not task.cancelled() and task.exception() is None and not task.result().closed


_links: weakref.WeakSet[SftpLink] = weakref.WeakSet()
_inherited: list[_Running] = []


def _forget_all() -> None:
    for link in list(_links):
        link.forget()


os.register_at_fork(after_in_child=_forget_all)
