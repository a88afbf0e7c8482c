"""With a replication slot incrementals read what was written, and hold what a full scan would find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.manifest import BackupMetadata, BackupType
from blocks.sources.postgres.changes import Token
from tests.blocks.sources.postgres_kit import Books, changes, read_rows
from tests.postgres_server import PostgresServer

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL
SLOT = "lastgood_books"

TABLES = r"""
CREATE TABLE orders (id int PRIMARY KEY, v text);
INSERT INTO orders SELECT g, 'v' || g FROM generate_series(1, 400) g;
CREATE TABLE quotes (symbol text COLLATE "C" PRIMARY KEY, v int);
INSERT INTO quotes SELECT 'S' || g, g FROM generate_series(1, 100) g;
CREATE TABLE spread (id int, at int, v text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
CREATE TABLE low PARTITION OF spread FOR VALUES FROM (0) TO (30);
CREATE TABLE high PARTITION OF spread FOR VALUES FROM (30) TO (1000);
INSERT INTO spread SELECT g, g, 's' FROM generate_series(1, 60) g;
CREATE TABLE keyless (a int, b text);
INSERT INTO keyless SELECT g % 4, 'k' FROM generate_series(1, 12) g;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY, v int); INSERT INTO unlogged VALUES (1, 1), (2, 2);
"""


@pytest.fixture
def books(logical: PostgresServer, tmp_path: Path) -> Iterator[Books]:
    logical.create("slots", TABLES)
    yield (made := Books(logical, tmp_path, "slots", part_size_bytes=1500, slot=SLOT))
    drop(made)


def drop(books: Books) -> None:
    books.run(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{SLOT}'")


def follow(books: Books) -> None:
    """Make the slot and a base whose position is known."""
    books.back_up(FULL)
    books.run("INSERT INTO orders VALUES (-99, 'first')")
    assert position(books.back_up()) is not None


def position(made: BackupMetadata) -> int | None:
    token = Token.parse(made.sources[0].token)
    assert token
    assert token.followed
    return token.followed.position


def prove(books: Books) -> BackupMetadata:
    """A snapshot reads everything, and no other backup stands on it."""
    made, whole = books.back_up(), books.back_up(BackupType.SNAPSHOT)
    assert books.differences(made, whole) == {}
    return made


def scanned(queries: list[str], table: str) -> list[str]:
    """Which queries looked at rows of a table by anything but their keys."""
    return [q for q in queries if f'"{table}"' in q and "ctid = ANY ('{}'" not in q and "EXISTS" not in q]


def test_an_incremental_reads_only_what_was_written(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(books)
    books.run(
        "UPDATE orders SET v = 'new' WHERE id = 7; DELETE FROM orders WHERE id = 9",
        "INSERT INTO orders VALUES (500, 'x'); UPDATE orders SET id = -5 WHERE id = 10",
        "DELETE FROM orders WHERE id = 11; INSERT INTO orders VALUES (11, 'again')",
        "UPDATE spread SET at = 40 WHERE id = 1; UPDATE spread SET v = 'new' WHERE id = 2",
    )
    queries = read_rows(monkeypatch)
    made = prove(books)
    assert made.sources[0].warnings == ()
    assert changes(made) == {"orders": (4, 2), "low": (1, 1), "high": (1, 0)}
    for table in ("orders", "quotes", "low", "high"):
        assert scanned(queries[: queries.index(next(q for q in queries if '"keyless"' in q))], table) == []
    books.assert_restores()
