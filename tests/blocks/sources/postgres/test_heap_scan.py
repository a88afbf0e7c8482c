"""Tables whose rows lie in no order of their key are read once for all parts, and nothing else changes by that."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import BaseUnusable, SourceUnavailable
from blocks.records import BackupMetadata, BackupType
from blocks.rows.index import PartIndex
from blocks.sources.postgres.connect import connect
from blocks.sources.postgres.read import heap_scan
from blocks.sources.postgres.read import view as viewing
from blocks.sources.postgres.read.heap_scan import _ranges_of_pages
from blocks.sources.postgres.read.parts import part_number, within
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.schema.tables import TableShape
from blocks.sources.view import View
from flows.pipeline.attempt import BackupAttempt, BackupPart
from tests.blocks.sources.postgres.kit import Books, changes
from tests.postgres_server import PostgresServer

FULL = BackupType.FULL

TABLES = """
CREATE TABLE marks (id uuid PRIMARY KEY, at int, v text);
INSERT INTO marks SELECT md5(g::text)::uuid, g, repeat('x', 20) FROM generate_series(1, 600) g;
CREATE TABLE names (first text COLLATE "en-x-icu", second int, v text, PRIMARY KEY (first, second));
INSERT INTO names SELECT md5(g::text), -g, NULL FROM generate_series(1, 600) g;
CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd');
CREATE TABLE moods (m mood, n int, v text, PRIMARY KEY (m, n));
INSERT INTO moods SELECT ('{a,b,c,d}'::mood[])[1 + g % 4], g, repeat('m', 60) FROM generate_series(1, 300) g;
CREATE TABLE events (at int, what text);
INSERT INTO events SELECT g % 7, 'same' FROM generate_series(1, 400) g;
CREATE TABLE orders (id int PRIMARY KEY, v text);
INSERT INTO orders SELECT g, repeat('o', 60) FROM generate_series(1, 400) g;
ANALYZE;
"""


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("scattered", TABLES)
    return Books(server, tmp_path, "scattered", part_size_bytes=4000)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what is read of whole tables."""
    queries: list[str] = []
    stream, fetch = Readers.stream, Readers.fetch

    def streamed(self: Readers, query: str, doing: str) -> Iterator[pa.Table]:
        queries.append(f"stream {query}")
        return stream(self, query, doing)

    def fetched(self: Readers, query: str, doing: str) -> pa.Table:
        queries.append(f"fetch {query}")
        return fetch(self, query, doing)

    monkeypatch.setattr(Readers, "stream", streamed)
    monkeypatch.setattr(Readers, "fetch", fetched)
    return queries


@contextmanager
def opened(books: Books) -> Iterator[View]:
    with books.source.view() as view:
        yield view


def parts_of(made: BackupMetadata) -> dict[str, int]:
    return {c.name.removeprefix("books/public."): len(c.parts) for c in made.collections}


def about(queries: list[str], table: str) -> list[str]:
    return [query for query in queries if f'"{table}"' in query]


def test_a_full_reads_each_page_once(books: Books, passes: list[str]) -> None:
    made = books.back_up(FULL)
    counts = parts_of(made)
    assert {table: counts[table] >= 4 for table in counts} == dict.fromkeys(counts, True)
    for table in ("marks", "names", "moods", "events"):
        assert [query.partition(" ")[0] for query in about(passes, table)] == ["stream"], table
    assert len(about(passes, "orders")) == counts["orders"]
    books.assert_restores()


def test_an_incremental_looks_at_each_page_once(books: Books, passes: list[str]) -> None:
    books.back_up(FULL)
    books.run(
        "UPDATE marks SET v = 'new' WHERE at IN (3, 300)",
        "UPDATE names SET v = 'new' WHERE second = -4; INSERT INTO names VALUES ('0', 0, 'first'), ('zz', 0, 'last')",
        "UPDATE moods SET m = 'd' WHERE n = 8",
    )
    passes.clear()
    assert changes(books.back_up()) == {"marks": (2, 0), "names": (3, 0), "moods": (1, 1)}
    for table in ("marks", "names"):
        found = about(passes, table)
        assert len([query for query in found if "GROUP BY part" in query]) == 1
        assert all("GROUP BY part" in query or "ctid = ANY" in query for query in found), found
    books.assert_restores()


def test_keys_are_read_once_where_rows_are_gone(books: Books, passes: list[str]) -> None:
    books.back_up(FULL)
    books.run("DELETE FROM marks WHERE at % 50 = 0; UPDATE marks SET id = md5('7' || at)::uuid WHERE at = 11")
    passes.clear()
    assert changes(books.back_up()) == {"marks": (1, 13)}
    assert len([query for query in about(passes, "marks") if query.startswith("stream")]) == 1
    books.assert_restores()


def test_of_parts_that_changed_much_only_those_wait(books: Books, passes: list[str]) -> None:
    books.back_up(FULL)
    books.run("UPDATE marks SET v = 'much' WHERE id < '20000000-0000-0000-0000-000000000000'")
    books.run("DELETE FROM marks WHERE id = md5('1')::uuid; UPDATE marks SET v = 'one' WHERE at = 2")
    passes.clear()
    made = books.back_up()
    upserts, gone = changes(made)["marks"]
    assert gone == 1
    assert upserts < 200
    narrowed = [query for query in about(passes, "marks") if "= ANY ('{" in query and query.startswith("stream")]
    assert len(narrowed) == 1
    books.assert_restores()


