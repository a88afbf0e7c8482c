"""Runs a server under a guard that ends it when this process ends, however it ends, and removes its folder.

Guard and server hold an exclusive lock on a file for as long as they live: so it is known for sure whether one runs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from blocks.errors import LastgoodError
from deployments.demo import guard
from deployments.demo.programs import Account

START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_PREFIX = "lastgood-demo-"


class ServerFailed(LastgoodError):
    """A server of the demo does not start."""


def stop_servers(home: Path) -> bool:
    """Stop servers that a demo left running; return whether there were any.

    Raises:
        ServerFailed: One does not end.
    """
    running = [lock for lock in home.glob("*.lock") if _is_held(lock)]
    for lock in running:
        group, _, folder = lock.read_text().partition(" ")
        for ending in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError, ValueError):
                os.killpg(int(group), ending)
            if _gone(lock):
                break
        else:
            raise ServerFailed(f"the demo's {lock.stem} (process group {group}) does not end")
        # where its guard was killed it is still there
        if Path(folder).name.startswith(_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)
    return bool(running)


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _gone(lock: Path) -> bool:
    deadline = time.monotonic() + guard.STOP_SECONDS
    while _is_held(lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextmanager
def private_folder(account: Account | None) -> Iterator[Path]:
    """Make a folder for a server, gone afterwards.

    It is not in the demo's, which another account may not enter, and whose path may be too long for a socket.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        if account is not None:
            os.chown(folder, account.user, account.group)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def guarded(
    path: Path, folder: Path, command: Sequence[str], account: Account | None, answers: Callable[[], bool]
) -> Iterator[None]:
    """Run a server until the context ends.

    Args:
        path: The file that is locked; the server's output goes beside it.
        folder: Of the server.
        command: What to run in there.
        account: Whom to run it as.
        answers: Returns whether it is ready.

    Raises:
        ServerFailed: It does not start.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    process = _spawn(path, log, folder, command, account)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{path.stem} does not start: {last_line(log.read_text(errors='replace'))}")
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(guard.STOP_SECONDS + 5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _spawn(
    path: Path, log: Path, folder: Path, command: Sequence[str], account: Account | None
) -> subprocess.Popen[bytes]:
    user, group = (-1, -1) if account is None else (account.user, account.group)
    words = [sys.executable, "-I", guard.__file__, str(folder), str(user), str(group), *command]
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  our own interpreter, and a server as found
                words,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment(),
                pass_fds=(lock,),
                # Ctrl-C is for the demo, which then ends the server in order
                start_new_session=True,
            )
        os.write(lock, f"{process.pid} {folder}".encode())
    except BlockingIOError as exc:
        raise ServerFailed(f"another demo's {path.stem} runs in {path.parent}") from exc
    finally:
        os.close(lock)
    return process


def environment() -> dict[str, str]:
    """Return the environment of a server: without settings of the caller's (PGDATA and the like)."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def last_line(text: str) -> str:
    """Return what a program said last."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
