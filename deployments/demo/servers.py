"""The demo's own Redis and PostgreSQL: private, in folders of their own, without a port, gone when the demo ends."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg.conninfo import make_conninfo

from blocks.errors import ConfigurationError
from deployments.demo.guarded import ServerFailed, environment, guarded, last_line, private_folder
from deployments.demo.programs import Account, NotAtHand, as_account, find_postgres, find_redis, postgres_account
from deployments.demo.storage import running_s3
from deployments.demo.trading.redis import Redis, RedisError

LOCAL, S3 = "local", "s3"
"""Storages of the demo's repository."""

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
        storage: Where backups are kept: `local`, or `s3` for a server that is started, too.
    """

    def __init__(self, home: Path, storage: str = LOCAL) -> None:
        self.home = home
        self._storage = storage
        self.repository: dict[str, object] | None = None
        """The repository of a plan, where it is not in the demo's folder."""
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
        """Start what is there.

        Raises:
            ConfigurationError: The storage that was asked for cannot be run here.
        """
        if self._storage == S3:
            try:
                self.repository = self._exits.enter_context(running_s3(self.home))
            except NotAtHand as exc:
                raise ConfigurationError(f"the demo cannot keep its backups on S3: {exc}") from exc
        try:
            self.cache = self._exits.enter_context(running_redis(self.home, find_redis()))
        except (NotAtHand, ServerFailed) as exc:
            self.left_out.append(f"cache ({exc})")
        try:
            account = postgres_account()
            self.books = self._exits.enter_context(_running_postgres(self.home, find_postgres(), account))
        except (NotAtHand, ServerFailed) as exc:
            self.left_out.append(f"books ({exc})")


@contextmanager
def running_redis(home: Path, program: str, name: str = "redis", dump: Path | None = None) -> Iterator[Cache]:
    """Run a Redis, with the data of an RDB file if one is given.

    Raises:
        ServerFailed: It does not start.
    """
    with private_folder(None) as folder:
        if dump is not None:
            shutil.copyfile(dump, folder / "dump.rdb")
        cache = Cache(folder / "s", program)
        settings = _REDIS | {"dir": str(folder), "unixsocket": str(cache.socket)}
        command = [program, *(word for name, value in settings.items() for word in (f"--{name}", value))]
        with guarded(home / f"{name}.lock", folder, command, None, lambda: _redis_answers(cache.socket)):
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
    with private_folder(account) as folder:
        data = str(folder / "data")
        _run_initdb([str(programs / "initdb"), "-D", data, "-U", _USER, *_INITDB], folder, account)
        settings = _POSTGRES | {"unix_socket_directories": str(folder)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", data, *options]
        server = make_conninfo("", host=str(folder), user=_USER, dbname="postgres")
        with guarded(home / "postgres.lock", folder, command, account, lambda: _postgres_answers(server)):
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {_DATABASE}".encode())
            yield Books(make_conninfo(server, dbname=_DATABASE), programs)


def _run_initdb(command: Sequence[str], folder: Path, account: Account | None) -> None:
    try:
        done = subprocess.run(  # noqa: S603  a program of PostgreSQL, as found
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, **as_account(account)
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise ServerFailed(f"initdb cannot be run: {exc}") from exc
    if done.returncode:
        raise ServerFailed(f"initdb failed: {last_line(done.stderr)}")


def _postgres_answers(conninfo: str) -> bool:
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError:
        return False
    return True
