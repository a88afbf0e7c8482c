"""Another history of the server, as after a failover, is never taken for the one that the base has seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.records import BackupType
from tests.blocks.sources.postgres.kit import Books, changes, read_rows
from tests.postgres_server import PostgresServer

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL
TABLE = (
    "CREATE TABLE orders (id int PRIMARY KEY, v text); INSERT INTO orders SELECT g, 'v' FROM generate_series(1, 50) g"
)


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        server.create("history", TABLE)
        yield server
    finally:
        server.stop()


@pytest.fixture
def books(primary: PostgresServer, tmp_path: Path) -> Books:
    return Books(primary, tmp_path, "history")


def look_at(books: Books, server: PostgresServer) -> None:
    dsn = SecretStr(server.dsn("history"))
    books.plan.sources["books"] = books.source.model_copy(update={"dsn": dsn})


def test_a_standby_is_read_as_a_whole_and_so_is_what_it_becomes(
    books: Books, primary: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.back_up(FULL)
    standby = PostgresServer(primary=primary)
    try:
        standby.start()
        primary.run("history", "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        with primary.connect("history") as session:
            # returns when the standby shows it
            session.execute("SET synchronous_commit = remote_apply")
            session.execute("UPDATE orders SET v = 'streamed' WHERE id = 1")
        look_at(books, standby)
        queries = read_rows(monkeypatch)
        assert changes(books.back_up()) == {"orders": (1, 0)}
        standby.promote()
        standby.run("history", "UPDATE orders SET v = 'promoted' WHERE id = 2")
        assert changes(books.back_up()) == {"orders": (1, 0)}
        assert queries
        assert not any("xmin" in query for query in queries)
        standby.run("history", "UPDATE orders SET v = 'tracked' WHERE id = 3")
        queries.clear()
        assert changes(books.back_up()) == {"orders": (1, 0)}
        assert all("xmin" in query or "ctid" in query for query in queries)
        # back on the old primary, which has gone its own way
        primary.run("history", "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        primary.run("history", "UPDATE orders SET v = 'old' WHERE id = 4")
        look_at(books, primary)
        assert changes(books.back_up()) == {"orders": (3, 0)}
    finally:
        standby.stop()


def test_a_copy_of_the_server_that_was_brought_back_is_read_as_a_whole(books: Books, primary: PostgresServer) -> None:
    """Its numbers are given out once more, below those that the base has seen."""
    primary.shut_down()
    aside = primary.folder / "aside"
    shutil.copytree(primary.data, aside)
    primary.start()
    books.run(*["UPDATE orders SET v = 'forgotten' WHERE id = 1"] * 9)
    books.back_up(FULL)
    primary.shut_down()
    shutil.rmtree(primary.data)
    shutil.copytree(aside, primary.data)
    primary.own()
    primary.start()
    books.run("UPDATE orders SET v = 'again' WHERE id = 2")
    assert changes(books.back_up()) == {"orders": (2, 0)}
    books.assert_restores()


def test_numbers_that_wrap_around_are_told_apart(
    books: Books, primary: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row's number has 32 bits: after 4,294,967,295 comes 3."""
    for number in (3 << 29, 3 << 30, (1 << 32) - 60):
        primary.shut_down()
        primary.age(number)
        primary.start()
        primary.run("postgres", "UPDATE pg_database SET datallowconn = true")
        for database in ("template0", "template1", "postgres", "history"):
            primary.run(database, "VACUUM (FREEZE)")
    books.run("UPDATE orders SET v = 'before' WHERE id <= 10")
    books.back_up(FULL)
    queries = read_rows(monkeypatch)
    books.run("UPDATE orders SET v = 'just before' WHERE id = 11")
    assert changes(books.back_up()) == {"orders": (1, 0)}
    books.run(*["SELECT txid_current()"] * 80)
    with primary.connect("history") as session:
        assert session.execute("SELECT txid_current() > 1::bigint << 32").fetchone() == (True,)
        assert session.execute("SELECT max(xmin::text::bigint) > 4294967000 FROM orders").fetchone() == (True,)
    books.run("UPDATE orders SET v = 'after' WHERE id IN (11, 12)", "DELETE FROM orders WHERE id = 13")
    made = books.back_up()
    assert changes(made) == {"orders": (2, 1)}
    assert all("xmin" in query or "ctid" in query for query in queries)
    books.run("VACUUM (FREEZE) orders", "UPDATE orders SET v = 'frozen' WHERE id = 14")
    assert changes(books.back_up()) == {"orders": (1, 0)}
    books.assert_restores()
