"""What goes wrong is an error that names the source's place and what to do, and never a password."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import adbc_driver_postgresql
import psycopg
import pytest
from adbc_driver_manager import AdbcDatabase
from pydantic import SecretStr

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable, UnsupportedState
from blocks.records import BackupType
from blocks.sources.postgres import PostgresSource
from blocks.sources.postgres.read.arrow_driver import Driver
from blocks.sources.postgres.read.readers import Reader, Readers
from blocks.sources.postgres.schema.dump import find_pg_dump
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer, installed, postgres_server

PASSWORD = "swordfish-9"


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create(
        "failing",
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 50)",
        "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)",
        "INSERT INTO child VALUES (1, 1), (2, 2)",
    )
    return Books(server, tmp_path, "failing")


def view(dsn: str, **fields: Any) -> None:
    with PostgresSource(dsn=SecretStr(dsn), connect_timeout_seconds=2, **fields).view():
        pass


def test_a_connection_that_counts_as_open_does_not_fail_a_view_at_its_end(server: PostgresServer) -> None:
    with ThreadPoolExecutor(1) as beside:
        driver = Driver(server.dsn("postgres"), beside)
        reader = Reader(driver)
    driver.close()
    assert reader.fetch("SELECT 7 AS n").to_pydict() == {"n": [7]}
    reader.close()
    driver.close()


def test_views_in_turn_ask_for_types_once_and_views_at_a_time_each(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, connect = list[str](), adbc_driver_postgresql.connect

    def counted(conninfo: str) -> AdbcDatabase:
        asked.append(conninfo)
        return connect(conninfo)

    monkeypatch.setattr(adbc_driver_postgresql, "connect", counted)
    dsn = server.create("asked", "CREATE TABLE t (id int)")
    for _ in range(3):
        view(dsn)
    assert len(asked) == 1
    source = PostgresSource(dsn=SecretStr(dsn), connect_timeout_seconds=2)
    with source.view(), source.view():
        assert len(asked) == 2


def test_a_server_that_is_down_is_named(server: PostgresServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = str(closed.getsockname()[1])
        with pytest.raises(SourceUnavailable, match=f"books at 127.0.0.1:{port}") as caught:
            view(server.dsn("books", port=port, password=PASSWORD))
    assert PASSWORD not in str(caught.value) + caught.value.hint


def test_a_missing_database_is_named(server: PostgresServer) -> None:
    with pytest.raises(SourceUnavailable, match="nowhere") as caught:
        view(server.dsn("nowhere"))
    assert "dsn" in caught.value.hint


def test_a_dsn_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        view(f"postgresql://user:{PASSWORD}@host:port:x/%zz")
    assert PASSWORD not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_wrong_password_says_where_to_check_it(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        server.start()
        server.run("postgres", f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
        (server.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        with psycopg.connect(server.dsn("postgres")) as session:
            session.execute("SELECT pg_reload_conf()")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BOOKS_PASSWORD", "wrong")
            with pytest.raises(SourceUnavailable) as caught:
                view(server.dsn("postgres"), password_env="BOOKS_PASSWORD")
            assert "password_env" in caught.value.hint
            patch.setenv("BOOKS_PASSWORD", PASSWORD)
            view(server.dsn("postgres"), password_env="BOOKS_PASSWORD")
            patch.delenv("BOOKS_PASSWORD")
            with pytest.raises(ConfigurationError, match="BOOKS_PASSWORD"):
                view(server.dsn("postgres"), password_env="BOOKS_PASSWORD")
    finally:
        server.stop()


def test_a_server_without_free_connections_says_so(tmp_path: Path) -> None:
    with postgres_server(max_connections="5", superuser_reserved_connections="0", max_wal_senders="0") as server:
        held = [server.connect("postgres") for _ in range(5)]
        with pytest.raises(SourceUnavailable) as caught:
            view(server.dsn("postgres"))
        assert "connection" in caught.value.message + caught.value.hint
        for session in held:
            session.close()


def test_a_server_that_dies_in_the_middle_leaves_no_backup(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetch, one_at_a_time = Readers.fetch, Lock()

    def fatal(self: Readers, query: str, doing: str) -> Any:
        with one_at_a_time:  # it spares itself only
            books.server.kill_backends()
        return fetch(self, query, doing)

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with monkeypatch.context() as patch:
        patch.setattr(Readers, "fetch", fatal)
        with pytest.raises(SourceUnavailable, match="failing at 127"):
            books.back_up(BackupType.FULL)
    repository = books.plan.repository.unlock(books.plan.encryption)
    assert list(repository.backups("books")) == []
    assert books.back_up(BackupType.FULL).rows == 52


def test_a_pg_dump_that_is_too_old_or_missing_is_named(server: PostgresServer, tmp_path: Path) -> None:
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    old.chmod(0o755)
    with pytest.raises(ConfigurationError, match="the newest here is 9"):
        view(server.dsn("postgres"), pg_dump=str(old))
    with pytest.raises(ConfigurationError, match="there is none here"):
        view(server.dsn("postgres"), pg_dump=str(tmp_path / "none"))


def test_a_pg_dump_on_the_path_may_be_newer_than_those_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "pg_dump"
    new.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.1'\n")
    new.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert find_pg_dump(99, None) == str(new)
    assert find_pg_dump(installed().version, None) != str(new)


@pytest.fixture
def reader(server: PostgresServer, books: Books) -> Iterator[Books]:
    server.run(
        "postgres",
        "DROP ROLE IF EXISTS only_reads",
        "CREATE ROLE only_reads LOGIN IN ROLE pg_read_all_data",
    )
    dsn = server.dsn("failing", user="only_reads")
    books.plan.sources["books"] = books.source.model_copy(update={"dsn": SecretStr(dsn)})
    yield books
    server.run("failing", "DROP OWNED BY only_reads")
    server.run("postgres", "DROP ROLE only_reads")


def test_a_role_that_may_only_read_makes_backups_that_a_superuser_restores(reader: Books) -> None:
    reader.run("SELECT lo_from_bytea(7, 'large'); CREATE SEQUENCE s; CREATE SCHEMA own; CREATE TABLE own.t (id int)")
    reader.back_up(BackupType.FULL)
    reader.run("INSERT INTO parent VALUES (99)")
    assert reader.back_up().upserts == 1
    reader.restore(to=reader.server.dsn("failing_copy"))
    assert reader.dump("failing_copy") == reader.dump()
    reader.server.run("postgres", "DROP DATABASE failing_copy")


def test_rows_that_a_policy_would_hide_are_an_error(reader: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.run("ALTER TABLE child ENABLE ROW LEVEL SECURITY")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SourceUnavailable, match="child") as caught:
        reader.back_up(BackupType.FULL)
    assert "BYPASSRLS" in caught.value.hint


def test_a_role_without_privileges_is_told_which_it_needs(reader: Books) -> None:
    reader.server.run("postgres", "REVOKE pg_read_all_data FROM only_reads")
    with pytest.raises(SourceUnavailable, match="permission denied") as caught:
        view(reader.server.dsn("failing", user="only_reads"))
    assert "pg_read_all_data" in caught.value.hint


def test_a_restore_that_breaks_a_foreign_key_is_refused_and_undone(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("DELETE FROM child; DELETE FROM parent WHERE id = 2")
    before = books.dump()
    with pytest.raises(RestoreRefused, match="foreign key"):
        books.restore(collections=("books/public.child",), mode=RestoreMode.MERGE)
    assert books.dump() == before


def test_a_table_with_other_columns_is_refused_before_anything_is_written(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("ALTER TABLE child ADD COLUMN more int", "DROP TABLE parent CASCADE")
    before = books.dump()
    with pytest.raises(RestoreRefused, match=r"table public\.child of failing .* has other columns"):
        books.restore(mode=RestoreMode.MERGE)
    assert books.dump() == before


def test_text_that_is_not_utf8_is_refused(server: PostgresServer, tmp_path: Path) -> None:
    server.run(
        "postgres", "DROP DATABASE IF EXISTS loose", "CREATE DATABASE loose ENCODING 'SQL_ASCII' TEMPLATE template0"
    )
    server.run("loose", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, E'\\xff')")
    with pytest.raises(UnsupportedState, match="cannot read public"):
        Books(server, tmp_path, "loose").back_up(BackupType.FULL)
