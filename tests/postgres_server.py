"""A real PostgreSQL server on a free port, with durability off; tests may kill it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from tests.in_memory import in_memory
from tests.postgres_versions import Programs

_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "max_prepared_transactions": "10",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "log_min_messages": "fatal",
    "autovacuum": "off",
}


def installed() -> Programs:
    """Find the newest version that is installed; Debian keeps servers off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    initdb = found[-1] if found else shutil.which("initdb")
    assert initdb, "PostgreSQL is missing: run `make tools`"
    folder = Path(initdb).parent
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, check=True, text=True).stdout
    return Programs(int(said.split()[2].split(".")[0]), folder, folder / "pg_dump")


def _account() -> dict[str, int]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise AssertionError("neither postgres nor nobody is an account here, and the server refuses to run as root")


# in the order in which they depend on each other
_DROPS = (
    "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database"
    " WHERE datname NOT IN ('postgres', 'template0', 'template1')",
    "SELECT format('DROP TABLESPACE %I', spcname) FROM pg_tablespace WHERE spcname !~ '^pg_'",
    "SELECT format('DROP OWNED BY %I CASCADE', rolname) FROM pg_roles WHERE oid >= 16384",
    "SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE oid >= 16384",
)


class PostgresServer:
    """One cluster in a folder of its own.

    Args:
        programs: Of the version to run; by default the one that is installed.
        primary: The server that this one follows, as a standby.
        settings: Of the server.
    """

    def __init__(
        self, programs: Programs | None = None, primary: PostgresServer | None = None, **settings: str
    ) -> None:
        self.programs = programs or installed()
        self.folder = Path(tempfile.mkdtemp(prefix="lastgood-pg-", dir=in_memory() or "/tmp"))
        self._account = _account()
        if self._account:
            os.chown(self.folder, self._account["user"], self._account["group"])
        self.data = self.folder / "data"
        self._settings = _SETTINGS | settings
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        data = ("-D", str(self.data))
        if primary is None:
            self._run("initdb", *data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        else:
            self._run("pg_basebackup", *data, "-R", "-c", "fast", "-N", "-d", primary.dsn("postgres"))

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run([self.programs.server / program, *args], capture_output=True, cwd="/", **self._account)
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in self._settings.items())
        self._run(
            "pg_ctl", "start", "-w", "-D", str(self.data), "-l", str(self.folder / "log"),
            "-o", f"-p {self.port} -k {self.folder} {options}",
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """Take the whole server away at once, as a power cut would."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self.data))

    def shut_down(self) -> None:
        """End it in good order."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self.data))

    def promote(self) -> None:
        """Make a standby a primary."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def age(self, number: int) -> None:
        """Let a server that is shut down give out transaction numbers from this one on, at most 2³¹ later than now."""
        pages_of_a_file, transactions_of_a_byte, page_bytes = 32, 4, 8192
        file = number // (pages_of_a_file * page_bytes * transactions_of_a_byte)
        statuses = self.data / "pg_xact" / f"{file:04X}"
        statuses.write_bytes(bytes(pages_of_a_file * page_bytes))
        self.own()
        self._run("pg_resetwal", "-f", "-x", str(number), "-D", str(self.data))

    def own(self) -> None:
        """Give files that a test has written to the server's account."""
        for path in self.folder.rglob("*") if self._account else ():
            os.chown(path, self._account["user"], self._account["group"], follow_symlinks=False)

    def kill_backends(self) -> None:
        """Kill every session but the caller's; of two callers at once one may be killed, having killed."""
        with suppress(psycopg.errors.AdminShutdown):
            self.run("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            os.kill(self.pid, signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database: str, **options: str) -> str:
        return make_conninfo(
            "", **({"host": "127.0.0.1", "port": str(self.port), "user": "postgres", "dbname": database} | options)
        )

    def connect(self, database: str, **options: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.dsn(database, **options), autocommit=True)

    def run(self, database: str, *statements: str) -> None:
        with self.connect(database) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def create(self, database: str, *statements: str) -> str:
        """Make a database and run statements in it; return its DSN."""
        self.run("postgres", f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', f'CREATE DATABASE "{database}"')
        self.run(database, *statements)
        return self.dsn(database)

    def empty(self) -> None:
        """Drop everything that was made here: databases, slots, tablespaces and roles."""
        with self.connect("postgres") as session:
            session.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            for statement in _DROPS:
                for (drop,) in session.execute(statement).fetchall():
                    session.execute(drop)  # type: ignore[call-overload]

    def dump(self, database: str, *options: str) -> list[str]:
        """Dump a database as text; the rows of each table are sorted, since a heap has no order of its own."""
        done = subprocess.run(
            [self.programs.pg_dump, *options, "-d", self.dsn(database)], capture_output=True, check=True, text=True
        )
        return sorted_rows(done.stdout)


def sorted_rows(dump: str) -> list[str]:
    """Sort the rows of each COPY block of a dump."""
    out: list[str] = []
    rows: list[str] | None = None
    for line in dump.split("\n"):
        if rows is None:
            if line.startswith(("\\restrict ", "\\unrestrict ")):
                continue
            out.append(line)
            if line.startswith("COPY ") and line.endswith("FROM stdin;"):
                rows = []
        elif line == "\\.":
            out += [*sorted(rows), line]
            rows = None
        else:
            rows.append(line)
    return out


@contextmanager
def postgres_server(programs: Programs | None = None, **settings: str) -> Iterator[PostgresServer]:
    server = PostgresServer(programs, **settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