def test_a_chain_stays_right_when_the_order_of_rows_changes(books: Books, passes: list[str]) -> None:
    books.back_up(FULL)
    books.run("CREATE INDEX ON orders (md5(id::text))")
    books.run("CLUSTER marks USING marks_pkey; CLUSTER orders USING orders_md5_idx", "ANALYZE")
    books.run(
        "DELETE FROM marks WHERE at = 9; DELETE FROM orders WHERE id = 9; UPDATE orders SET v = 'p' WHERE id = 10"
    )
    passes.clear()
    made = books.back_up()
    assert made.backup_type is BackupType.INCREMENTAL or made.promoted_because
    books.assert_restores()
    books.run("UPDATE orders SET v = 'q' WHERE id = 11; DELETE FROM orders WHERE id = 12")
    assert changes(books.back_up()) == {"orders": (1, 1)}
    books.assert_restores()


def test_a_base_that_cannot_be_used_makes_a_whole_full(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    books.back_up(FULL)
    books.run("UPDATE marks SET v = 'new'; UPDATE names SET v = 'x' WHERE second = -5")

    base_index = BackupAttempt.base_index

    def damaged(self: BackupAttempt, part: BackupPart) -> PartIndex:
        if self.base is not None:
            raise BaseUnusable("the index is damaged")
        return base_index(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(BackupAttempt, "base_index", damaged)
        made = books.back_up()
    assert made.backup_type is FULL
    assert {c.name: c.rows for c in made.collections}["books/public.marks"] == 600
    books.assert_restores()


def test_rows_that_are_too_many_for_memory_wait_in_files(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places: list[str] = []
    waits = heap_scan.PartQueue.end

    def noted(self: Any) -> None:
        waits(self)
        places.extend(str(run) for run in self._spool._runs if isinstance(run, Path))

    monkeypatch.setattr(viewing, "_WAITING_BYTES", 0)
    monkeypatch.setattr(heap_scan.PartQueue, "end", noted)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "waiting"))
    (tmp_path / "waiting").mkdir()
    books.back_up(FULL)
    assert places
    books.run("DELETE FROM marks WHERE at % 50 = 0; UPDATE names SET v = 'much'; UPDATE marks SET v = 'y' WHERE at = 1")
    assert changes(books.back_up()) == {"marks": (1, 12), "names": (600, 0)}
    assert os.listdir(tmp_path / "waiting") == []
    books.assert_restores()


def test_files_of_a_table_go_when_all_its_parts_were_taken(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewing, "_WAITING_BYTES", 0)
    with opened(books) as view:
        spec = next(c for c in view.collections() if c.name == "public.marks")
        bounds = view.partition(spec)
        folder = Path(os.fspath(view._folder))  # type: ignore[attr-defined]
        rows = [view.read(spec, each, None).rows for each in bounds[:-1]]
        assert list(folder.iterdir())
        rows.append(view.read(spec, bounds[-1], None).rows)
        assert list(folder.iterdir()) == []
        assert sum(table.num_rows for table in rows) == 600
        # a part that is asked for again is given again
        assert view.read(spec, bounds[0], None).rows.sort_by("at") == rows[0].sort_by("at")


def test_a_server_that_dies_while_a_table_is_read_leaves_nothing(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream = Readers.stream

    def fatal(self: Readers, query: str, doing: str) -> Iterator[pa.Table]:
        for number, rows in enumerate(stream(self, query, doing)):
            if number:
                books.server.kill_backends()
                raise SourceUnavailable("cut")
            yield rows

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "waiting"))
    (tmp_path / "waiting").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Readers, "stream", fatal)
        with pytest.raises(SourceUnavailable):
            books.back_up(FULL)
    assert os.listdir(tmp_path / "waiting") == []
    assert books.back_up(FULL).rows == 2300


def test_every_row_is_in_the_part_that_its_bounds_say(books: Books) -> None:
    with opened(books) as view, connect(books.server.dsn("scattered"), 5) as session:
        for spec in view.collections():
            shape = TableShape.of(spec)
            if shape.row is not None:
                continue
            parts = list(view.partition(spec))
            number = part_number(shape, parts)
            found = session.execute(
                f"SELECT {number}, count(*) FROM ONLY {shape.quoted} GROUP BY 1 ORDER BY 1".encode()
            ).fetchall()
            one_by_one = [
                session.execute(f"SELECT count(*) FROM ONLY {shape.quoted} {within(shape, part)}".encode()).fetchone()
                for part in parts
            ]
            counts = [(n, row[0]) for n, row in enumerate(one_by_one) if row and row[0]]
            assert found == counts, spec.name


@pytest.mark.parametrize("pages", [0, 1, 1024, 1025, 32768, 200_000])
def test_ranges_cover_all_pages(pages: int) -> None:
    ranges = _ranges_of_pages(pages)
    edges = [int(text.split("'(")[1].split(",")[0]) for text in ranges[1:]]
    assert edges == sorted(set(edges))
    assert all(high - low <= 32768 for low, high in zip([0, *edges], [*edges, pages], strict=True))
    for text, low, high in zip(ranges, [None, *edges], [*edges, None], strict=True):
        tests = [f"ctid >= '({low},0)'"] * (low is not None) + [f"ctid < '({high},0)'"] * (high is not None)
        assert text == (f"WHERE {' AND '.join(tests)}" if tests else "")
