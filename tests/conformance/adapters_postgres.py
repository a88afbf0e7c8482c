"""PostgreSQL under the conformance suite."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from blocks.sources.postgres import PostgresSource
from tests.conformance.suite import Cause, Fault, Picture, SourceAdapter, Unbuildable
from tests.postgres_server import PostgresServer, postgres_server

_TABLES = (
    "CREATE TABLE records (key text PRIMARY KEY, n numeric, more text)",
    "CREATE TABLE log (id serial PRIMARY KEY, what bytea, at timestamptz)",
    "CREATE TABLE loose (a int, b text)",
)
_PASSWORD = "CONFORMANCE_POSTGRES_PASSWORD"


class PostgresAdapter(SourceAdapter):
    """A database with one table of put records, one of rows with a sequence, and one without a key."""

    name = "postgres"

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._server: PostgresServer
        self._server, self._numbers = shared
        self._database = self._fresh()
        self._server.create(self._database, *_TABLES)
        self._db = self._server.connect(self._database)

    def _fresh(self) -> str:
        return f"conformance_{next(self._numbers)}"

    @classmethod
    @contextmanager
    def share(cls, folder: Path) -> Iterator[tuple[PostgresServer, count[int]]]:
        with postgres_server() as server:
            yield server, count()

    @property
    def source(self) -> PostgresSource:
        dsn = self._server.dsn(self._database)
        return PostgresSource(
            dsn=SecretStr(dsn), part_size_bytes=700, lock_timeout_seconds=5, connect_timeout_seconds=2
        )

    def put(self, key: str, n: int) -> None:
        more = None if n % 3 else f"{n}" * (n % 9)
        self._db.execute(
            "INSERT INTO records VALUES (%s, %s, %s)"
            " ON CONFLICT (key) DO UPDATE SET n = EXCLUDED.n, more = EXCLUDED.more",
            (key, n, more),
        )

    def remove(self, key: str) -> None:
        self._db.execute("DELETE FROM records WHERE key = %s", (key,))

    def clear(self) -> None:
        self._db.execute("TRUNCATE records, log, loose")

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        odd = [None, b"", b"\0\xff", b"\\x", rng.randbytes(30)]
        self._db.cursor().executemany(
            "INSERT INTO log (what, at) VALUES (%s, 'infinity')", [(rng.choice(odd),) for _ in range(40)]
        )
        self._db.execute("INSERT INTO loose SELECT g %% 3, 'x' FROM generate_series(1, %s) g", (rng.randrange(3, 8),))

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        self._db.execute("DELETE FROM log WHERE id %% 7 = %s", (rng.randrange(7),))
        self._db.execute("INSERT INTO log (what, at) VALUES (%s, now())", (rng.randbytes(3),))
        self._db.execute("UPDATE log SET id = -id WHERE id %% 11 = %s", (rng.randrange(11),))
        self._db.execute("VACUUM FREEZE records")

    def picture(self, place: str | None = None) -> Picture:
        try:
            with psycopg.connect(place or self._server.dsn(self._database)) as db:
                records: Picture = {("public.records", r[0]): repr(r) for r in db.execute("SELECT * FROM records")}
                records |= {
                    ("public.log", str(r[0])): repr(r) for r in db.execute("SELECT id, what, at::text FROM log")
                }
                loose = db.execute("SELECT md5(l::text), repr, count(*) FROM loose l, text(l.a) repr GROUP BY 1, 2")
                records |= {("public.loose", str(r[0])): repr(r) for r in loose}
                if db.execute("SELECT to_regclass('public.more')").fetchone() == (None,):
                    return records
                more = db.execute("SELECT * FROM more").fetchall()
                return records | {("public.more", "table"): 1} | {("public.more", str(r[0])): 1 for r in more}
        except psycopg.OperationalError:
            return {}

    def place(self) -> str:
        return self._server.dsn(self._fresh())

    def spellings(self) -> list[str]:
        name, port = self._database, self._server.port
        return [
            f"postgresql://postgres@localhost:{port}/{name}",
            f"postgresql://postgres@127.0.0.1:{port}/{name}?application_name=x",
            f"host={self._server.folder} port={port} dbname={name} user=postgres",
        ]

    def narrowed(self) -> tuple[PostgresSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"exclude": ["public.log"]}), lambda key: key[0] == "public.log"

    def add_collection(self) -> str:
        self._db.execute("CREATE TABLE more (id int PRIMARY KEY)")
        self._db.execute("INSERT INTO more VALUES (1), (2)")
        return "public.more"

    def empty_collection(self, name: str) -> None:
        self._db.execute(f"DELETE FROM {name}".encode())

    def put_unbuildable(self) -> Unbuildable:
        for statement in (
            "CREATE TABLE divisors (n int); INSERT INTO divisors VALUES (1)",
            "CREATE MATERIALIZED VIEW quotients AS SELECT 1 / n AS q FROM divisors",
            "INSERT INTO divisors VALUES (0)",
        ):
            self._db.execute(statement)
        return Unbuildable("materialised view public.quotients", blamed="public.quotients")

    def _reached(self, **options: str) -> PostgresSource:
        dsn = self._server.dsn(self._database, **options)
        return self.source.model_copy(update={"dsn": SecretStr(dsn), "password_env": _PASSWORD})

    def faults(self) -> Iterator[Fault]:
        others = ("public.log", "public.loose")
        os.environ[_PASSWORD] = "wrong"
        yield Fault(Cause.DOWN, "127.0.0.1:1", self._reached(port="1"), others)
        yield Fault(Cause.MISSING, "not_there", self._reached(dbname="not_there"), others)
        with self._knocking() as role:
            yield Fault(Cause.PASSWORD, role, self._reached(user=role), others)
            os.environ[_PASSWORD] = "right"
            self._db.execute(f"GRANT SELECT ON log, log_id_seq, loose TO {role}".encode())
            yield Fault(Cause.RIGHTS, "records", self._reached(user=role), others)
        del os.environ[_PASSWORD]

    @contextmanager
    def _knocking(self) -> Iterator[str]:
        """Let a role in that is asked for a password."""
        role = f"reader_{self._database}"
        rules = self._server.data / "pg_hba.conf"
        before = rules.read_text()
        self._db.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'".encode())
        rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
        self._db.execute("SELECT pg_reload_conf()")
        try:
            yield role
        finally:
            rules.write_text(before)
            self._db.execute("SELECT pg_reload_conf()")
            self._db.execute(f"DROP OWNED BY {role}".encode())
            self._db.execute(f"DROP ROLE {role}".encode())

    def drop_collection(self, name: str) -> None:
        self._db.execute(f"DROP TABLE {name}".encode())

    def leftovers(self) -> set[str]:
        databases = self._db.execute("SELECT datname FROM pg_database WHERE datname LIKE '%lastgood%'").fetchall()
        return super().leftovers() | {name for (name,) in databases}

    def unwritable(self) -> str:
        return self._server.dsn("x", port="1")

    def close(self) -> None:
        self._db.close()
