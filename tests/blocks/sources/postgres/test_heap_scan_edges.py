"""Tables that are read once for all parts: what is missing is named, and nothing waits for longer than needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from blocks.errors import BaseUnusable, ConfigurationError, TemporaryFolderFull, UnsupportedState
from blocks.records import BackupType
from blocks.rows.index import PartIndex
from blocks.sources.postgres.read import view as viewing
from blocks.sources.postgres.read.key_scan import PartByPart
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.read.view import PostgresView
from flows.pipeline.attempt import BackupAttempt, BackupPart
from tests.blocks.sources.postgres.kit import Books, changes
from tests.postgres_server import PostgresServer

TABLE = """
CREATE TABLE marks (id uuid PRIMARY KEY, at int, v text);
INSERT INTO marks SELECT md5(g::text)::uuid, g, repeat('x', 20) FROM generate_series(1, 2000) g;
ANALYZE;
"""


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("edges", TABLE)
    return Books(server, tmp_path, "edges", part_size_bytes=4000)


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the views that are opened."""
    opened: list[Any] = []
    init = PostgresView.__init__

    def recorded(self: PostgresView, *args: Any, **named: Any) -> None:
        opened.append(self)
        init(self, *args, **named)

    monkeypatch.setattr(PostgresView, "__init__", recorded)
    return opened


def room_is_given_back(view: Any) -> bool:
    return bool(view._room._left_bytes == 64 * 1024 * 1024)


@contextmanager
def plain_role(server: PostgresServer) -> Iterator[str]:
    """A role that may read the tables and nothing else, where statistics are kept from the public."""
    server.run("postgres", "DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN")
    server.run(
        "edges",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain",
        "REVOKE SELECT ON pg_catalog.pg_stats FROM PUBLIC",
    )
    try:
        yield "plain"
    finally:
        server.run("edges", "GRANT SELECT ON pg_catalog.pg_stats TO PUBLIC", "DROP OWNED BY plain", "DROP ROLE plain")


def test_a_role_that_sees_no_statistics_reads_part_by_part(server: PostgresServer, books: Books) -> None:
    with plain_role(server) as role:
        books.source.dsn = SecretStr(server.dsn("edges", user=role))
        assert books.back_up(BackupType.FULL).rows == 2000


def test_a_folder_is_made_only_for_rows_that_have_to_wait_there(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    books.back_up(BackupType.FULL)
    monkeypatch.setattr(viewing, "_WAITING_BYTES", 0)
    with pytest.raises(ConfigurationError, match=r"the folder for temporary data, .*none, is missing"):
        books.back_up(BackupType.FULL)


def test_a_full_disk_is_filled_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def full(run: Any, *args: Any) -> Any:
        tries.append("tried")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(viewing, "_WAITING_BYTES", 0)
    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(TemporaryFolderFull, match="No space left") as caught:
        books.back_up(BackupType.FULL)
    assert len(tries) == 1
    assert "TMPDIR" in caught.value.hint


def test_a_backup_that_is_given_up_does_not_read_on(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.run("CREATE TABLE broken (id int PRIMARY KEY, v text); INSERT INTO broken VALUES (1, 'x')")
    read: list[int] = []
    begun = Event()
    stream, rows = Readers.stream, PartByPart.rows

    def endless(self: Readers, query: str, doing: str) -> Iterator[pa.Table]:
        for table in stream(self, query, doing):
            while len(read) < 1000:
                read.append(1)
                begun.set()
                Event().wait(0.02)
                yield table.slice(0, 0)

    def failing(self: PartByPart, bounds: Any) -> pa.Table:
        assert begun.wait(20)
        raise UnsupportedState("the other table cannot be read")

    monkeypatch.setattr(Readers, "stream", endless)
    monkeypatch.setattr(PartByPart, "rows", failing)
    with pytest.raises(UnsupportedState, match="the other table"):
        books.back_up(BackupType.FULL)
    assert len(read) < 500
    monkeypatch.setattr(Readers, "stream", stream)
    monkeypatch.setattr(PartByPart, "rows", rows)
    assert books.back_up(BackupType.FULL).rows == 2001


@pytest.mark.parametrize("at", [1, 3, 7])
def test_what_waits_goes_when_the_parts_are_drawn_anew(
    books: Books, views: list[Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    books.back_up(BackupType.FULL)
    books.run("DELETE FROM marks WHERE at % 5 = 0; UPDATE marks SET v = 'new' WHERE at % 3 = 0")
    base_index, asked = BackupAttempt.base_index, [0]

    def damaged(self: BackupAttempt, part: BackupPart) -> PartIndex:
        if self.base is not None:
            asked[0] += 1
            if asked[0] == at:
                raise BaseUnusable("damaged")
        return base_index(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(BackupAttempt, "base_index", damaged)
        made = books.back_up()
    assert (made.backup_type, made.rows) == (BackupType.FULL, 1600)
    assert room_is_given_back(views[-1])
    books.assert_restores()


def test_nothing_waits_for_parts_that_have_no_need_of_it(books: Books, views: list[Any]) -> None:
    books.back_up(BackupType.FULL)
    books.run("DELETE FROM marks WHERE at = 5; UPDATE marks SET v = 'new' WHERE at % 20 = 0")
    assert changes(books.back_up()) == {"marks": (100, 1)}
    assert room_is_given_back(views[-1])
    assert [each._change_counts for each in views[-1]._heap_scans.values() if each] == [None]
