"""What P1, P2 and P3 share: a server with a pgbench database, our repository for it and restic's."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.bench import Bench
from benchmarks.measure import Run
from benchmarks.ours import Lastgood
from benchmarks.peers import PgBackRest, Restic
from tests.postgres_server import PostgresServer, postgres_server

SCALE = 20
_ROWS_PER_SCALE = 100_000


class Accounts:
    """A pgbench database; some of its accounts, spread over all of them, can be changed at a time."""

    def __init__(self, bench: Bench, server: PostgresServer, full_scale: int) -> None:
        self._bench, self.server, scale = bench, server, bench.size(full_scale)
        self.rows = scale * _ROWS_PER_SCALE
        self.dsn = server.dsn("accounts")
        server.create("accounts")
        bench.say(f"  making a database of {self.rows:,} rows")
        bench.run([self._program("pgbench"), "--initialize", "--quiet", f"--scale={scale}", self.dsn])
        server.run("accounts", "VACUUM ANALYZE", "CHECKPOINT")
        database = {"type": "postgres", "dsn": self.dsn}
        self.ours = Lastgood(bench, f"accounts-{scale}", {"accounts": database})
        self.following = Lastgood(bench, f"accounts-{scale}-slot", {"accounts": database | {"slot": "accounts"}})
        self.restic = Restic(bench, "accounts")
        owner = None if server.data.owner() == getpass.getuser() else server.data.owner()
        self.pgbackrest = PgBackRest(bench, server.data, server.folder, server.port, owner)
        self._round = 0

    def change(self, rows: int | None = None) -> None:
        """Update so many rows, or one percent of them, others each time."""
        self._round += 1
        every = self.rows // rows if rows else 100
        self.server.run(
            "accounts",
            f"UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % {every} = {self._round % every}",
            # the first session clears up after the update (hint bits, dead versions, pages to be written): nobody
            "SELECT count(*) FROM pgbench_accounts",
            "CHECKPOINT",
        )

    def dump_and_store(self) -> Run:
        """pg_dump into restic."""
        script = 'set -o pipefail; "$1" -d "$2" | restic --repo "$3" backup --stdin --stdin-filename accounts.sql'
        return self._bash(script, self._program("pg_dump"), self.dsn, str(self.restic.repository))

    def restore_ours(self, ours: Lastgood | None = None, name: str = "restored_ours") -> Run:
        """Into a database that is missing."""
        place = self.server.dsn(name)
        return (ours or self.ours)("restore", "latest", "--to", place, "--mode", "exact", "--yes", "--no-server")

    def restore_dump(self) -> Run:
        """Restic into psql, in one transaction as ours is."""
        script = 'set -o pipefail; restic --repo "$2" dump latest accounts.sql | "$1" -q -1 -d "$3" -o /dev/null'
        return self._bash(script, self._program("psql"), str(self.restic.repository), self.server.dsn("restored_dump"))

    def _program(self, name: str) -> str:
        return str(self.server.programs.server / name)

    def _bash(self, script: str, *words: str) -> Run:
        return self._bench.run(["bash", "-c", script, "bash", *words])

    def clear(self, name: str, make: bool) -> None:
        """Drop a restored database."""
        self.server.run("postgres", f"DROP DATABASE IF EXISTS {name}")
        if make:
            self.server.run("postgres", f"CREATE DATABASE {name}")

    def compare(self, *names: str) -> None:
        """Make sure that restored databases are the original."""
        original = self._sums("accounts")
        for name in names:
            assert self._sums(name) == original, name
            self.clear(name, make=False)

    def _sums(self, name: str) -> list[tuple[object, ...]]:
        """Count and hash the rows of each table in the server, so that this process stays small."""
        tables = ("accounts", "branches", "tellers", "history")
        rows = "SELECT count(*), sum(pg_catalog.hashtextextended(t::text, 0)::numeric) FROM pgbench_{} t"
        with self.server.connect(name) as session:
            return session.execute(" UNION ALL ".join(map(rows.format, tables)).encode()).fetchall()


@contextmanager
def accounts(bench: Bench, scale: int = SCALE, **settings: str) -> Iterator[Accounts]:
    """Start a server with fsync off, for both sides alike, and with settings."""
    with postgres_server(None, autovacuum="off", **settings) as server:
        yield Accounts(bench, server, scale)
