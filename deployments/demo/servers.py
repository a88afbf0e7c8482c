"""The demo's own Redis and PostgreSQL: private, in folders of their own, without a port, gone when the demo ends.

Each runs under a guard that ends it when the demo ends, however it ends, and removes its folder. Guard and server hold
an exclusive lock on a file of the demo's folder for as long as they live: so it is known for sure whether one runs.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg.conninfo import make_conninfo

from blocks.errors import LastgoodError
from deployments.demo import guard
from deployments.demo.programs import Account, NotAtHand, as_account, find_postgres, find_redis, postgres_account
from deployments.demo.trading.redis import Redis, RedisError

START_SECONDS = 30.0
_POLL_SECONDS = 0.02
_USER, _DATABASE = "trader", "books"

_REDIS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
    # for the proofs: DEBUG DIGEST is Redis's own digest of all its data
    "enable-debug-command": "local",
    # a copy for a replica, which a backup of one moment asks for, need not wait for other replicas
    "repl-diskless-sync-delay": "0",
}
_POSTGRES = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
}
_INITDB = ("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")


class ServerFailed(LastgoodError):
    """A server of the demo does not start."""


@dataclass(frozen=True)
class Cache:
    """A running Redis: its socket, and the program that it is."""

    socket: Path
    program: str


@dataclass(frozen=True)
class Books:
    """A running PostgreSQL: how to connect to the application's database, and the folder of its programs."""

    conninfo: str
    programs: Path


class Servers:
    """The servers that are at hand here.

    Args:
        home: Folder for their locks and for notes of where they are; made where it is missing.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._exits = ExitStack()
        self.cache: Cache | None = None
        self.books: Books | None = None
        self.left_out: list[str] = []
        """Which sources there are none for, and why."""

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    @property
    def names(self) -> list[str]:
        """What runs, as people call it."""
        return [name for name, server in (("Redis", self.cache), ("PostgreSQL", self.books)) if server is not None]

    @property
    def sources(self) -> dict[str, dict[str, object]]:
        """Sources of a plan that back the servers up, by name."""
        found: dict[str, dict[str, object]] = {}
        if self.cache is not None:
            url, program = f"unix://{self.cache.socket}", self.cache.program
            found["cache"] = {"type": "redis", "url": url, "consistent": True, "server_program": program}
        if self.books is not None:
            found["books"] = {"type": "postgres", "dsn": self.books.conninfo}
        return found

    def start(self) -> None:
        """Start what is there."""
        try:
            self.cache = self._exits.enter_context(running_redis(self.home, find_redis()))
        except (NotAtHand, ServerFailed) as exc:
            self.left_out.append(f"cache ({exc})")
        try:
            account = postgres_account()
            self.books = self._exits.enter_context(_running_postgres(self.home, find_postgres(), account))
        except (NotAtHand, ServerFailed) as exc:
            self.left_out.append(f"books ({exc})")


def stop_servers(home: Path) -> bool:
    """Stop servers that a demo left running; return whether there were any.

    Raises:
        ServerFailed: One does not end.
    """
    running = [lock for lock in home.glob("*.lock") if _is_held(lock)]
    for lock in running:
        for ending in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError, ValueError):
                os.killpg(int(lock.read_text()), ending)
            if _gone(lock):
                break
        else:
            raise ServerFailed(f"the demo's {lock.stem} (process group {lock.read_text()}) does not end")
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
def running_redis(home: Path, program: str, name: str = "redis", dump: Path | None = None) -> Iterator[Cache]:
    """Run a Redis, with the data of an RDB file if one is given.

    Raises:
        ServerFailed: It does not start.
    """
    with _folder(None) as folder:
        if dump is not None:
            shutil.copyfile(dump, folder / "dump.rdb")
        cache = Cache(folder / "s", program)
        settings = _REDIS | {"dir": str(folder), "unixsocket": str(cache.socket)}
        command = [program, *(word for name, value in settings.items() for word in (f"--{name}", value))]
        with _guarded(home / f"{name}.lock", folder, command, None, lambda: _redis_answers(cache.socket)):
            yield cache


def _redis_answers(path: Path) -> bool:
    try:
        with Redis(path) as redis:
            redis("DBSIZE")  # refused while data is being loaded
    except (OSError, RedisError):
        return False
    return True


@contextmanager
def _running_postgres(home: Path, programs: Path, account: Account | None) -> Iterator[Books]:
    with _folder(account) as folder:
        data = str(folder / "data")
        _run_initdb([str(programs / "initdb"), "-D", data, "-U", _USER, *_INITDB], folder, account)
        settings = _POSTGRES | {"unix_socket_directories": str(folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", data, *options]
        server = make_conninfo("", host=str(folder), user=_USER, dbname="postgres")
        with _guarded(home / "postgres.lock", folder, command, account, lambda: _postgres_answers(server)):
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {_DATABASE}".encode())
            yield Books(make_conninfo(server, dbname=_DATABASE), programs)


def _run_initdb(command: Sequence[str], folder: Path, account: Account | None) -> None:
    try:
        done = subprocess.run(  # noqa: S603  a program of PostgreSQL, as found
            command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False, **as_account(account)
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise ServerFailed(f"initdb cannot be run: {exc}") from exc
    if done.returncode:
        raise ServerFailed(f"initdb failed: {_last_line(done.stderr)}")


def _postgres_answers(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def _folder(account: Account | None) -> Iterator[Path]:
    """Make a folder for a server, gone afterwards.

    It is not in the demo's, which another account may not enter, and whose path may be too long for a socket.
    """
    folder = Path(tempfile.mkdtemp(prefix="lastgood-demo-"))
    try:
        if account is not None:
            os.chown(folder, account.user, account.group)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _guarded(
    path: Path, folder: Path, command: Sequence[str], account: Account | None, answers: Callable[[], bool]
) -> Iterator[None]:
    """Run a server under its guard until the context ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    process = _spawn(path, log, folder, command, account)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{path.stem} does not start: {_last_line(log.read_text(errors='replace'))}")
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
                env=_environment(),
                pass_fds=(lock,),
                # Ctrl-C is for the demo, which then ends the server in order
                start_new_session=True,
            )
        os.write(lock, str(process.pid).encode())
    except BlockingIOError as exc:
        raise ServerFailed(f"another demo's {path.stem} runs in {path.parent}") from exc
    finally:
        os.close(lock)
    return process


def _environment() -> dict[str, str]:
    """Keep settings of the caller's away (PGDATA and the like)."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
