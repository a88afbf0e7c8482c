"""A missing database is built by several sessions, and appears when it is complete or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.records import BackupType
from blocks.sources.postgres.sessions import Sessions
from blocks.sources.postgres.write.scratch import TemporaryDatabase
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer, postgres_server

WEB = [
    "CREATE TABLE t{n} (id int PRIMARY KEY, x text, y text UNIQUE, next int, CONSTRAINT odd{n} EXCLUDE (x WITH =))",
    "CREATE INDEX i{n} ON t{n} (y, x); COMMENT ON INDEX i{n} IS 'one'; COMMENT ON CONSTRAINT odd{n} ON t{n} IS 'two'",
    "CREATE UNIQUE INDEX u{n} ON t{n} (lower(x)); ALTER TABLE t{n} CLUSTER ON u{n}",
    "INSERT INTO t{n} SELECT g, 'x' || g, 'y' || g, g FROM generate_series(1, 300) g",
    "CREATE TABLE p{n} (id int, at int REFERENCES t{n}, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
    "CREATE TABLE p{n}_1 PARTITION OF p{n} FOR VALUES FROM (0) TO (50); CREATE INDEX ON p{n} (at)",
    "CREATE TABLE p{n}_2 PARTITION OF p{n} DEFAULT; INSERT INTO p{n} SELECT g, g FROM generate_series(1, 100) g",
]


def web(server: PostgresServer, database: str, tables: int = 4) -> None:
    """Make a database of tables that refer to each other in a ring."""
    statements = [statement.format(n=n) for n in range(tables) for statement in WEB]
    for n in range(tables):
        other = (n + 1) % tables
        statements.append(f"ALTER TABLE t{n} ADD CONSTRAINT ring FOREIGN KEY (next) REFERENCES t{other}")
        statements.append(f"ALTER TABLE t{n} ADD CONSTRAINT ring_p FOREIGN KEY (next) REFERENCES p{other} NOT VALID")
        statements.append(f"COMMENT ON CONSTRAINT ring ON t{n} IS 'round'")
    server.create(database, *statements)


def databases(server: PostgresServer) -> set[str]:
    with server.connect("postgres") as session:
        return {str(name) for (name,) in session.execute("SELECT datname::text FROM pg_database")}


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    web(server, "web")
    books = Books(server, tmp_path, "web", part_size_bytes=2000)
    books.back_up(BackupType.FULL)
    return books


def test_indexes_and_foreign_keys_that_share_tables_are_made_side_by_side(books: Books) -> None:
    books.restore(to=books.server.dsn("web_copy"))
    assert books.dump("web_copy") == books.dump()
    with books.server.connect("web_copy") as session:
        assert session.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
        described = session.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'web_copy'"
        ).fetchone()
        assert described == (None,)
    books.server.run("postgres", "DROP DATABASE web_copy")


def test_a_restore_makes_do_with_the_connections_that_there_are(tmp_path: Path) -> None:
    with postgres_server(max_connections="6", superuser_reserved_connections="0", max_wal_senders="0") as server:
        web(server, "web", 2)
        books = Books(server, tmp_path, "web", part_size_bytes=2000)
        books.back_up(BackupType.FULL)
        before = books.dump()
        # one for the database's lock, one to write with
        held = [server.connect("postgres") for _ in range(4)]
        books.restore(to=server.dsn("web_copy"))
        for session in held:
            session.close()
        assert books.dump("web_copy") == before


def test_a_restore_that_fails_leaves_no_database(books: Books) -> None:
    books.server.run("postgres", "DROP ROLE IF EXISTS passing", "CREATE ROLE passing")
    # privileges on a new table come before its rows, a policy after them
    books.run("CREATE POLICY own ON t0 TO passing USING (true)")
    books.back_up(BackupType.FULL)
    books.run("DROP POLICY own ON t0")
    books.server.run("postgres", "DROP ROLE passing")
    before = databases(books.server)
    with pytest.raises(RestoreRefused, match="passing"):
        books.restore(to=books.server.dsn("web_copy"))
    assert databases(books.server) == before


def test_a_database_that_appears_meanwhile_is_left_alone(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    complete = TemporaryDatabase.complete

    def overtaken(self: TemporaryDatabase) -> bool:
        books.server.create("web_copy", "CREATE TABLE theirs ()")
        return complete(self)

    monkeypatch.setattr(TemporaryDatabase, "complete", overtaken)
    before = databases(books.server)
    with pytest.raises(RestoreRefused, match="already exists"):
        books.restore(to=books.server.dsn("web_copy"))
    assert databases(books.server) == {*before, "web_copy"}
    with books.server.connect("web_copy") as session:
        assert session.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    books.server.run("postgres", "DROP DATABASE web_copy")


def test_a_role_that_may_not_create_databases_is_told_so(books: Books) -> None:
    books.server.run("postgres", "DROP ROLE IF EXISTS passing", "CREATE ROLE passing LOGIN")
    before = databases(books.server)
    with pytest.raises(RestoreRefused, match="may not create databases"):
        books.restore(to=books.server.dsn("web_copy", user="passing"))
    assert databases(books.server) == before
    books.server.run("postgres", "DROP ROLE passing")


def test_a_role_that_may_create_databases_restores_its_own(server: PostgresServer, tmp_path: Path) -> None:
    server.create("own", "DROP ROLE IF EXISTS app", "CREATE ROLE app LOGIN CREATEDB", "ALTER DATABASE own OWNER TO app")
    with server.connect("own", user="app") as session:
        session.execute("CREATE TABLE kept (id int PRIMARY KEY)")
        session.execute("INSERT INTO kept VALUES (1); REVOKE TRUNCATE, DELETE ON kept FROM app")
    books = Books(server, tmp_path, "own")
    books.back_up(BackupType.FULL)
    books.restore(to=server.dsn("own_copy", user="app"))
    assert books.dump("own_copy") == books.dump()
    server.run("postgres", "DROP DATABASE own_copy", "DROP DATABASE own", "DROP ROLE app")


def test_without_any_connection_the_error_is_that_of_the_server() -> None:
    def refused() -> Any:
        raise SourceUnavailable("too many clients already")

    with pytest.raises(SourceUnavailable, match="too many"), Sessions(refused, 4).lend():
        pass


def test_sessions_are_lent_to_one_at_a_time(server: PostgresServer) -> None:
    sessions = Sessions(lambda: server.connect("postgres"), 2)
    with sessions.lend() as one, sessions.lend() as other:
        assert one is not other
    with sessions.lend() as again:
        assert again in (one, other)
    sessions.close()
    with pytest.raises(psycopg.OperationalError):
        one.execute("SELECT")
