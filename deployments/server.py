"""A Prefect server of our own, as a child process: for `lastgood serve`, for the demo, and for tests.

The server's process holds an exclusive lock on a file of its folder for as long as it lives. So whether it runs, and
whether the process id that was noted is still that of the server, is known for sure, also after a reboot.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME
from prefect.settings.legacy import Setting

from blocks.errors import ConfigurationError, LastgoodError
from blocks.host.child_environment import child_environment
from deployments import attached as attached_program

HOST = "127.0.0.1"
PREFERRED_PORT = 4200
START_SECONDS = 90.0
STOP_SECONDS = 15.0
DELIVER_SECONDS = 10.0
_POLL_SECONDS = 0.1
_NOTE = "server.json"

_SERVER_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # kept in memory, the slot of a run that was under way would never be freed after a restart of the server
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # task runs are recorded in batches: a backup of many parts has thousands of them
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # from where the page itself came, through whatever tunnel; else the UI asks Prefect's usual port, whatever ours is
    "PREFECT_SERVER_UI_API_URL": "/api",
}


class ServerUnavailable(LastgoodError):
    """The local Prefect server does not start, or does not answer."""


@dataclass(frozen=True)
class LocalServer:
    """A running Prefect server.

    Attributes:
        home: Its folder: database, log, lock.
        port: Where it listens on this machine.
        pid: Its process.
    """

    home: Path
    port: int
    pid: int

    @property
    def ui_url(self) -> str:
        """Address of the user interface."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"

    def settings(self) -> dict[Setting, Any]:
        """Return the Prefect settings of a client of this server, for `temporary_settings`."""
        return {PREFECT_API_URL: self.api_url, PREFECT_HOME: self.home}


def answers(api_url: str) -> bool:
    """Return whether a Prefect API is healthy."""
    try:
        return httpx.get(f"{api_url.rstrip('/')}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def start_server(home: Path, port: int | None = None) -> LocalServer:
    """Start a server whose data lives in a folder, or return the one that runs there already.

    It outlives this process; `stop_server` ends it.

    Args:
        home: Folder of the server; made where it is missing.
        port: Where to listen; Prefect's usual one, or any free one, where it is not given.

    Raises:
        ServerUnavailable: It ended or did not become healthy in time; the message names its log.
        ConfigurationError: The port is taken.
    """
    server, process = _start(home.absolute(), port, attached=False)
    if process is not None:
        process.returncode = 0  # it stays when we go: Popen need not warn about a child that still runs
    return server


def _start(home: Path, port: int | None, attached: bool) -> tuple[LocalServer, subprocess.Popen[bytes] | None]:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (running := running_server(home)) is not None:
        _wait_until_healthy(running, None)
        return running, None
    port = _free_port(port)
    with _lock_of(home) as lock:
        (home / _NOTE).unlink(missing_ok=True)
        process = _spawn(home, port, lock, attached)
        server = LocalServer(home, port, process.pid)
        (home / _NOTE).write_text(json.dumps({"pid": server.pid, "port": server.port}), encoding="utf-8")
    try:
        _wait_until_healthy(server, process)
    except BaseException:
        stop_server(home)
        raise
    return server, process


def running_server(home: Path) -> LocalServer | None:
    """Return the server that runs in a folder, or None."""
    path = home / "server.lock"
    if not path.exists():
        return None
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            note = home / _NOTE
            if not note.exists():
                return None  # another command is just starting it
            noted = json.loads(note.read_text(encoding="utf-8"))
            return LocalServer(home, noted["port"], noted["pid"])
    return None


def stop_server(home: Path) -> bool:
    """Stop the server of a folder; return whether one was running.

    Raises:
        ServerUnavailable: Its process does not end.
    """
    server = running_server(home)
    if server is None:
        return False
    for ending in (signal.SIGTERM, signal.SIGKILL):
        _signal(server.pid, ending)
        if _gone(home, time.monotonic() + STOP_SECONDS):
            return True
    raise ServerUnavailable(f"the Prefect server {server.ui_url} (process {server.pid}) does not end")


@contextmanager
def local_server(home: Path, port: int | None = None) -> Iterator[LocalServer]:
    """Run a server for as long as the context lasts, and no longer than this process, however it ends.

    One that ran in the folder before is left running.
    """
    server, process = _start(home.absolute(), port, attached=True)
    try:
        yield server
    finally:
        deliver()
        if process is not None:
            stop_server(server.home)
            process.communicate()


def deliver() -> None:
    """Send what this process still holds of logs and events, while the server is there.

    A process that ends without it, after its server, tries for a minute to deliver the rest.
    """
    APILogWorker.drain_all(timeout=DELIVER_SECONDS)
    EventsWorker.drain_all(timeout=DELIVER_SECONDS)


@contextmanager
def _lock_of(home: Path) -> Iterator[int]:
    lock = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    except BlockingIOError as exc:
        raise ServerUnavailable(f"another command is starting the Prefect server of {home}") from exc
    finally:
        os.close(lock)


_FOR_THE_SERVER = ("PYTHON", "VIRTUAL_ENV", "XDG_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""What the names of variables begin with that the server is started with beside those that every program needs."""


def _spawn(home: Path, port: int, lock: int, attached: bool) -> subprocess.Popen[bytes]:
    # without the caller's Prefect settings: the API of another server must not leak into this one; and no secrets
    environment = child_environment(name for name in os.environ if name.upper().startswith(_FOR_THE_SERVER))
    # -P: the folder of a file that is run is no place to import from
    program = ["-P", attached_program.__file__] if attached else ["-m"]
    command = [sys.executable, *program, "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    with (home / "server.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603  our own interpreter
            command,
            cwd=home,
            env=environment | _SERVER_ENVIRONMENT | {"PREFECT_HOME": str(home)},
            stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
        )


def _wait_until_healthy(server: LocalServer, process: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    log = server.home / "server.log"
    while not answers(server.api_url):
        if process is not None and process.poll() is not None:
            raise ServerUnavailable(
                f"the Prefect server ended with code {process.returncode}", hint=f"Its log is {log}."
            )
        if time.monotonic() > deadline:
            raise ServerUnavailable(
                f"the Prefect server is not healthy after {START_SECONDS:.0f} seconds", hint=f"Its log is {log}."
            )
        time.sleep(_POLL_SECONDS)


def _free_port(wanted: int | None) -> int:
    for port in (wanted,) if wanted is not None else (PREFERRED_PORT, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # as the server itself binds: connections of an earlier one that linger do not make a port taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError(f"port {wanted} is taken", hint="Stop what listens there, or choose another port.")


def _signal(pid: int, ending: signal.Signals) -> None:
    try:
        os.killpg(pid, ending)
    except ProcessLookupError:
        return


def _gone(home: Path, deadline: float) -> bool:
    while running_server(home) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
