"""A private Redis server: started in a folder of its own, reached by a socket there, gone when it is not needed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import ProgramMissing, ServerUnusable, SourceUnavailable
from blocks.host.child_environment import child_environment
from blocks.host.leftovers import scratch_folder
from blocks.sources.redis.connect import Access
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.place import Kind, Place

_DATABASES = 10_000
_POLL_SECONDS = 0.01
_STOP_SECONDS = 60
RDB = "dump.rdb"
_SOCKET_BYTES = 100
"""The path of a folder with a socket has to be shorter."""
_BEYOND_SHELL = 20
"""No shell uses handles as high."""

# the shell ends the server when our end of its standard input closes, so none is left behind if we are killed
_GUARD = 'exec 3<&0; "$@" </dev/null & server=$!; (read -r _ <&3; kill $server) 2>/dev/null & wait $server'


@dataclass(frozen=True)
class Program:
    """What a private server is.

    Attributes:
        path: The `redis-server` to run.
        modules: Modules that it loads.
        timeout_seconds: How long a single answer may take. Loading takes as long as it takes.
    """

    path: str
    modules: tuple[str, ...]
    timeout_seconds: float

    def check(self) -> None:
        """Make sure that it is there.

        Raises:
            ProgramMissing: It is not.
        """
        try:
            subprocess.run(  # noqa: S603  named in the plan
                [self.path, "--version"], check=True, capture_output=True, env=child_environment()
            )
        except (OSError, subprocess.CalledProcessError) as exc:
            raise ProgramMissing(
                f"there is no Redis server program {self.path!r} on this machine",
                hint="Install redis-server, or name it with `server_program` in the plan.",
            ) from exc


@contextmanager
def private_server(folder: Path, program: Program) -> Iterator[Server]:
    """Start a server on the `dump.rdb` of a folder, if there is one, and end it without saving.

    Args:
        folder: Where the file is; the socket is elsewhere, because its path has to be short.
        program: The program to run, with its modules.

    Raises:
        ProgramMissing: There is no such program.
        ServerUnusable: It does not start, or cannot read the file.
    """
    with scratch_folder("socket") as place, _shortened(place) as (short, handles):
        socket, log = short / "s", place / "log"
        child = _start(folder, socket, log, program, handles)
        try:
            server = _reached(child, socket, log, program.timeout_seconds)
            try:
                yield server
            finally:
                server.close()
        finally:
            _stop(child)


@contextmanager
def _shortened(folder: Path) -> Iterator[tuple[Path, Sequence[int]]]:
    """Have a path of a folder that is short enough for a socket, and the handles that a child needs for it."""
    if len(os.fsencode(folder)) < _SOCKET_BYTES:
        yield folder, ()
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        handle = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _BEYOND_SHELL)
    finally:
        os.close(opened)
    try:
        yield Path(f"/proc/self/fd/{handle}"), (handle,)
    finally:
        os.close(handle)


def _start(folder: Path, socket: Path, log: Path, program: Program, handles: Sequence[int]) -> subprocess.Popen[bytes]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "dbfilename": RDB,
        "save": "",
        "appendonly": "no",
        "databases": str(_DATABASES),
        "logfile": str(log),
        "maxmemory": "0",
        "daemonize": "no",
        # a value that was held once is held again, however large the server's own limits are
        "proto-max-bulk-len": str(4 * 1024**3),
        "activerehashing": "no",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    words += [word for module in program.modules for word in ("--loadmodule", module)]
    program.check()
    return subprocess.Popen(  # noqa: S603
        ["/bin/sh", "-c", _GUARD, "sh", program.path, *words],
        stdin=subprocess.PIPE,
        pass_fds=handles,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
    )


def _reached(child: subprocess.Popen[bytes], socket: Path, log: Path, timeout_seconds: float) -> Server:
    access = Access(None, None, None, None, timeout_seconds)
    place = Place(Kind.UNIX, path=socket)
    while child.poll() is None:
        try:
            server = Server(place, access)
        except SourceUnavailable:
            time.sleep(_POLL_SECONDS)
            continue
        if server.info("persistence").get("loading") == "0":
            return server
        server.close()
        time.sleep(_POLL_SECONDS)
    said = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
    raise ServerUnusable(
        f"the private Redis server did not start: {' '.join(said)}",
        hint="It has to be of the same version as the server whose data it loads, or newer.",
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
