"""A child of this process, forked, that does one thing, waits, and is killed or goes on."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import closing


class Child:
    """Runs `first` at once, and `then` when it is told to.

    Args:
        first: Done before this returns.
        then: Done by `go_on`.
    """

    def __init__(self, first: Callable[[], None], then: Callable[[], None]) -> None:
        self._said, saying = os.pipe()
        hearing, self._tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._said)
            os.close(self._tell)
            self._run(first, then, hearing, saying)
        os.close(hearing)
        os.close(saying)
        answer = os.read(self._said, 1 << 16).decode()
        assert answer == "ready", answer

    @staticmethod
    def _run(first: Callable[[], None], then: Callable[[], None], hearing: int, saying: int) -> None:
        try:
            first()
            os.write(saying, b"ready")
            if os.read(hearing, 1):
                then()
        except BaseException:  # it must not go on with the tests of its parent
            os.write(saying, traceback.format_exc().encode())
        finally:
            os._exit(0)

    @staticmethod
    def ended_by(work: Callable[[], object]) -> int:
        """Do something in a child that ends meanwhile; return the signal that ended it, or 0."""
        pid = os.fork()
        if pid == 0:
            try:
                work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        return os.WTERMSIG(os.waitpid(pid, 0)[1])

    def kill(self) -> None:
        """Take it away at once."""
        os.kill(self.pid, signal.SIGKILL)
        self._end()

    def go_on(self) -> str:
        """Let it do the rest; return what went wrong, as text."""
        os.write(self._tell, b"x")
        with closing(os.fdopen(os.dup(self._said))) as said:
            answer = said.read()
        self._end()
        return answer

    def _end(self) -> None:
        os.waitpid(self.pid, 0)
        os.close(self._said)
        os.close(self._tell)
