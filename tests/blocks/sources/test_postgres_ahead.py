"""Views that are opened ahead, and definitions for which the catalogue is read once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import SourceUnavailable
from blocks.manifest import BackupType
from blocks.sources.postgres import ahead, dump
from blocks.sources.postgres.changes import Token
from blocks.sources.postgres.dump import dump_definitions
from tests.blocks.sources.postgres_kit import Books, changes, gallery
from tests.postgres_server import PostgresServer

FULL = BackupType.FULL


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("ahead", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    return Books(server, tmp_path, "ahead")


def begin(books: Books) -> None:
    books.source.begin(incremental=True)
    [opening] = ahead._begun.values()
    opening.join()


def test_a_backup_takes_the_view_that_was_opened_ahead(books: Books) -> None:
    begin(books)
    books.run("INSERT INTO t VALUES (3, 'c')")
    assert books.back_up(FULL).rows == 2
    assert not ahead._begun
    assert changes(books.back_up()) == {"t": (1, 0)}


def test_a_view_that_is_older_than_the_base_is_not_taken(books: Books) -> None:
    books.back_up(FULL)
    begin(books)
    [(settings, opening)] = ahead._begun.items()
    ahead._begun.clear()
    books.run("INSERT INTO t VALUES (3, 'c'); UPDATE t SET v = 'changed' WHERE id = 1; DELETE FROM t WHERE id = 2")
    assert changes(books.back_up()) == {"t": (2, 1)}  # that of another run
    ahead._begun[settings] = opening
    assert changes(books.back_up()) == {}
    books.assert_restores()


def test_a_view_that_is_newer_than_the_base_is_taken_for_an_incremental(books: Books) -> None:
    books.back_up(FULL)
    books.run("INSERT INTO t VALUES (3, 'c')")
    begin(books)
    books.run("INSERT INTO t VALUES (4, 'd')")
    assert changes(books.back_up()) == {"t": (1, 0)}
    assert changes(books.back_up()) == {"t": (1, 0)}


def test_a_view_of_other_settings_is_opened_anew(books: Books) -> None:
    begin(books)
    books.run("INSERT INTO t VALUES (3, 'c')")
    books.plan.sources["books"] = books.source.model_copy(update={"exclude": ["public.none"]})
    assert books.back_up(FULL).rows == 3
    ahead._begun.clear()


def test_two_sources_of_one_database_open_one_view_ahead(books: Books) -> None:
    begin(books)
    [opening] = ahead._begun.values()
    begin(books)
    assert list(ahead._begun.values()) == [opening]
    assert books.back_up(FULL).rows == 2


def test_a_role_that_quotes_all_names_may_back_up(books: Books, server: PostgresServer) -> None:
    server.run("ahead", "ALTER DATABASE ahead SET quote_all_identifiers = on")
    assert books.back_up(FULL).rows == 2
    server.run("ahead", "ALTER DATABASE ahead RESET quote_all_identifiers")  # for pg_dump
    books.assert_restores()


def test_a_server_that_cannot_be_reached_is_met_by_who_wants_the_view(books: Books, server: PostgresServer) -> None:
    source = books.source.at(server.dsn("nowhere"))
    source.begin(incremental=True)
    with pytest.raises(SourceUnavailable, match="nowhere"), source.view():
        pass
    assert not ahead._begun


@given(st.data())
def test_a_snapshot_sees_all_of_another_if_whatever_had_ended_there_has_ended_here(data: st.DataObject) -> None:
    def token() -> tuple[Token, set[int]]:
        upcoming = data.draw(st.integers(4, 9))
        # the last number below `upcoming` is that of the last transaction that ended
        running = data.draw(st.sets(st.sampled_from(range(3, upcoming - 1)))) if upcoming > 4 else set()
        text = f"{min(running, default=upcoming)}:{upcoming}:{','.join(map(str, sorted(running)))}"
        return Token(("one",), text, "", "", {}), set(range(3, upcoming)) - running

    (one, seen), (other, seen_there) = token(), token()
    assert one.sees_all_of(other) == (seen_there <= seen)


def test_another_history_is_never_older() -> None:
    assert not Token(("one",), "3:9:", "", "", {}).sees_all_of(Token(("other",), "3:4:", "", "", {}))


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
