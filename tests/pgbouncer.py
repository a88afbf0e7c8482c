"""A PgBouncer in front of a server, in any of its modes."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg.conninfo import make_conninfo

from tests.postgres_server import PostgresServer

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
ignore_startup_parameters = extra_float_digits
{more}
"""


class PgBouncer:
    """A pooler on a free port."""

    def __init__(self, server: PostgresServer, folder: Path, settings: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        more = "\n".join(f"{name} = {value}" for name, value in settings.items())
        config = folder / "pgbouncer.ini"
        config.write_text(_SETTINGS.format(port=server.port, own=self.port, more=more))
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program, "PgBouncer is missing: run `make tools`"
        self._process = subprocess.Popen(
            [program, config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **_account(folder)
        )

    def dsn(self, database: str, **options: str) -> str:
        return make_conninfo(
            "", **({"host": "127.0.0.1", "port": str(self.port), "user": "postgres", "dbname": database} | options)
        )

    def wait(self) -> None:
        """Wait until it answers."""
        while True:
            assert self._process.poll() is None, "PgBouncer has ended"
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
                return

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _account(folder: Path) -> dict[str, int]:
    """It refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    folder.chmod(0o755)
    return {"user": entry.pw_uid, "group": entry.pw_gid}


@contextmanager
def pgbouncer(server: PostgresServer, **settings: str) -> Iterator[PgBouncer]:
    with tempfile.TemporaryDirectory(prefix="lastgood-pgbouncer-") as name:
        pooler = PgBouncer(server, Path(name), settings)
        try:
            pooler.wait()
            yield pooler
        finally:
            pooler.stop()
