"""One database is one place, however it is spelled; what is there is said, and goes aside where it is overwritten."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.errors import RestoreRefused
from blocks.sources.postgres import PostgresSource
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import restore, source_of, state_of, write
from tests.postgres_server import PostgresServer, postgres_server

TABLES = (
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    "CREATE VIEW w AS SELECT 1",
)


def spellings(server: PostgresServer, database: str) -> list[str]:
    return [
        f"postgresql://postgres@127.0.0.1:{server.port}/{database}",
        f"postgres://postgres@localhost:{server.port}/{database}?connect_timeout=3",
        f"postgresql://postgres@/{database}?host={server.folder}&port={server.port}",
        f"host={server.folder} port={server.port} user=postgres dbname={database}",
        f"hostaddr=127.0.0.1 port={server.port} user=postgres dbname='{database}'",
        f"host=db.example.com hostaddr=127.0.0.1 port={server.port} user=postgres dbname={database}",
        f"host=127.0.0.1,127.0.0.1 port={server.port} user=postgres dbname={database} application_name=other",
    ]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("missing", [False, True])
def test_other_spellings_of_a_database_are_one_place(server: PostgresServer, number: int, missing: bool) -> None:
    database = "nowhere" if missing else "spelled"
    if not missing:
        server.create("spelled", *TABLES)
    source = source_of(server, database)
    other = spellings(server, database)[number]
    assert source.location(other).same(source.location())
    elsewhere = spellings(server, "another")[number]
    assert not source.location(elsewhere).same(source.location())


def test_the_environment_and_service_files_spell_a_place(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create("spelled", *TABLES)
    server.run("postgres", "DO $$BEGIN CREATE ROLE spelled LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    services = tmp_path / "services"
    services.write_text(f"[books]\nhost=127.0.0.1\nport={server.port}\nuser=postgres\ndbname=spelled\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    source = source_of(server, "spelled")
    assert source.location("service=books").same(source.location())
    monkeypatch.setenv("PGHOST", str(server.folder))
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGUSER", "spelled")
    # the name of the user is that of the database, where none is named
    assert source.location("postgresql:///").same(source.location())
    monkeypatch.setenv("PGDATABASE", "another")
    assert not source.location("postgresql:///").same(source.location())


def test_a_server_that_does_not_answer_is_told_by_its_address(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        source = PostgresSource(dsn=SecretStr(f"postgresql://me@localhost:{port}/books"), connect_timeout_seconds=2)
        for other in (
            f"host=127.0.0.1 port={port} dbname=books",
            f"host=/var/run/postgresql port={port} user=you dbname=books",
            f"postgresql://books@{socket.gethostname()}:{port}",
            f"postgresql://[::1]:{port}/books",
        ):
            assert source.location(other).same(source.location()), other
        for other in (f"postgresql://localhost:{port}/other", f"postgresql://localhost:{port - 1}/books"):
            assert not source.location(other).same(source.location()), other


def test_a_clone_of_a_server_is_another_place(server: PostgresServer, tmp_path: Path) -> None:
    server.create("spelled", *TABLES)
    clone = PostgresServer(primary=server)
    try:
        clone.start()
        assert (
            not source_of(server, "spelled")
            .location(clone.dsn("spelled"))
            .same(source_of(server, "spelled").location())
        )
    finally:
        clone.stop()


def test_what_a_plan_takes_is_a_part_of_the_place(server: PostgresServer) -> None:
    server.create("spelled", *TABLES)
    assert source_of(server, "spelled").location().part == ""
    assert "public.t" in source_of(server, "spelled", tables=["public.t"]).location().part
    assert "password" not in source_of(server, "spelled", dsn={"password": "swordfish"}).location().shown


def test_what_is_at_a_place_is_said(server: PostgresServer) -> None:
    server.create("spelled", *TABLES)
    server.create("bare")
    source = source_of(server, "spelled")
    scope = state_of(source).scope()
    said = source.target(scope, server.dsn("spelled")).occupied()
    assert said is not None
    assert "1 tables" in said
    assert source.target(scope, server.dsn("bare")).occupied() is None
    assert source.target(scope, server.dsn("nowhere")).occupied() is None


def test_another_database_that_is_not_empty_is_not_emptied(server: PostgresServer) -> None:
    server.create("spelled", *TABLES)
    server.create("theirs", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (9, 'theirs')")
    source = source_of(server, "spelled")
    before = state_of(source)
    theirs = server.dump("theirs")
    with pytest.raises(RestoreRefused, match="not empty"):
        source.target(before.scope(in_place=False), server.dsn("theirs")).preflight()
    with pytest.raises(RestoreRefused, match="not empty"):
        source.target(before.scope(["public.t"], in_place=False), server.dsn("theirs")).preflight()
    assert server.dump("theirs") == theirs
    target = source.target(before.scope(in_place=False, mode=RestoreMode.MERGE), server.dsn("theirs"))
    target.preflight()
    write(target, before)
    with server.connect("theirs") as session:
        assert session.execute("SELECT count(*) FROM t").fetchone() == (3,)


@pytest.mark.parametrize("keys", [(), ("1",)], ids=["all keys", "one key"])
def test_what_a_merge_replaces_elsewhere_is_kept_aside(server: PostgresServer, keys: tuple[str, ...]) -> None:
    server.create("spelled", *TABLES)
    server.create(
        "theirs", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'theirs'), (9, 'nine')"
    )
    source = source_of(server, "spelled")
    before = state_of(source)
    scope = before.scope(["public.t"], in_place=False, mode=RestoreMode.MERGE)
    target = source.target(replace(scope, selection=replace(scope.selection, keys=keys)), server.dsn("theirs"))
    target.preflight()
    target.hold()
    write(target, before, ["public.t"])
    (note,) = target.notes
    aside = note.split("kept as ")[1].split(";")[0]
    with server.connect("theirs") as session:
        assert session.execute(f"SELECT v FROM {aside} ORDER BY id".encode()).fetchall() == [("theirs",), ("nine",)]
        assert session.execute("SELECT v FROM t WHERE id = 9").fetchall() == [("nine",)]
        assert session.execute("SELECT v FROM t WHERE id = 1").fetchone() != ("theirs",)
    server.run("postgres", "DROP DATABASE theirs")


@pytest.mark.parametrize("names", [None, ["public.t"]], ids=["whole", "one table"])
def test_what_is_overwritten_elsewhere_is_kept_aside(server: PostgresServer, names: list[str] | None) -> None:
    server.create("spelled", *TABLES)
    server.create("theirs", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (9, 'theirs')")
    source = source_of(server, "spelled")
    before = state_of(source)
    target = source.target(before.scope(names, in_place=False, overwrite=True), server.dsn("theirs"))
    target.preflight()
    target.hold()
    write(target, before, names)
    (note,) = target.notes
    aside = note.split("is now ")[1].split(",")[0] if names is None else note.split("kept as ")[1].split(";")[0]
    with server.connect("theirs") as session:
        assert session.execute("SELECT id FROM t ORDER BY 1").fetchall() == [(1,), (2,)]
    with server.connect(aside if names is None else "theirs") as session:
        kept = "t" if names is None else aside
        assert session.execute(f"SELECT v FROM {kept}".encode()).fetchall() == [("theirs",)]
    if names is None:
        server.run("postgres", f'DROP DATABASE "{aside}"')
    server.run("postgres", "DROP DATABASE theirs")


def test_a_database_in_use_is_not_overwritten_elsewhere(server: PostgresServer) -> None:
    server.create("spelled", *TABLES)
    server.create("theirs", "CREATE TABLE x (id int)")
    source = source_of(server, "spelled")
    scope = state_of(source).scope(in_place=False, overwrite=True)
    with server.connect("theirs"), pytest.raises(RestoreRefused, match="is used by process"):
        source.target(scope, server.dsn("theirs")).preflight()


def test_a_database_that_comes_into_being_meanwhile_is_left_alone(server: PostgresServer) -> None:
    server.create("spelled", *TABLES)
    source = source_of(server, "spelled")
    before = state_of(source)
    server.run("postgres", "DROP DATABASE IF EXISTS theirs")
    target = source.target(before.scope(in_place=False), server.dsn("theirs"))
    target.preflight()
    server.create("theirs", "CREATE TABLE x (id int)")
    with pytest.raises(RestoreRefused, match="already exists"):
        write(target, before)
    assert not target.changed
    target.abort()
    with server.connect("theirs") as session:
        assert session.execute("SELECT count(*) FROM x").fetchone() == (0,)


def test_a_restore_in_place_of_a_server_of_its_own_leaves_it_as_the_backup_says() -> None:
    with postgres_server() as own:
        own.create("spelled", *TABLES)
        source = source_of(own, "spelled")
        before, text = state_of(source), own.dump("spelled")
        own.run("spelled", "DELETE FROM t")
        assert restore(source, before).target.changed
        assert own.dump("spelled") == text


@pytest.mark.parametrize("name", ["template0", "template1", "mould"])
@pytest.mark.parametrize("more", [{}, {"overwrite": True}, {"mode": RestoreMode.MERGE}], ids=["exact", "over", "merge"])
def test_what_databases_are_made_from_is_no_place_for_a_restore(
    server: PostgresServer, name: str, more: dict[str, Any]
) -> None:
    server.create("spelled", *TABLES)
    if name == "mould":
        server.run("postgres", "DROP DATABASE IF EXISTS mould", "CREATE DATABASE mould IS_TEMPLATE true")
    source = source_of(server, "spelled")
    target = source.target(state_of(source).scope(in_place=False, **more), server.dsn(name))
    try:
        for look in (target.occupied, target.preflight):
            with pytest.raises(RestoreRefused, match=f"{name} at .* is a template"):
                look()
    finally:
        if name == "mould":
            server.run("postgres", "ALTER DATABASE mould IS_TEMPLATE false", "DROP DATABASE mould")


def test_the_database_that_every_server_has_is_not_renamed_away(server: PostgresServer) -> None:
    server.create("spelled", *TABLES)
    server.run("postgres", "CREATE TABLE IF NOT EXISTS theirs (id int)")
    source = source_of(server, "spelled")
    before = state_of(source)
    try:
        for more in ({}, {"overwrite": True}):
            target = source.target(before.scope(in_place=False, **more), server.dsn("postgres"))
            assert "tables" in str(target.occupied())
            with pytest.raises(RestoreRefused, match=r"not empty|have to be renamed"):
                target.preflight()
    finally:
        server.run("postgres", "DROP TABLE theirs")
