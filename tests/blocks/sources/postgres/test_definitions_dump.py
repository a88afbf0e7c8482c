"""Definitions, for which the catalogue is read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.records import BackupType
from blocks.sources.postgres.schema import dump
from blocks.sources.postgres.schema.dump import dump_definitions
from tests.blocks.sources.postgres.kit import Books, gallery
from tests.postgres_server import PostgresServer

FULL = BackupType.FULL


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("ahead", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    return Books(server, tmp_path, "ahead")


def test_a_role_that_quotes_all_names_may_back_up(books: Books, server: PostgresServer) -> None:
    server.run("ahead", "ALTER DATABASE ahead SET quote_all_identifiers = on")
    assert books.back_up(FULL).rows == 2
    server.run("ahead", "ALTER DATABASE ahead RESET quote_all_identifiers")  # for pg_dump
    books.assert_restores()


@pytest.mark.parametrize("options", [(), ("--schema=public",)])
def test_definitions_are_the_same_from_an_archive_as_from_two_runs(
    server: PostgresServer, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery(server, "defined")
    asked: list[list[str]] = []
    run = dump._run

    def recorded(command: list[str], conninfo: str) -> tuple[bytes, list[str]]:
        asked.append(command)
        return run(command, conninfo)

    def definitions() -> dump.Definitions:
        asked.clear()
        return dump_definitions(server.dsn("defined"), None, options, server.programs.version, None)

    monkeypatch.setattr(dump, "_run", recorded)
    at_once, count = definitions(), len(asked)
    with monkeypatch.context() as patch:
        patch.setattr(dump, "_from_archive", lambda command, conninfo: None)
        assert definitions() == at_once
    assert (count, len(asked)) == (1, 2)
    assert "CREATE TABLE" in at_once.before
    assert "PRIMARY KEY" in at_once.after


def test_a_pg_dump_without_its_pg_restore_is_run_for_each_section(
    server: PostgresServer, tmp_path: Path, books: Books
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\nexec {server.programs.pg_dump} "$@"\n')
    program.chmod(0o755)
    of_another_version = tmp_path / "pg_restore"

    def definitions() -> dump.Definitions:
        return dump_definitions(server.dsn("ahead"), None, (), server.programs.version, str(program))

    alone = definitions()
    of_another_version.write_text("#!/bin/sh\necho 'unsupported version in file header' >&2\nexit 1\n")
    of_another_version.chmod(0o755)
    assert definitions() == alone == dump_definitions(server.dsn("ahead"), None, (), server.programs.version, None)
