"""The demo's application as a process: started, spoken to, and killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from blocks.errors import LastgoodError
from blocks.host.child_environment import child_environment
from deployments.demo import trading
from deployments.demo.trading import Places

TRADE_SECONDS = 20.0
_POLL_SECONDS = 0.05
_RUN = "import runpy, sys; sys.path.append(sys.argv.pop(1)); runpy.run_module('trading', run_name='__main__')"


class Application:
    """A running trading application; killed when the context ends.

    Args:
        places: Where it keeps its state.
    """

    def __init__(self, places: Places) -> None:
        self._places = places

    def __enter__(self) -> Application:
        # isolated: the application has nothing to do with this project, or with its environment
        command = [sys.executable, "-I", "-c", _RUN, str(Path(trading.__file__).parents[1]), str(self._places.folder)]
        if self._places.cache is not None:
            command += ["--cache", str(self._places.cache)]
        if self._places.books is not None:
            command += ["--books", self._places.books]
        self._process = subprocess.Popen(  # noqa: S603  our own interpreter and package
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def tell(self, word: str) -> dict[str, int]:
        """Give the application an order and return its answer.

        Raises:
            LastgoodError: It ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError as exc:
            raise self._ended() from exc
        if not answer:
            raise self._ended()
        return dict(json.loads(answer))

    def trade(self, transactions: int) -> int:
        """Wait until the application has committed so many more transactions; return how many it has by then.

        Raises:
            LastgoodError: It does not get on.
        """
        goal = self.tell("resume")["transactions"] + transactions
        deadline = time.monotonic() + TRADE_SECONDS
        while (done := self.tell("resume")["transactions"]) < goal:
            if time.monotonic() > deadline:
                raise LastgoodError(f"the application made {done} transactions instead of {goal}")
            time.sleep(_POLL_SECONDS)
        return done

    def kill(self) -> None:
        """Kill the application, as a crash would."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _ended(self) -> LastgoodError:
        return LastgoodError(f"the application ended with code {self._process.wait()}")
