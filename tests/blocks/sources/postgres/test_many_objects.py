"""Databases of more objects than their server has locks for at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupType
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer, postgres_server

TABLES = 320
_MAKE = """
DO $$BEGIN FOR n IN {start}..{start} + 39 LOOP
    EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, v text UNIQUE, w int UNIQUE)', n);
    EXECUTE format('INSERT INTO t%s (v) VALUES (%L)', n, n);
END LOOP; END$$
"""


@pytest.fixture(scope="module")
def few_locks() -> Iterator[PostgresServer]:
    """A server with room for some 500 locks of all sessions."""
    with postgres_server(max_locks_per_transaction="10", max_connections="20") as running:
        running.create("many", *(_MAKE.format(start=start) for start in range(0, TABLES, 40)))
        yield running


@pytest.fixture(scope="module")
def many(few_locks: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Books:
    books = Books(few_locks, tmp_path_factory.mktemp("many"), "many", part_size_bytes=1 << 26)
    books.back_up(BackupType.FULL)
    return books


def test_more_tables_than_locks_come_back_into_a_missing_database(many: Books) -> None:
    many.assert_restores()


def test_what_one_transaction_has_no_locks_for_is_refused_before_anything_is_written(many: Books) -> None:
    many.server.create("empty")
    before = many.server.dump("empty")
    with pytest.raises(RestoreRefused, match=r"max_locks_per_transaction is 10") as refused:
        many.restore(to=many.server.dsn("empty"))
    assert "Set max_locks_per_transaction to" in refused.value.hint
    assert "missing database with --to" in refused.value.hint
    assert many.server.dump("empty") == before
