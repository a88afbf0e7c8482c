"""A restore or a verification in a process of its own that stops at a place, and goes on when it is told to.

A zygote has imported everything, and forks a child for each case:

    request  {"folder": ..., "dsn": ..., "place": ..., "to": ..., "state_home": ...}   one line of JSON
    reply    stopped 4711    by the child, which then waits for a line
             ended 0         by the zygote, when it has reaped the child: its wait status
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

import blocks.sources.postgres.write.target  # else imported by each child anew
from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.repository.block import BackupRepository
from blocks.sources.postgres import PostgresSource
from blocks.sources.target import RestoreMode
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books

ROOT = Path(__file__).parents[4]


class Stopped:
    """A child that has stopped."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self._process, self._pid = process, pid
        self._ended = False

    def kill(self) -> None:
        """Kill it, and see that it is gone; nothing where it has ended."""
        if not self._ended:
            os.kill(self._pid, signal.SIGKILL)
            assert self._status() == signal.SIGKILL

    def go_on(self) -> None:
        """Let it come to its end, which has to be a good one."""
        _tell(self._process, "go on")
        assert self._status() == 0

    def _status(self) -> int:
        self._ended = True
        word, status = _told(self._process)
        assert word == "ended"
        return status


class Zygote:
    """Runs one case at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    @contextmanager
    def stopped(self, books: Books, place: str, to: str | None) -> Iterator[Stopped]:
        """Run until a method (module:Class.method) is called; `to` is where to restore, None for a verification."""
        request = {"folder": str(books.folder), "dsn": books.server.dsn(books.database), "place": place, "to": to}
        _tell(self._process, json.dumps(request | {"state_home": os.environ["XDG_STATE_HOME"]}))
        word, pid = _told(self._process)
        assert word == "stopped"
        child = Stopped(self._process, pid)
        try:
            yield child
        finally:
            child.kill()

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    print(line, file=process.stdin, flush=True)


def _told(process: subprocess.Popen[str]) -> tuple[str, int]:
    assert process.stdout is not None
    word, number = process.stdout.readline().split()
    return word, int(number)


def _stop_at(place: str) -> None:
    module, _, method = place.partition(":")
    owner, name = method.split(".")
    cls = getattr(importlib.import_module(module), owner)
    original = getattr(cls, name)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        setattr(cls, name, original)
        print("stopped", os.getpid(), flush=True)
        sys.stdin.readline()
        return original(*args, **kwargs)

    setattr(cls, name, stopping)


def _run(folder: str, dsn: str, place: str, to: str | None, state_home: str) -> None:
    os.environ["XDG_STATE_HOME"] = state_home
    plan = BackupPlan(
        name="books",
        sources={"books": PostgresSource(dsn=SecretStr(dsn), part_size_bytes=700)},
        repository=BackupRepository(url=f"{folder}/repository"),
        encryption=NoEncryption(type="none"),
    )
    _stop_at(place)
    if to:
        make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, to=to))
    else:
        assert make_verification(plan).findings == ()


def main() -> None:
    """Run as the zygote."""
    assert blocks.sources.postgres.write.target
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                _run(**json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        # one that is killed must not be found as a process any more
        print("ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
