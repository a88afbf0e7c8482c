"""The programs that are run beside us see what they need, and no secret of a plan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.host.child_environment import child_environment
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.kit import RedisServer, read_all
from tests.postgres_server import PostgresServer

SECRETS = ("LASTGOOD_PASSPHRASE", "RECOVERY", "CACHE_PASSWORD", "PG_OTHER_PASSWORD", "AWS_SECRET_ACCESS_KEY")


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hunter2")


def telling(folder: Path, name: str, program: Path | str) -> Path:
    """Make a program that notes its environment and becomes another one."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nenv >> "{folder}/seen-{name}"\nexec "{program}" "$@"\n')
    path.chmod(0o755)
    return path


def seen(folder: Path, name: str) -> dict[str, str]:
    lines = (folder / f"seen-{name}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize("password", [None, "the-words-of-books"])
def test_pg_dump_sees_the_password_of_its_own_server_only(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.setenv("PGPASSWORD", "for-all-servers")
    monkeypatch.setenv("BOOKS_PASSWORD", "the-words-of-books")
    monkeypatch.setenv("PGAPPNAME", "kept")
    dsn = server.create("childenv", "CREATE TABLE a (id int PRIMARY KEY)")
    program = telling(tmp_path, "pg_dump", server.programs.pg_dump)
    telling(tmp_path, "pg_restore", server.programs.pg_dump.with_name("pg_restore"))
    source = PostgresSource(
        dsn=SecretStr(dsn), pg_dump=str(program), password_env="BOOKS_PASSWORD" if password else None
    )
    with source.view() as view:
        assert view.definition
    told = seen(tmp_path, "pg_dump")
    assert "hunter2" not in told.values()
    assert "BOOKS_PASSWORD" not in told
    assert (told["PGPASSWORD"], told["PGAPPNAME"]) == (password or "for-all-servers", "kept")
    assert {"PATH", "HOME"} <= told.keys()
    writing = seen(tmp_path, "pg_restore")
    assert not {"PGPASSWORD", "BOOKS_PASSWORD", *SECRETS} & writing.keys()


def test_pg_dump_of_another_server_sees_no_password(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "for-the-source")
    dsn = server.create("childenv", "CREATE TABLE a (id int PRIMARY KEY)")
    program = telling(tmp_path, "pg_dump", server.programs.pg_dump)
    source = PostgresSource(dsn=SecretStr("host=db.internal user=postgres"), pg_dump=str(program))
    with source.at(dsn).view() as view:
        assert view.definition
    assert "PGPASSWORD" not in seen(tmp_path, "pg_dump")


def test_a_private_redis_sees_no_secret(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "live")
    server("SET", "a", "1")
    server("SAVE")
    server.kill()
    program = telling(tmp_path, "redis-server", server.program)
    source = RedisSource(url=str(tmp_path / "live" / "dump.rdb"), server_program=str(program))
    assert read_all(source).keys() == {b"a"}
    told = seen(tmp_path, "redis-server")
    assert "PATH" in told
    assert not set(SECRETS) & told.keys()


def test_what_a_program_needs_is_a_list_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_MESSAGES", "MORE"):
        monkeypatch.setenv(name, "kept")
    monkeypatch.delenv("PATH")
    found = child_environment(["MORE", "MISSING"], LC_ALL="C")
    assert not set(SECRETS) & found.keys()
    assert found | {"LC_MESSAGES": "kept", "MORE": "kept", "LC_ALL": "C", "PATH": os.defpath} == found
    assert "MISSING" not in found
